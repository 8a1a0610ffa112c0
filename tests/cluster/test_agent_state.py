import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace
from tests.cluster.conftest import INFO, spec

from xinfer_runtime.cluster import agent_events as events
from xinfer_runtime.cluster import agent_state as agent
from xinfer_runtime.cluster.agent_events import Drain, Instruction, Kill, Start
from xinfer_runtime.cluster.agent_state import AgentState
from xinfer_runtime.cluster.protocol import ReplicaWant, Sync
from xinfer_runtime.errors import DoesNotFit, EngineError, InvalidRequest, ModelFileError, XinferError
from xinfer_runtime.models import Replica


class Node:
    """An agent's state with a clock, and the processes that it believes in."""

    def __init__(self) -> None:
        numbers = itertools.count(1)
        self.state = AgentState("node", lambda: f"token {next(numbers)}")
        self.now = 0.0
        self.generation = 0
        self.alive: set[int] = set()

    def handle(self, event: events.Event) -> list[Instruction]:
        if isinstance(event, events.Exited):
            self.alive.discard(event.process)
        instructions = self.state.handle(event, self.now, 1000.0 + self.now)
        for instruction in instructions:
            if isinstance(instruction, Start):
                self.alive.add(instruction.process)
        return instructions

    def want(self, *wants: ReplicaWant) -> list[Instruction]:
        self.generation += 1
        return self.handle(events.Synced(Sync(epoch="e", generation=self.generation, wants=wants)))

    def wait(self, seconds: float) -> list[Instruction]:
        self.now += seconds
        return self.handle(events.Woke())

    def ready(self, process: int) -> None:
        self.handle(events.Listening(process, 100 + process, "127.0.0.1:1"))
        self.handle(events.Ready(process, INFO))

    def die(self, process: int, returncode: int = -9, tail: str = "") -> list[Instruction]:
        return self.handle(events.Exited(process, returncode, tail))

    @property
    def replica(self) -> Replica:
        ((_, replica),) = self.state.replicas
        return replica

    @property
    def told(self) -> list[str]:
        return [event.event.content for event in self.state.events]


def want(replica_id: str = "m-0", incarnation: str = "i1") -> ReplicaWant:
    return ReplicaWant(id=replica_id, incarnation=incarnation, spec=spec())


def running() -> Node:
    node = Node()
    node.want(want())
    node.ready(1)
    return node


def test_a_wanted_replica_is_started_once() -> None:
    node = Node()
    assert node.want(want()) == [Start(1, want(), "token 1")]
    assert node.want(want()) == []


def test_a_replica_becomes_what_it_says() -> None:
    node = Node()
    node.want(want())
    assert node.replica.state == "loading"
    node.handle(events.Progressed(1, 0.4, "reading tensors"))
    assert (node.replica.progress, node.replica.message) == (0.4, "reading tensors")
    node.handle(events.Progressed(1, 0.1, "downloading"))
    assert node.replica.state == "downloading"
    node.ready(1)
    assert (node.replica.state, node.replica.info, node.replica.token) == ("ready", INFO, "token 1")
    assert node.told == ["replica m-0 on node is ready"]


def test_stages_are_told_with_their_bytes_and_their_beginning() -> None:
    node = Node()
    node.want(ReplicaWant(id="m-0", incarnation="i1", spec=replace(spec(), weight_bytes=1000)))
    node.handle(events.Progressed(1, 0.25, "downloading", 100, 400))
    assert (node.replica.bytes_done, node.replica.bytes_total) == (100, 400)
    began = node.replica.since
    assert began > 0
    node.handle(events.Progressed(1, 0.5, "downloading", 200, 400))
    assert node.replica.since == began
    node.handle(events.Progressed(1, 0.4, "loading weights"))
    assert (node.replica.bytes_done, node.replica.bytes_total) == (400, 1000)
    assert node.replica.since >= began


def test_a_killed_replica_is_restarted_at_once_with_a_new_token() -> None:
    node = running()
    assert node.die(1) == [Start(2, want(), "token 2")]
    replica = node.replica
    assert (replica.state, replica.restarts, replica.address, replica.token) == ("loading", 1, "", "token 2")
    assert "died (signal 9" in replica.message
    assert node.told[-1].startswith("replica m-0 on node died (signal 9")
    assert node.told[-1].endswith("restarting in 0 s")


