"""Models that are unloaded, by time or for others, and loaded again; replicas that follow the load."""

from typing import Any

import pytest
from msgspec.structs import replace
from tests.cluster.conftest import GIB, spec
from tests.cluster.test_control_state import NOW, Cluster

from xinfer_runtime.cluster import control_events as control
from xinfer_runtime.cluster.protocol import Demand, DemandReport
from xinfer_runtime.errors import Conflict, DoesNotFit, InvalidRequest
from xinfer_runtime.models import ReplicaState

SIXTEEN = 16 * GIB


class Site(Cluster):
    """With a clock: `handle` happens `seconds` after the start."""

    seconds = 0.0

    def handle(self, event: control.Event) -> list[control.Instruction]:
        instructions = self.state.handle(event, NOW + self.seconds)
        for instruction in instructions:
            match instruction:
                case control.SendSync(address, sync):
                    self.syncs[address] = sync
                case control.Publish(uid, status):
                    self.published[uid] = status
                case control.Persist(specs):
                    self.persisted.append(specs)
        return instructions

    def launch(self, uid: str = "m", memory: int = GIB, **fields: Any) -> None:
        self.handle(control.LaunchAsked(spec(uid, memory=memory, **fields)))
        for node in list(self.syncs):
            self.obey(node)

    def use(self, uid: str = "m", requests: int = 1, waited: float = 0.0) -> None:
        demand = Demand(uid=uid, requests=requests, waited=waited)
        self.handle(control.DemandSeen(DemandReport(gateway="g", demands=(demand,))))

    def wait(self, seconds: float) -> None:
        self.seconds += seconds
        self.handle(control.Ticked())

    def gone(self, node: str = "a") -> None:
        """The node has ended what it was told to end."""
        self.obey(node)

    def states(self) -> dict[str, str]:
        return {status.spec.uid: str(status.state) for status in self.state.statuses()}


def test_an_idle_model_is_unloaded_kept_and_loaded_for_the_next_request() -> None:
    site = Site("a")
    site.launch(idle_timeout=60.0, replica=2)
    site.wait(59)
    assert site.states() == {"m": "ready"}
    site.wait(2)
    assert site.states() == {"m": "sleeping"}
    assert site.wanted("a") == []
    assert site.persisted[-1][0].asleep
    site.gone()
    assert site.model().replicas == ()
    site.handle(control.WakeAsked("m"))
    assert len(site.wanted("a")) == 2
    assert not site.persisted[-1][0].asleep
    site.gone()
    assert site.states() == {"m": "ready"}


def test_a_model_in_use_stays() -> None:
    site = Site("a")
    site.launch(idle_timeout=60.0)
    site.wait(50)
    site.use()
    site.wait(20)
    assert site.states() == {"m": "ready"}
    site.use(requests=0)
    site.wait(45)
    assert site.states() == {"m": "sleeping"}


def test_loading_does_not_count_as_idle_and_pinned_models_do_not_sleep() -> None:
    site = Site("a")
    site.handle(control.LaunchAsked(spec(idle_timeout=60.0)))
    site.wait(100)
    site.obey("a")
    site.wait(50)
    assert site.states() == {"m": "ready"}
    site.wait(20)
    assert site.states() == {"m": "sleeping"}
    pinned = Site("a")
    pinned.launch(idle_timeout=60.0, pinned=True)
    pinned.wait(100)
    assert pinned.states() == {"m": "ready"}


def test_a_model_that_sleeps_comes_back_asleep_after_a_restart() -> None:
    site = Site("a")
    site.handle(control.Restored((spec(idle_timeout=60.0, asleep=True),)))
    assert site.states() == {"m": "sleeping"}
    assert site.wanted("a") == []
    site.handle(control.WakeAsked("m"))
    assert site.wanted("a") == ["m-0"]


def test_the_name_of_a_model_that_sleeps_is_taken_and_it_can_be_terminated() -> None:
    site = Site("a")
    site.launch(idle_timeout=60.0)
    site.wait(100)
    site.gone()
    with pytest.raises(Conflict, match="is sleeping"):
        site.launch()
    site.handle(control.TerminateAsked("m"))
    assert site.states() == {}


def test_waking_is_for_models_that_sleep_alone() -> None:
    site = Site("a")
    site.launch(idle_timeout=60.0)
    before = site.wanted("a")
    site.handle(control.WakeAsked("m"))
    assert site.wanted("a") == before


def evictable(*uids: str) -> Site:
    """A full node: each of these models takes 5 GiB of the 15.2 that it may use. The first was used first."""
    site = Site("a")
    for uid in uids:
        site.launch(uid, memory=5 * GIB, evictable=True)
    for uid in uids:
        site.seconds += 10
        site.use(uid)
        site.use(uid, requests=0)
    return site


