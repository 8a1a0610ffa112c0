import contextlib
import itertools
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from msgspec.structs import replace
from tests.cluster.conftest import GIB, INFO, report, spec

from xinfer_runtime.cluster import control_events as control
from xinfer_runtime.cluster.control_events import Instruction, Persist, Publish, SendSync
from xinfer_runtime.cluster.control_state import ControlState
from xinfer_runtime.cluster.protocol import AgentEvent, NodeReport, ReplicaReport, Sync
from xinfer_runtime.errors import (
    Conflict,
    DoesNotFit,
    ErrorInfo,
    InvalidRequest,
    ModelFileError,
    ModelNotFound,
    NotFound,
    XinferError,
)
from xinfer_runtime.models import ModelEvent, ModelSpec, ModelStatus, Replica, ReplicaState

NOW = 1000.0


class Cluster:
    """A controller's state and nodes that do what they are told, when they are asked to answer."""

    def __init__(self, *nodes: str) -> None:
        self.state = ControlState("epoch")
        self.seq = itertools.count(1)
        self.syncs: dict[str, Sync] = {}
        self.published: dict[str, ModelStatus | None] = {}
        self.persisted: list[tuple[ModelSpec, ...]] = []
        self.restarts: dict[str, Replica] = {}
        for node in nodes:
            self.report(node)

    def handle(self, event: control.Event) -> list[Instruction]:
        instructions = self.state.handle(event, NOW)
        for instruction in instructions:
            match instruction:
                case SendSync(address, sync):
                    self.syncs[address] = sync
                case Publish(uid, status):
                    self.published[uid] = status
                case Persist(specs):
                    self.persisted.append(specs)
        return instructions

    def report(self, node: str, *replicas: ReplicaReport, sync: Sync | None = None, **fields: Any) -> list[Instruction]:
        if sync is not None:
            fields |= {"epoch": sync.epoch, "generation": sync.generation}
        fields = {"host": node, "boot": f"boot of {node}"} | fields
        return self.handle(control.Reported(node, report(fields.pop("seq", next(self.seq)), *replicas, **fields)))

    def obey(self, node: str, state: ReplicaState = ReplicaState.READY, error: ErrorInfo | None = None) -> None:
        """The node runs exactly what it was told last, and says so."""
        sync = self.syncs[node]
        rows = [
            ReplicaReport(
                incarnation=want.incarnation,
                replica=Replica(
                    id=want.id, uid=want.spec.uid, node=node, state=state, pid=7, token="t", error=error, info=INFO
                ),
            )
            for want in sync.wants
        ]
        self.report(node, *rows, sync=sync)

    def wanted(self, node: str) -> list[str]:
        return [want.id for want in self.syncs[node].wants] if node in self.syncs else []

    def model(self, uid: str = "m") -> ModelStatus:
        status = self.state.status(uid)
        assert status is not None
        return status


def launched(*nodes: str, replica: int = 1) -> Cluster:
    cluster = Cluster(*(nodes or ("a",)))
    cluster.handle(control.LaunchAsked(spec(replica=replica)))
    return cluster


def test_a_launch_is_placed_sent_published_and_persisted() -> None:
    cluster = launched()
    assert cluster.wanted("a") == ["m-0"]
    assert cluster.published["m"] == cluster.model()
    assert cluster.model().state == "placing"
    assert [[s.uid for s in specs] for specs in cluster.persisted] == [["m"]]
    cluster.obey("a")
    assert cluster.model().state == "ready"


def test_replicas_without_a_place_are_counted_and_nodes_that_have_some_are_busy() -> None:
    """What an adaptive cluster is asked to grow to, and what it is not given to close."""
    cluster = launched("a", "b", replica=2)
    assert (cluster.state.unplaced(), cluster.state.busy_nodes()) == (0, {"a", "b"})
    cluster.handle(control.NodeLeft("a"))
    cluster.handle(control.NodeLeft("b"))
    assert (cluster.state.unplaced(), cluster.state.busy_nodes()) == (2, set())
    cluster.report("c")
    assert (cluster.state.unplaced(), cluster.state.busy_nodes()) == (0, {"c"})


def test_replicas_spread() -> None:
    cluster = launched("a", "b", replica=2)
    assert [cluster.wanted("a"), cluster.wanted("b")] == [["m-0"], ["m-1"]]


def test_a_uid_in_use_is_a_conflict() -> None:
    cluster = launched()
    with pytest.raises(Conflict, match="'m' is in use"):
        cluster.handle(control.LaunchAsked(spec()))