def test_the_delays_grow_to_a_minute() -> None:
    node = Node()
    node.want(want())
    delays = []
    for process in range(1, 10):
        started = node.die(process)
        delays.append(0.0 if started else (node.state.next_wakeup() or 0.0) - node.now)
        if not started:
            assert node.replica.state == "failed"
            assert node.wait(delays[-1] - 0.25) == []
            assert len(node.wait(0.25)) == 1
    assert delays == [0, 1, 2, 4, 8, 16, 32, 60, 60]


def test_a_crash_loop_ends_in_failed_with_the_last_lines_of_the_log() -> None:
    node = running()
    for process in range(1, agent.MOST_CRASHES):
        node.die(process)
        node.wait(agent.LONGEST_DELAY)
    assert node.die(agent.MOST_CRASHES, returncode=3, tail="ValueError: no such tensor\n") == []
    assert node.state.next_wakeup() is None
    assert node.wait(1000) == []
    assert node.replica.state == "failed"
    assert "10 crashes in a row" in node.replica.message
    assert "ValueError: no such tensor" in node.replica.message
    assert node.replica.error is not None


def test_what_others_have_to_mend_is_tried_for_ever() -> None:
    node = Node()
    node.want(want())
    for process in range(1, 3 * agent.MOST_CRASHES):
        node.handle(events.LoadFailed(process, DoesNotFit("the disk is full").info))
        node.die(process, returncode=1)
        assert len(node.wait(agent.LONGEST_DELAY)) == 1


def test_a_minute_of_health_makes_the_next_restart_immediate() -> None:
    node = running()
    node.die(1)
    node.ready(2)
    node.now += agent.HEALTHY_AFTER
    assert len(node.die(2)) == 1
    node.ready(3)
    node.now += agent.HEALTHY_AFTER - 1
    assert node.die(3) == []


def test_the_last_lines_of_stderr_are_in_the_message() -> None:
    node = running()
    tail = f"first of all\nloading {'x' * 5000}\n\n  in load\nValueError: no such tensor\n"
    node.die(1, returncode=3, tail=tail)
    assert "x | in load | ValueError: no such tensor" in node.replica.message
    assert "first of all" not in node.replica.message
    assert len(node.replica.message) < 700


@pytest.mark.parametrize("error", [ModelFileError("m.gguf is truncated"), InvalidRequest("context is too big")])
def test_a_bad_file_or_spec_is_not_tried_again(error: XinferError) -> None:
    node = Node()
    node.want(want())
    node.handle(events.LoadFailed(1, error.info))
    assert node.die(1, returncode=1) == []
    assert (node.replica.state, node.replica.message, node.replica.error) == ("failed", error.message, error.info)
    assert node.state.next_wakeup() is None
    assert node.wait(1000) == []


@pytest.mark.parametrize("error", [EngineError("no llama_cpp"), DoesNotFit("no memory")])
def test_what_may_mend_is_tried_again_after_a_second(error: XinferError) -> None:
    node = Node()
    node.want(want())
    node.handle(events.LoadFailed(1, error.info))
    assert node.die(1, returncode=1) == []
    assert (node.replica.state, node.replica.error) == ("failed", error.info)
    assert len(node.wait(1.0)) == 1


def test_an_unwanted_replica_is_drained_and_then_killed() -> None:
    node = running()
    assert node.want() == [Drain(1, agent.DRAIN_SECONDS)]
    assert node.replica.state == "draining"
    assert node.wait(agent.DRAIN_SECONDS) == []
    assert node.wait(agent.KILL_AFTER) == [Kill(1)]
    assert node.die(1) == []
    assert node.state.replicas == ()
    assert node.state.idle


def test_a_new_incarnation_starts_when_the_old_one_is_gone() -> None:
    node = running()
    assert node.want(want(incarnation="i2")) == [Drain(1, agent.DRAIN_SECONDS)]
    wakeup = node.state.next_wakeup()
    assert wakeup is not None
    assert wakeup > node.now, "waiting for an exit is not a busy loop"
    (start,) = node.die(1, returncode=0)
    assert isinstance(start, Start)
    assert start.want.incarnation == "i2"


