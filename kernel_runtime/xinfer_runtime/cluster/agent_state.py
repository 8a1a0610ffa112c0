"""The node agent's decisions: a state machine without I/O, events in, instructions out.

It turns what the controller wants into processes: starts and ends them, and starts those that crashed again, at once
the first time and then after 1, 2, 4 ... 60 s, from the start again after a minute of health. After ten crashes in a
row it gives up. A replica that says its model file or its spec is bad is not started again either: it would fail the
same way. `agent.py` does the I/O.
"""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from msgspec.structs import replace

from xinfer_runtime.cluster.agent_events import (
    DOWNLOADING,
    Beat,
    Drain,
    Event,
    Exited,
    Instruction,
    Kill,
    Line,
    Listening,
    LoadFailed,
    Progressed,
    Ready,
    ShutDown,
    Start,
    Synced,
    Woke,
    describe_exit,
)
from xinfer_runtime.cluster.protocol import AgentEvent, ReplicaWant, Sync
from xinfer_runtime.errors import EngineError, ErrorInfo, from_info
from xinfer_runtime.models import ModelEvent, Replica, ReplicaState

HEALTHY_AFTER = 60.0
LONGEST_DELAY = 60.0
MOST_CRASHES = 10
"""In a row, after which a replica is not started again: for four minutes it died whenever it was."""
SILENCE_LIMIT = 12.0
"""Seconds without a sign of life after which a ready replica is ended."""
LOADING_SILENCE_LIMIT = 120.0
"""The same while it loads: importing a big library from a slow disk can hold up the whole process."""
DRAIN_SECONDS = 5.0
"""What the streams of a replica that is not wanted any more are given to finish."""
KILL_AFTER = 3.0
"""Seconds past its drain after which a process is ended by force."""

_EVENTS_KEPT = 50


@dataclass(slots=True)
class _Slot:
    """A replica of this node. Without a `process` it waits for `retry_at`, or for good where that is None."""

    want: ReplicaWant
    replica: Replica
    process: int | None = None
    retry_at: float | None = None
    crashes: int = 0
    ready_since: float | None = None
    seen: float | None = None
    failure: ErrorInfo | None = None
    wanted: bool = True
    kill_at: float | None = None

    @property
    def silent_at(self) -> float | None:
        """When the process, once heard, will have been silent for too long."""
        if self.seen is None:
            return None
        return self.seen + (LOADING_SILENCE_LIMIT if self.ready_since is None else SILENCE_LIMIT)