def test_a_model_that_failed_altogether_is_replaced() -> None:
    cluster = launched()
    cluster.obey("a", ReplicaState.FAILED)
    old = cluster.syncs["a"].wants[0].incarnation
    cluster.handle(control.LaunchAsked(spec(context_length=7)))
    (want,) = cluster.syncs["a"].wants
    assert want.incarnation != old
    assert want.spec.context_length == 7
    cluster.report("a", sync=cluster.syncs["a"])
    assert cluster.model().state == "placing"


def test_a_replacement_that_does_not_fit_leaves_the_failed_model() -> None:
    cluster = launched()
    cluster.obey("a", ReplicaState.FAILED)
    with pytest.raises(DoesNotFit):
        cluster.handle(control.LaunchAsked(spec(memory=100 * GIB)))
    assert cluster.model().state == "failed"


def test_what_does_not_fit_is_refused_and_changes_nothing() -> None:
    cluster = Cluster("a")
    with pytest.raises(DoesNotFit, match=r"100\.0 GiB"):
        cluster.handle(control.LaunchAsked(spec(memory=100 * GIB)))
    assert cluster.state.statuses() == ()
    assert cluster.persisted == []


def test_two_launches_do_not_get_the_same_memory() -> None:
    cluster = Cluster("a")
    cluster.handle(control.LaunchAsked(spec("one", memory=10 * GIB)))
    with pytest.raises(DoesNotFit, match=r"10\.0 GiB promised"):
        cluster.handle(control.LaunchAsked(spec("two", memory=10 * GIB)))


def test_a_file_that_no_node_has_is_the_nodes_error() -> None:
    cluster = Cluster("a", "b")
    error = ModelFileError("/x.gguf is missing").info
    with pytest.raises(ModelFileError, match=r"/x\.gguf is missing"):
        cluster.handle(control.LaunchAsked(spec(), {"a": error, "b": error}))


def test_a_node_without_the_file_is_not_chosen() -> None:
    cluster = Cluster("a", "b")
    cluster.handle(control.LaunchAsked(spec(replica=2), {"a": ModelFileError("missing").info}))
    assert cluster.wanted("b") == ["m-0", "m-1"]


def test_a_replica_whose_file_fails_moves_to_a_node_that_has_another() -> None:
    cluster = launched("a", "b")
    cluster.obey("a", ReplicaState.FAILED, ModelFileError("truncated").info)
    assert cluster.wanted("a") == []
    assert cluster.wanted("b") == ["m-0"]
    cluster.obey("b", ReplicaState.FAILED, ModelFileError("truncated").info)
    assert cluster.model().state == "failed"


def test_a_lost_node_loses_its_replicas_to_others() -> None:
    cluster = launched("a", "b")
    cluster.obey("a")
    cluster.handle(control.NodeLeft("a"))
    assert cluster.wanted("b") == ["m-0"]
    assert cluster.model().replicas[0].restarts == 1
    assert any("node a left" in event.content for event in cluster.model().events)


def test_a_model_waits_for_a_node_and_says_why() -> None:
    cluster = launched("a")
    cluster.handle(control.NodeLeft("a"))
    assert cluster.model().state == "placing"
    assert "no node" in cluster.model().replicas[0].message
    cluster.report("b")
    assert cluster.wanted("b") == ["m-0"]


def test_a_terminated_model_drains_and_goes_when_its_node_says_so() -> None:
    cluster = launched()
    cluster.obey("a")
    running = cluster.syncs["a"]
    cluster.handle(control.TerminateAsked("m"))
    assert cluster.model().state == "draining"
    assert cluster.state.draining("m")
    assert cluster.persisted[-1] == ()
    cluster.report("a", sync=running)
    assert cluster.model().state == "draining", "an acknowledgement of older wants says nothing"
    cluster.obey("a")
    assert cluster.published["m"] is None
    assert cluster.state.status("m") is None


def test_a_terminated_model_goes_with_its_node() -> None:
    cluster = launched()
    cluster.handle(control.TerminateAsked("m"))
    cluster.handle(control.NodeLeft("a"))
    assert cluster.published["m"] is None


def test_an_unknown_model_cannot_be_terminated_nor_one_twice() -> None:
    cluster = launched()
    cluster.handle(control.TerminateAsked("m"))
    for uid in ("m", "other"):
        with pytest.raises(ModelNotFound, match=uid):
            cluster.handle(control.TerminateAsked(uid))


