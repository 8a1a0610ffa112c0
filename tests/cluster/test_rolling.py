"""A model that is replaced while it runs."""

from typing import Any

import pytest
from tests.cluster.conftest import GIB, spec
from tests.cluster.test_control_state import Cluster

from xinfer_runtime.cluster import control_events as control
from xinfer_runtime.errors import Conflict, DoesNotFit
from xinfer_runtime.models import ReplicaState


def replaced(cluster: Cluster, **fields: Any) -> None:
    cluster.handle(control.LaunchAsked(spec(**{"created": 2.0} | fields), replace=True))


def running(*nodes: str, **fields: Any) -> Cluster:
    cluster = Cluster(*(nodes or ("a",)))
    cluster.handle(control.LaunchAsked(spec(**{"created": 1.0} | fields)))
    for node in list(cluster.syncs):
        cluster.obey(node)
    return cluster


def launches(cluster: Cluster, node: str = "a") -> list[float]:
    return [want.spec.created for want in cluster.syncs[node].wants]


def test_each_replica_leaves_when_its_successor_is_ready() -> None:
    cluster = running(replica=2)
    replaced(cluster, replica=2, context_length=512)
    assert launches(cluster) == [1.0, 1.0, 2.0]
    ready = 2
    for expected in ([1.0, 2.0, 2.0], [2.0, 2.0]):
        cluster.obey("a")
        while launches(cluster) != expected:
            cluster.obey("a")
            states = [replica.state for replica in cluster.model().replicas]
            assert states.count(ReplicaState.READY) >= ready
    assert cluster.model().spec.context_length == 512
    assert cluster.persisted[-1][0].context_length == 512
    cluster.handle(control.Ticked())
    assert cluster.model().events[-1].content == "all of its replicas are replaced"


def test_the_number_of_replicas_changes_with_it() -> None:
    cluster = running(replica=2)
    replaced(cluster, replica=1)
    for _ in range(6):
        cluster.obey("a")
    assert launches(cluster) == [2.0]
    assert cluster.model().spec.replica == 1


def test_what_has_no_room_beside_the_old_one_is_refused_and_changes_nothing() -> None:
    cluster = running(memory=10 * GIB)
    with pytest.raises(DoesNotFit):
        replaced(cluster, memory=10 * GIB)
    cluster.handle(control.Ticked())
    assert launches(cluster) == [1.0]
    assert cluster.model().spec.created == 1.0


def test_a_model_that_is_loading_is_not_replaced() -> None:
    cluster = Cluster("a")
    cluster.handle(control.LaunchAsked(spec()))
    with pytest.raises(Conflict):
        replaced(cluster)


def test_without_a_model_of_its_name_it_is_a_launch() -> None:
    cluster = Cluster("a")
    replaced(cluster)
    assert cluster.wanted("a") == ["m-0"]


def test_one_that_crashed_meanwhile_is_replaced_in_its_place() -> None:
    cluster = running(replica=1)
    replaced(cluster)
    cluster.obey("a", ReplicaState.LOADING)
    for _ in range(4):
        cluster.obey("a")
    assert launches(cluster) == [2.0]


def test_a_model_that_sleeps_wakes_as_the_new_one() -> None:
    cluster = running(idle_timeout=60.0, asleep=True)
    replaced(cluster, context_length=99)
    assert cluster.model().state is ReplicaState.SLEEPING
    cluster.handle(control.WakeAsked("m"))
    assert [want.spec.context_length for want in cluster.syncs["a"].wants] == [99]
