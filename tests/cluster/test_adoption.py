"""What a controller makes of replicas that run already, or still."""

from typing import Any

from tests.cluster.conftest import report, spec
from tests.cluster.test_control_state import NOW, Cluster

from xinfer_runtime.cluster import control_events as control
from xinfer_runtime.cluster.adoption import ADOPTION_SECONDS
from xinfer_runtime.cluster.control_state import ControlState
from xinfer_runtime.cluster.protocol import ReplicaReport
from xinfer_runtime.models import Replica, ReplicaState

LAUNCHED = 5.0


def running(number: int = 0, state: ReplicaState = ReplicaState.READY, launched: float = LAUNCHED) -> ReplicaReport:
    """Replica `number` of model m, as an earlier controller had it started."""
    replica = Replica(id=f"m-{number}", uid="m", node="n", state=state, pid=70 + number, token=f"t{number}")
    return ReplicaReport(incarnation=f"before.{number}", replica=replica, launched=launched)


def restarted(replica: int = 1, *nodes: str) -> Cluster:
    """A controller that has just read its table."""
    cluster = Cluster()
    cluster.handle(control.Restored((spec(replica=replica, created=LAUNCHED),)))
    for node in nodes:
        cluster.report(node, outlasts=True)
    return cluster


def pids(cluster: Cluster) -> dict[str, int]:
    return {replica.id: replica.pid for replica in cluster.model().replicas}


def later(cluster: Cluster, seconds: float, event: Any) -> None:
    for instruction in cluster.state.handle(event, NOW + seconds):
        if isinstance(instruction, control.SendSync):
            cluster.syncs[instruction.address] = instruction.sync


def test_a_restarted_controller_adopts_what_runs_and_wants_it_on() -> None:
    cluster = restarted(2)
    cluster.report("a", running(1), outlasts=True)
    cluster.report("b", running(0), outlasts=True)
    assert pids(cluster) == {"m-0": 70, "m-1": 71}
    assert cluster.model().state == "ready"
    assert [want.incarnation for want in cluster.syncs["a"].wants] == ["before.1"]
    assert [want.incarnation for want in cluster.syncs["b"].wants] == ["before.0"]


def test_it_starts_nothing_before_nodes_had_time_to_tell() -> None:
    cluster = restarted(1, "a")
    assert not cluster.state.settled(NOW)
    assert cluster.wanted("a") == []
    later(cluster, ADOPTION_SECONDS, control.Ticked())
    assert cluster.wanted("a") == ["m-0"]


def kept(state: ControlState) -> list[tuple[str, ...]]:
    """The nodes that a tick has written down."""
    told = state.handle(control.Ticked(), NOW)
    return [instruction.nodes for instruction in told if isinstance(instruction, control.Persist)]


def test_it_waits_no_longer_than_until_all_nodes_told_that_were_there_before() -> None:
    cluster = Cluster()
    cluster.handle(control.Restored((spec(replica=2, created=LAUNCHED),), ("a", "b", "b")))
    cluster.report("b", outlasts=True)
    cluster.report("a", outlasts=True)
    assert not cluster.state.settled(NOW), "there were two that are called b"
    assert (cluster.wanted("a"), cluster.wanted("b")) == ([], [])
    cluster.handle(control.Reported("b2", report(host="b", outlasts=True)))
    assert sorted(map(cluster.wanted, ("a", "b", "b2"))) == [[], ["m-0"], ["m-1"]], "over all of them, not on the last"


def test_the_nodes_that_may_keep_replicas_are_kept_with_the_table() -> None:
    state = ControlState("epoch")
    state.handle(control.Restored((), ("a",)), NOW)
    state.handle(control.Reported("a", report(host="a", outlasts=True)), NOW)
    assert kept(state) == []
    state.handle(control.Reported("b", report(host="b", outlasts=True)), NOW)
    state.handle(control.Reported("c", report(host="c")), NOW)
    assert kept(state) == [("a", "b")]
    state.handle(control.NodeLeft("a"), NOW)
    assert kept(state) == []
    state.handle(control.ReplicasGone("a"), NOW)
    assert kept(state) == [("b",)]


def test_nodes_that_are_still_to_come_are_not_forgotten() -> None:
    """The controller may be killed once more meanwhile."""
    state = ControlState("epoch")
    state.handle(control.Restored((spec(created=LAUNCHED),), ("a", "b")), NOW)
    state.handle(control.Reported("a", report(host="a", outlasts=True)), NOW)
    assert kept(state) == []


def test_nodes_that_cannot_keep_replicas_are_used_at_once() -> None:
    cluster = restarted()
    cluster.report("a")
    assert cluster.wanted("a") == ["m-0"]


def test_one_that_is_told_of_late_still_comes_before_one_that_is_starting() -> None:
    cluster = restarted(1, "a")
    later(cluster, ADOPTION_SECONDS, control.Ticked())
    cluster.report("b", running(), outlasts=True)
    assert pids(cluster) == {"m-0": 70}
    assert (cluster.wanted("a"), cluster.wanted("b")) == ([], ["m-0"])


def test_one_that_is_told_of_too_late_is_ended() -> None:
    cluster = restarted(1, "a")
    later(cluster, ADOPTION_SECONDS, control.Ticked())
    cluster.obey("a")
    cluster.report("b", running(), outlasts=True)
    cluster.handle(control.Ticked())
    assert (cluster.wanted("a"), cluster.syncs["b"].wants) == (["m-0"], ())


def test_a_name_that_the_table_does_not_know_is_kept() -> None:
    cluster = restarted()
    cluster.report("a", running(3), outlasts=True)
    assert pids(cluster) == {"m-3": 73}


def test_what_belongs_to_another_launch_is_not_adopted() -> None:
    cluster = restarted()
    cluster.report("a", running(launched=LAUNCHED - 1), running(1, ReplicaState.DRAINING), outlasts=True)
    assert pids(cluster) == {"m-0": 0}


def lost_worker() -> Cluster:
    cluster = restarted(1)
    cluster.report("a", running(), outlasts=True)
    cluster.handle(control.NodeLeft("a"))
    return cluster


def test_replicas_stay_as_they_are_while_their_node_has_no_worker() -> None:
    cluster = lost_worker()
    cluster.report("b", outlasts=True)
    assert cluster.model().state == "ready"
    assert cluster.wanted("b") == []
    cluster.report("a2", running(), boot="next", outlasts=True)
    assert pids(cluster) == {"m-0": 70}
    cluster.handle(control.ReplicasGone("a"))
    assert cluster.wanted("a2") == ["m-0"]
    assert cluster.model().replicas[0].restarts == 0


def test_replicas_that_are_gone_too_start_elsewhere() -> None:
    cluster = lost_worker()
    cluster.report("b", outlasts=True)
    later(cluster, ADOPTION_SECONDS, control.ReplicasGone("a"))
    assert cluster.wanted("b") == ["m-0"]
    assert any("left the cluster" in event.content for event in cluster.model().events)


def test_a_model_that_is_terminated_meanwhile_is_ended_when_its_node_is_back() -> None:
    cluster = lost_worker()
    cluster.handle(control.TerminateAsked("m"))
    assert cluster.state.status("m") is None
    cluster.report("a2", running(), boot="next", outlasts=True)
    cluster.handle(control.Ticked())
    assert cluster.syncs["a2"].wants == ()