def test_wants_are_repeated_until_they_are_acknowledged() -> None:
    cluster = launched()
    assert not any(isinstance(i, SendSync) for i in cluster.handle(control.Ticked())), "it is under way"
    cluster.handle(control.SyncFailed("a"))
    (again,) = cluster.handle(control.Ticked())
    assert again == SendSync("a", cluster.syncs["a"])
    cluster.obey("a")
    assert cluster.handle(control.Ticked()) == []


def test_a_report_that_comes_late_is_ignored() -> None:
    cluster = launched()
    cluster.obey("a")
    cluster.report("a", seq=0)
    want = cluster.syncs["a"].wants[0]
    loading = Replica(id="m-0", uid="m", state=ReplicaState.LOADING)
    cluster.report("a", ReplicaReport(incarnation=want.incarnation, replica=loading), seq=1)
    assert cluster.model().state == "ready"


def test_a_report_of_an_earlier_incarnation_is_not_this_replicas() -> None:
    cluster = launched()
    cluster.report("a", ReplicaReport(incarnation="old", replica=Replica(id="m-0", uid="m", state=ReplicaState.READY)))
    assert cluster.model().state == "placing"


def test_a_node_whose_agent_began_anew_is_told_again() -> None:
    cluster = launched()
    cluster.obey("a")
    before = cluster.syncs["a"].generation
    cluster.report("a", boot="another", seq=1)
    assert cluster.wanted("a") == ["m-0"]
    assert cluster.syncs["a"].generation > before


def test_a_heartbeat_with_news_makes_the_controller_ask() -> None:
    cluster = launched()
    cluster.obey("a")
    cluster.handle(control.HeartbeatSeen("a", "boot of a", 0))
    assert cluster.handle(control.Ticked()) == []
    cluster.handle(control.HeartbeatSeen("a", "boot of a", 99))
    assert cluster.handle(control.Ticked()) == [SendSync("a", cluster.syncs["a"])]


def test_events_of_a_node_are_taken_once() -> None:
    cluster = launched()
    event = AgentEvent(number=1, uid="m", event=ModelEvent(type="WARNING", time=1.0, content="died"))
    cluster.report("a", events=(event,))
    cluster.report("a", events=(event,))
    assert [e.content for e in cluster.model().events].count("died") == 1


def test_events_are_bounded() -> None:
    cluster = launched()
    for number in range(300):
        event = AgentEvent(number=number + 1, uid="m", event=ModelEvent(type="INFO", time=1.0, content=f"{number}"))
        cluster.report("a", events=(event,))
    assert len(cluster.model().events) == 100
    assert cluster.model().events[-1].content == "299"


def test_a_restored_table_waits_for_its_nodes() -> None:
    cluster = Cluster()
    cluster.handle(control.Restored((spec("one"), spec("two"))))
    assert [status.state for status in cluster.state.statuses()] == ["placing", "placing"]
    cluster.report("a")
    assert sorted(cluster.wanted("a")) == ["one-0", "two-0"]


def test_nothing_is_published_twice() -> None:
    cluster = launched()
    cluster.obey("a")
    sync = cluster.syncs["a"]
    rows = [
        ReplicaReport(
            incarnation=sync.wants[0].incarnation,
            replica=replace(cluster.model().replicas[0], restarts=0),
        )
    ]
    assert cluster.report("a", *rows, sync=sync) == []


def test_more_replicas_are_placed_and_persisted() -> None:
    cluster = launched("a", "b")
    cluster.obey("a")
    cluster.handle(control.ScaleAsked("m", 3))
    assert sorted(cluster.wanted("a") + cluster.wanted("b")) == ["m-0", "m-1", "m-2"]
    assert cluster.persisted[-1][0].replica == 3


def test_a_replica_that_is_not_wanted_any_more_drains_and_then_goes() -> None:
    cluster = launched("a", replica=3)
    cluster.obey("a")
    cluster.handle(control.ScaleAsked("m", 1))
    assert cluster.wanted("a") == ["m-0"]
    assert [replica.state for replica in cluster.model().replicas] == ["ready", "draining", "draining"]
    assert cluster.persisted[-1][0].replica == 1
    cluster.obey("a")
    assert [replica.id for replica in cluster.model().replicas] == ["m-0"]


def test_replicas_without_a_process_go_first() -> None:
    cluster = launched("a", "b", replica=2)
    cluster.obey("b")
    cluster.handle(control.ScaleAsked("m", 1))
    assert (cluster.wanted("a"), cluster.wanted("b")) == ([], ["m-1"])


