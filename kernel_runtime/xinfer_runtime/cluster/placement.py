"""Which node and which GPUs run a replica: pure arithmetic over what is free, so that a refusal has numbers."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial

from xinfer_runtime.cluster.placement_refusal import explain
from xinfer_runtime.cluster.placement_room import NodeView, Presence, Room, Spot
from xinfer_runtime.models import ModelSpec, ReplicaWish


@dataclass(frozen=True, slots=True)
class Placement:
    """A spot for each wish, in their order."""

    spots: tuple[Spot, ...]


class NoFit:
    """Why the replicas do not fit, for a person. It is put into words when somebody reads it."""

    def __init__(self, words: Callable[[], str]) -> None:
        self._words = words

    @cached_property
    def message(self) -> str:
        return self._words()


def place(
    spec: ModelSpec,
    nodes: Sequence[NodeView],
    wishes: Sequence[ReplicaWish],
    *,
    presence: Presence | None = None,
    refusals: Mapping[str, str] | None = None,
) -> Placement | NoFit:
    """Place a replica of `spec` for each of `wishes`, all or none. `refusals` are nodes that cannot run this model.

    Each goes to the node with the fewest replicas of this model: spread over nodes, a crash costs least. On GPUs it
    takes the fewest of one node that hold it, and of those that would the fullest, so that small models fill a GPU and
    the others stay free for large ones; two replicas of one model share a GPU only where they must. Wishes that leave
    least to choose come first. Replicas with the same wish are of one size, so this greedy choice places them whenever
    that is possible.
    """
    refused = refusals or {}
    present = presence or Presence()
    room = Room(spec, nodes, present)
    able = [node for node in nodes if not node.refusal and node.address not in refused and room.admits(node)]
    spots: dict[int, Spot] = {}
    for number in sorted(range(len(wishes)), key=lambda number: (_freedom(wishes[number]), number)):
        spot = room.best(able, wishes[number])
        if spot is None:
            fresh = Room(spec, nodes, present)
            return NoFit(partial(explain, fresh, nodes, wishes, number, refused, placed=len(spots)))
        room.take(spot)
        spots[number] = spot
    return Placement(tuple(spots[number] for number in range(len(wishes))))


def _freedom(wish: ReplicaWish) -> tuple[bool, bool, int]:
    return not wish.gpu_idx, not wish.worker_ip, -(wish.n_gpu or 0)