def test_the_least_recently_used_model_makes_room() -> None:
    site = evictable("old", "middle", "new")
    site.handle(control.LaunchAsked(spec("big", memory=4 * GIB)))
    assert site.states() == {"old": "sleeping", "middle": "ready", "new": "ready", "big": "placing"}
    assert "big-0" not in site.wanted("a")
    site.gone()
    site.wait(1)
    assert "big-0" in site.wanted("a")
    site.gone()
    assert site.states()["big"] == "ready"


def test_no_more_models_are_unloaded_than_it_takes() -> None:
    site = Site("a")
    site.launch("small", memory=GIB, evictable=True)
    site.launch("large", memory=12 * GIB, evictable=True)
    site.handle(control.LaunchAsked(spec("big", memory=10 * GIB)))
    assert site.states() == {"small": "ready", "large": "sleeping", "big": "placing"}


def test_models_in_use_and_those_of_others_are_not_unloaded() -> None:
    site = Site("a")
    site.launch("mine", memory=7 * GIB)
    site.launch("busy", memory=7 * GIB, evictable=True)
    site.use("busy")
    with pytest.raises(DoesNotFit):
        site.handle(control.LaunchAsked(spec("big", memory=6 * GIB)))
    assert site.states() == {"mine": "ready", "busy": "ready"}
    site.use("busy", requests=0)
    site.handle(control.LaunchAsked(spec("big", memory=6 * GIB)))
    assert site.states()["busy"] == "sleeping"


def test_nothing_is_unloaded_for_what_does_not_fit_anyway() -> None:
    site = evictable("old", "new")
    with pytest.raises(DoesNotFit):
        site.handle(control.LaunchAsked(spec("huge", memory=100 * GIB)))
    assert set(site.states().values()) == {"ready"}


def test_a_model_that_wakes_may_take_anothers_place() -> None:
    site = evictable("old", "middle", "new")
    site.handle(control.LaunchAsked(spec("big", memory=4 * GIB)))
    site.gone()
    site.wait(1)
    site.gone()
    site.handle(control.WakeAsked("old"))
    assert site.states()["middle"] == "sleeping"
    site.gone()
    site.wait(1)
    assert any(want.startswith("old") for want in site.wanted("a"))


def test_replicas_follow_the_load_between_their_limits() -> None:
    site = Site("a", "b")
    site.launch(min_replicas=1, max_replicas=2)
    for _ in range(5):
        site.use(requests=9, waited=5.0)
        site.wait(1)
    assert site.model().spec.replica == 2
    assert site.persisted[-1][0].replica == 2
    assert (site.wanted("a"), site.wanted("b")) == (["m-0"], ["m-1"])
    assert "requests waited 5.0 s" in site.model().events[-1].content
    for node in "ab":
        site.obey(node)
    for _ in range(70):
        site.use(requests=1)
        site.wait(1)
    assert site.model().spec.replica == 1


def test_a_replica_that_the_load_needs_and_no_node_has_room_for_is_told_once() -> None:
    site = Site("a")
    site.launch(memory=10 * GIB, max_replicas=3)
    for _ in range(20):
        site.use(requests=9, waited=5.0)
        site.wait(1)
    told = [event.content for event in site.model().events if "no room" in event.content]
    assert len(told) == 1
    assert site.model().spec.replica == 1


def test_limits_of_the_launch_hold_for_people_too() -> None:
    site = Site("a")
    site.launch(max_replicas=2)
    with pytest.raises(InvalidRequest, match="1 to 2 replicas"):
        site.handle(control.ScaleAsked("m", 3))
    site.handle(control.ScaleAsked("m", 2))
    assert len(site.wanted("a")) == 2


def test_unloaded_memory_is_counted_as_the_node_measures_it() -> None:
    site = Site("a")
    site.launch("old", memory=10 * GIB, evictable=True)
    sync = site.syncs["a"]
    site.obey("a")
    node = site.state._nodes["a"]
    (report,) = node.report.replicas
    inventory = replace(node.report.inventory, memory_available=6 * GIB)
    site.handle(
        control.Reported(
            "a",
            replace(
                node.report,
                seq=node.report.seq + 1,
                generation=sync.generation,
                inventory=inventory,
                replicas=(replace(report, memory_private=10 * GIB),),
            ),
        )
    )
    site.handle(control.LaunchAsked(spec("big", memory=12 * GIB)))
    assert site.states() == {"old": "sleeping", "big": "placing"}
    assert site.model("old").state is ReplicaState.SLEEPING