def test_scaling_to_what_does_not_fit_changes_nothing() -> None:
    cluster = launched("a")
    before = cluster.model()
    with pytest.raises(DoesNotFit):
        cluster.handle(control.ScaleAsked("m", 100))
    with pytest.raises(InvalidRequest, match="one replica or more"):
        cluster.handle(control.ScaleAsked("m", 0))
    assert cluster.model() == before


def test_one_replica_is_removed_by_its_id_and_the_last_one_ends_the_model() -> None:
    cluster = launched("a", replica=2)
    cluster.obey("a")
    cluster.handle(control.RemovalAsked("m", "m-0"))
    assert cluster.wanted("a") == ["m-1"]
    with pytest.raises(NotFound, match="no replica 'm-0'; it has m-1"):
        cluster.handle(control.RemovalAsked("m", "m-0"))
    cluster.handle(control.RemovalAsked("m", "m-1"))
    assert cluster.state.draining("m")
    assert cluster.persisted[-1] == ()


def test_a_launch_is_cancelled_until_the_model_is_ready() -> None:
    cluster = launched("a")
    cluster.obey("a", ReplicaState.LOADING)
    cluster.handle(control.CancelAsked("m"))
    assert cluster.wanted("a") == []
    assert cluster.model().error == ErrorInfo("cancelled", "the launch of 'm' was cancelled")
    cluster.obey("a")
    assert cluster.published["m"] is None
    cluster.handle(control.LaunchAsked(spec()))
    cluster.obey("a")
    with pytest.raises(Conflict, match="the model is ready"):
        cluster.handle(control.CancelAsked("m"))


def test_a_drained_nodes_replica_stays_until_its_successor_is_ready() -> None:
    cluster = launched("a", "b")
    cluster.obey("a")
    cluster.handle(control.DrainAsked("a"))
    assert (cluster.wanted("a"), cluster.wanted("b")) == (["m-0"], ["m-1"])
    cluster.obey("b", ReplicaState.LOADING)
    assert cluster.wanted("a") == ["m-0"]
    cluster.obey("b")
    assert (cluster.wanted("a"), cluster.wanted("b")) == ([], ["m-1"])
    cluster.obey("a")
    assert cluster.state.replicas_on("a") == ()
    assert cluster.model().spec.replica == len(cluster.model().replicas) == 1


def test_a_replica_that_still_loads_on_a_drained_node_just_moves() -> None:
    cluster = launched("a", "b")
    cluster.handle(control.DrainAsked("a"))
    assert (cluster.wanted("a"), cluster.wanted("b")) == ([], ["m-0"])


def test_what_fits_nowhere_else_stays_on_the_drained_node_and_says_why() -> None:
    cluster = launched("a")
    cluster.obey("a")
    cluster.handle(control.DrainAsked("a"))
    assert cluster.wanted("a") == ["m-0"]
    assert cluster.state.stuck_on("a")[0].startswith("m-0 stays: 'm' needs")
    cluster.report("b")
    assert cluster.wanted("b") == ["m-1"], "a node that comes takes it"


def test_a_drained_node_gets_no_replica_until_the_drain_is_undone() -> None:
    cluster = Cluster("a")
    cluster.handle(control.DrainAsked("a"))
    with pytest.raises(DoesNotFit, match="drained for maintenance"):
        cluster.handle(control.LaunchAsked(spec()))
    cluster.handle(control.DrainAsked("a", drain=False))
    cluster.handle(control.LaunchAsked(spec()))
    assert cluster.wanted("a") == ["m-0"]


def test_a_drained_node_that_dies_leaves_its_replicas_place_to_the_successor() -> None:
    cluster = launched("a", "b")
    cluster.obey("a")
    cluster.handle(control.DrainAsked("a"))
    cluster.handle(control.NodeLeft("a"))
    cluster.obey("b")
    assert [replica.id for replica in cluster.model().replicas] == ["m-1"]


def test_a_node_is_found_by_label_or_address() -> None:
    cluster = Cluster()
    cluster.report("tls://1.2.3.4:5", host="box")
    assert cluster.state.find_nodes("box") == cluster.state.find_nodes("tls://1.2.3.4:5") == ("tls://1.2.3.4:5",)
    with pytest.raises(NotFound, match=r"'bix'.*box \(tls://1\.2\.3\.4:5\)"):
        cluster.state.find_nodes("bix")