class AgentState:
    """What a node runs. `node` is its label, `new_token` makes the secret that opens a replica's link."""

    def __init__(self, node: str, new_token: Callable[[], str]) -> None:
        self.epoch = ""
        self.generation = -1
        self.version = 0
        """Grows with every change that the controller should hear of."""
        self._node = node
        self._new_token = new_token
        self._slots: list[_Slot] = []
        self._events: deque[AgentEvent] = deque(maxlen=_EVENTS_KEPT)
        self._event_number = 0
        self._processes = 0
        self._closing = False

    @property
    def replicas(self) -> tuple[tuple[ReplicaWant, Replica], ...]:
        """What runs here or should, with what was wanted."""
        return tuple((slot.want, slot.replica) for slot in self._slots)

    @property
    def events(self) -> tuple[AgentEvent, ...]:
        return tuple(self._events)

    @property
    def idle(self) -> bool:
        """Whether no process is left."""
        return all(slot.process is None for slot in self._slots)

    def next_wakeup(self) -> float | None:
        """When to send `Woke`, in the time of `handle`'s `now`."""
        times = [
            slot.retry_at
            for slot in self._slots
            if slot.process is None and slot.wanted and not self._leaving(slot.want.id)
        ]
        times += [slot.kill_at for slot in self._slots if slot.process is not None]
        times += [slot.silent_at for slot in self._slots if slot.process is not None]
        return min((time for time in times if time is not None), default=None)

    def handle(self, event: Event, now: float, clock: float = 0.0) -> list[Instruction]:
        """Apply one event. `now` is monotonic; `clock` is unix time, for people."""
        instructions: list[Instruction] = []
        match event:
            case Synced(sync):
                instructions += self._sync(sync, now)
            case ShutDown(seconds):
                self._closing = True
                for slot in self._slots:
                    instructions += self._release(slot, seconds, now)
            case Woke():
                instructions += self._overdue(now)
            case Exited():
                self._exited(event, now, clock)
            case _:
                self._heard(event, now, clock)
        if not isinstance(event, Beat | Woke):
            self.version += 1
        self._drop_released()
        instructions += self._starts(now)
        return instructions

    # ---- events

    def _sync(self, sync: Sync, now: float) -> list[Instruction]:
        if sync.epoch == self.epoch and sync.generation < self.generation:
            return []
        self.epoch, self.generation = sync.epoch, sync.generation
        wanted = {want.incarnation: want for want in sync.wants}
        instructions: list[Instruction] = []
        for slot in self._slots:
            if slot.wanted and slot.want.incarnation not in wanted:
                instructions += self._release(slot, DRAIN_SECONDS, now)
        if not self._closing:
            known = {slot.want.incarnation for slot in self._slots if slot.wanted}
            self._slots += [self._new_slot(want, now) for want in sync.wants if want.incarnation not in known]
        return instructions

    def _new_slot(self, want: ReplicaWant, now: float) -> _Slot:
        replica = Replica(id=want.id, uid=want.spec.uid, node=self._node, message="starting", devices=want.devices)
        return _Slot(want, replica, retry_at=now)

    def _release(self, slot: _Slot, seconds: float, now: float) -> list[Instruction]:
        slot.wanted = False
        slot.replica = replace(slot.replica, state=ReplicaState.DRAINING, message="stopping")
        if slot.process is None:
            return []
        if slot.ready_since is None:
            seconds = 0.0
        kill_at = now + seconds + KILL_AFTER
        slot.kill_at = kill_at if slot.kill_at is None else min(slot.kill_at, kill_at)
        return [Drain(slot.process, seconds)]

    def _heard(self, event: Line, now: float, clock: float) -> None:
        slot = self._slot(event.process)
        if slot is None:
            return
        slot.seen = now
        old = slot.replica
        match event:
            case Listening(_, pid, address):
                slot.replica = replace(old, pid=pid, address=address)
            case Progressed(_, progress, stage, done, total) if slot.wanted:
                if not total:  # An engine tells the part of the model's file that it has read.
                    total = slot.want.spec.weight_bytes
                    done = int(min(max(progress, 0.0), 1.0) * total)
                slot.replica = replace(
                    old,
                    state=ReplicaState.DOWNLOADING if stage == DOWNLOADING else ReplicaState.LOADING,
                    progress=min(max(progress, 0.0), 1.0),
                    message=stage,
                    since=old.since if old.message == stage else clock,
                    bytes_done=done,
                    bytes_total=total,
                )
            case Ready(_, info) if slot.wanted:
                slot.ready_since = now
                slot.replica = replace(old, state=ReplicaState.READY, progress=1.0, message="", error=None, info=info)
                self._tell(slot, "INFO", clock, "is ready")
            case LoadFailed(_, error):
                slot.failure = error
                slot.kill_at = now + KILL_AFTER
            case _:
                pass

    def _exited(self, event: Exited, now: float, clock: float) -> None:
        slot = self._slot(event.process)
        if slot is None:
            return
        slot.process = None
        slot.kill_at = slot.seen = None
        slot.replica = replace(slot.replica, address="", token="", pid=0, progress=0.0)
        if not slot.wanted:
            return
        failure, slot.failure = slot.failure, None
        healthy = slot.ready_since is not None and now - slot.ready_since >= HEALTHY_AFTER
        slot.ready_since = None
        if failure is not None and from_info(failure).status == 400:
            slot.retry_at = None
            slot.replica = replace(slot.replica, state=ReplicaState.FAILED, message=failure.message, error=failure)
            self._tell(slot, "ERROR", clock, f"failed: {failure.message}")
            return
        if healthy:
            slot.crashes = 0
        elif failure is not None:
            # An engine that refuses in words will hardly change its mind within a second.
            slot.crashes = max(slot.crashes, 1)
        delay = 0.0 if slot.crashes == 0 else min(2.0 ** (slot.crashes - 1), LONGEST_DELAY)
        slot.crashes += 1
        why = f"failed: {failure.message}" if failure is not None else f"died ({describe_exit(event)})"
        # A hub that is away or a disk that is full is somebody else's fault, and may mend at any time.
        if slot.crashes >= MOST_CRASHES and (failure is None or from_info(failure).status == 500):
            self._give_up(slot, why, clock)
            return
        slot.retry_at = now + delay
        content = f"{why}; restarting in {delay:.0f} s"
        info = failure if failure is not None else EngineError(f"replica {slot.replica.id} {content}").info
        slot.replica = replace(
            slot.replica,
            state=ReplicaState.LOADING if delay == 0 else ReplicaState.FAILED,
            message=content,
            error=None if delay == 0 else info,
            restarts=slot.replica.restarts + 1,
        )
        self._tell(slot, "WARNING", clock, content)

    def _give_up(self, slot: _Slot, why: str, clock: float) -> None:
        message = f"was given up after {slot.crashes} crashes in a row, the last time it {why}. Launch the model again."
        error = EngineError(f"replica {slot.replica.id} {message}").info
        slot.retry_at = None
        slot.replica = replace(
            slot.replica, state=ReplicaState.FAILED, message=message, error=error, restarts=slot.replica.restarts + 1
        )
        self._tell(slot, "ERROR", clock, message)

    def _overdue(self, now: float) -> list[Instruction]:
        instructions: list[Instruction] = []
        for slot in self._slots:
            if slot.process is None:
                continue
            silent = slot.silent_at is not None and now >= slot.silent_at
            if silent or (slot.kill_at is not None and now >= slot.kill_at):
                slot.seen = slot.kill_at = None
                instructions.append(Kill(slot.process))
        return instructions

    def _starts(self, now: float) -> list[Instruction]:
        instructions: list[Instruction] = []
        for slot in self._slots:
            due = slot.wanted and slot.process is None and slot.retry_at is not None and slot.retry_at <= now
            if not due or self._closing or self._leaving(slot.want.id):
                continue
            self._processes += 1
            slot.process, slot.retry_at = self._processes, None
            token = self._new_token()
            message = slot.replica.message if slot.replica.restarts else "starting"
            slot.replica = replace(
                slot.replica, state=ReplicaState.LOADING, token=token, message=message, error=None, info=None
            )
            self.version += 1
            instructions.append(Start(slot.process, slot.want, token))
        return instructions

    # ---- parts

    def _slot(self, process: int) -> _Slot | None:
        return next((slot for slot in self._slots if slot.process == process), None)

    def _leaving(self, replica_id: str) -> bool:
        """Whether an earlier incarnation still runs: its memory comes back first."""
        return any(slot.want.id == replica_id and not slot.wanted for slot in self._slots)

    def _drop_released(self) -> None:
        self._slots = [slot for slot in self._slots if slot.wanted or slot.process is not None]

    def _tell(self, slot: _Slot, kind: str, clock: float, content: str) -> None:
        self._event_number += 1
        text = f"replica {slot.replica.id} on {self._node} {content}"
        event = ModelEvent(type=kind, time=clock, content=text)
        self._events.append(AgentEvent(number=self._event_number, uid=slot.replica.uid, event=event))