def test_an_older_generation_is_ignored_and_another_epoch_is_not() -> None:
    node = running()
    assert node.handle(events.Synced(Sync(epoch="e", generation=0))) == []
    assert node.handle(events.Synced(Sync(epoch="f", generation=0))) == [Drain(1, agent.DRAIN_SECONDS)]


def test_a_replica_that_was_heard_and_falls_silent_is_killed() -> None:
    node = running()
    node.now += agent.SILENCE_LIMIT - 1
    node.handle(events.Beat(1))
    assert node.wait(agent.SILENCE_LIMIT - 1) == []
    assert node.wait(1) == [Kill(1)]
    assert len(node.die(1)) == 1


def test_a_replica_that_loads_may_be_silent_for_longer() -> None:
    node = Node()
    node.want(want())
    node.handle(events.Listening(1, 101, "127.0.0.1:1"))
    assert node.wait(agent.LOADING_SILENCE_LIMIT - 1) == []
    assert node.wait(1) == [Kill(1)]


def test_a_load_failure_whose_process_stays_is_killed() -> None:
    node = Node()
    node.want(want())
    node.handle(events.LoadFailed(1, EngineError("x").info))
    assert node.wait(agent.KILL_AFTER) == [Kill(1)]


def test_a_shutdown_ends_everything_and_starts_nothing() -> None:
    node = running()
    assert node.handle(events.ShutDown(2.0)) == [Drain(1, 2.0)]
    assert node.want(want(), want("m-1", "i9")) == []
    assert node.wait(2.0 + agent.KILL_AFTER) == [Kill(1)]
    assert node.die(1) == []
    assert node.state.idle


def test_a_process_that_could_not_start_is_a_crash() -> None:
    node = Node()
    node.want(want())
    node.handle(events.Exited(1, None, "python: not found"))
    assert "could not be started: python: not found" in node.replica.message


anything = st.one_of(
    st.tuples(st.just("want"), st.sets(st.sampled_from([("a", "1"), ("a", "2"), ("b", "3")]))),
    st.tuples(st.sampled_from(["ready", "beat", "progress", "failed", "die", "refuse"]), st.integers(0, 5)),
    st.tuples(st.just("wait"), st.floats(0, 100)),
)


@given(st.lists(anything, max_size=40))
def test_whatever_happens_no_replica_has_two_processes_and_all_wants_run_or_have_a_reason(
    history: list[tuple[str, object]],
) -> None:
    node = Node()
    owners: dict[int, ReplicaWant] = {}
    wanted: set[tuple[str, str]] = set()

    def note(instructions: list[Instruction]) -> None:
        running_ids = {number: owner.id for number, owner in owners.items() if number in node.alive}
        for instruction in instructions:
            match instruction:
                case Start(process, started, _):
                    assert started.id not in running_ids.values()
                    assert (started.id, started.incarnation) in wanted
                    owners[process] = started
                    running_ids[process] = started.id
                case Drain(process) | Kill(process):
                    assert process in node.alive

    for kind, value in history:
        process = sorted(node.alive)[int(value) % len(node.alive)] if kind not in ("want", "wait") and node.alive else 0  # type: ignore[call-overload]
        match kind:
            case "want":
                chosen: dict[str, str] = dict(value)  # type: ignore[call-overload]
                wanted = set(chosen.items())
                note(node.want(*(want(replica_id, incarnation) for replica_id, incarnation in chosen.items())))
            case "wait":
                note(node.wait(float(value)))  # type: ignore[arg-type]
            case "ready":
                node.ready(process)
            case "beat":
                note(node.handle(events.Beat(process)))
            case "progress":
                note(node.handle(events.Progressed(process, 0.5, "loading")))
            case "failed":
                note(node.handle(events.LoadFailed(process, EngineError("x").info)))
            case "refuse":
                note(node.handle(events.LoadFailed(process, ModelFileError("x").info)))
                note(node.die(process))
            case "die":
                note(node.die(process))
        wakeup = node.state.next_wakeup()
        listed = {wish.incarnation for wish, _ in node.state.replicas}
        assert {incarnation for _, incarnation in wanted} <= listed
        assert node.state.idle == (not node.alive)
        for wish, replica in node.state.replicas:
            working = any(owners[number].incarnation == wish.incarnation for number in node.alive)
            assert working or replica.state == "failed" or wakeup is not None or node.alive