class AnyHistory(RuleBasedStateMachine):
    """Nodes come, go, answer late, wrong or not at all, while models are launched and terminated."""

    def __init__(self) -> None:
        super().__init__()
        self.cluster = Cluster()
        self.table: dict[str, ModelStatus] = {}
        self.nodes: set[str] = set()

    def do(self, event: control.Event) -> None:
        for instruction in self.cluster.handle(event):
            if isinstance(instruction, Publish):
                if instruction.status is None:
                    del self.table[instruction.uid]
                else:
                    assert self.table.get(instruction.uid) != instruction.status
                    self.table[instruction.uid] = instruction.status

    def answer(self, node: str, state: ReplicaState, *, acknowledged: bool) -> None:
        sync = self.cluster.syncs.get(node, Sync(epoch="epoch", generation=0))
        rows = tuple(
            ReplicaReport(incarnation=w.incarnation, replica=Replica(id=w.id, uid=w.spec.uid, state=state, pid=1))
            for w in sync.wants
        )
        answer: NodeReport = report(
            next(self.cluster.seq),
            *rows,
            host=node,
            boot=node,
            epoch="epoch" if acknowledged else "",
            generation=sync.generation if acknowledged else -1,
        )
        self.nodes.add(node)
        self.do(control.Reported(node, answer))

    @rule(node=st.sampled_from("abc"), state=st.sampled_from(ReplicaState), acknowledged=st.booleans())
    def node_answers(self, node: str, state: ReplicaState, acknowledged: bool) -> None:
        self.answer(node, state, acknowledged=acknowledged)

    @rule(node=st.sampled_from("abc"))
    def node_leaves(self, node: str) -> None:
        self.nodes.discard(node)
        self.cluster.syncs.pop(node, None)
        self.do(control.NodeLeft(node))

    @rule(node=st.sampled_from("abc"))
    def sync_fails(self, node: str) -> None:
        self.do(control.SyncFailed(node))

    @rule(uid=st.sampled_from("xyz"), replica=st.integers(1, 3), memory=st.sampled_from([GIB, 6 * GIB]))
    def launch(self, uid: str, replica: int, memory: int) -> None:
        before = self.cluster.state.statuses()
        try:
            self.do(control.LaunchAsked(spec(uid, replica, memory)))
        except XinferError:
            assert self.cluster.state.statuses() == before

    @rule(uid=st.sampled_from("xyz"))
    def terminate(self, uid: str) -> None:
        if uid in self.table and not self.cluster.state.draining(uid):
            self.do(control.TerminateAsked(uid))

    @rule(uid=st.sampled_from("xyz"), count=st.integers(1, 4))
    def scale(self, uid: str, count: int) -> None:
        if uid in self.table and not self.cluster.state.draining(uid):
            with contextlib.suppress(DoesNotFit):
                self.do(control.ScaleAsked(uid, count))

    @rule(uid=st.sampled_from("xyz"), index=st.integers(0, 3))
    def remove(self, uid: str, index: int) -> None:
        with contextlib.suppress(NotFound):
            self.do(control.RemovalAsked(uid, f"{uid}-{index}"))

    @rule(node=st.sampled_from("abc"), drain=st.booleans())
    def drain(self, node: str, drain: bool) -> None:
        with contextlib.suppress(NotFound):
            self.do(control.DrainAsked(node, drain))

    @precondition(lambda self: self.nodes)
    @rule()
    def calm(self) -> None:
        """When every node obeys for a while, every model runs in full or says why it does not."""
        for _ in range(5):
            self.do(control.Ticked())
            for node in sorted(self.nodes):
                self.answer(node, ReplicaState.READY, acknowledged=True)
        for status in self.table.values():
            assert len(status.replicas) == status.spec.replica
            for replica in status.replicas:
                assert replica.state == "ready" or "needs" in replica.message
            assert not self.cluster.state.draining(status.spec.uid)

    @invariant()
    def watchers_see_the_table(self) -> None:
        assert {status.spec.uid: status for status in self.cluster.state.statuses()} == self.table

    @invariant()
    def every_replica_is_wanted_at_one_node_at_most(self) -> None:
        syncs = [self.cluster.syncs[node] for node in self.nodes if node in self.cluster.syncs]
        wanted = [want.incarnation for sync in syncs for want in sync.wants]
        assert len(wanted) == len(set(wanted))


AnyHistory.TestCase.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
TestAnyHistory = AnyHistory.TestCase
