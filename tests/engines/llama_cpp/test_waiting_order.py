"""Who is let in next."""

from dataclasses import dataclass

import pytest

from xinfer_runtime.engines.llama_cpp.waiting_order import WaitingOrder


@dataclass(eq=False)
class Item:
    name: str
    batch: bool = False
    passed: int = 0


def order(*names: str) -> WaitingOrder[Item]:
    """Items of these names in their order; those that begin with b are batch requests."""
    waiting: WaitingOrder[Item] = WaitingOrder()
    for name in names:
        waiting.add(Item(name, name.startswith("b")))
    return waiting


def take(waiting: WaitingOrder[Item]) -> str:
    item = next(iter(waiting.candidates()))
    waiting.take(item)
    return item.name


def test_interactive_requests_go_first_each_kind_in_its_order() -> None:
    waiting = order("b1", "i1", "b2", "i2")
    assert [item.name for item in waiting.candidates()] == ["i1", "i2", "b1", "b2"]
    assert len(waiting) == 4


def test_one_place_in_eight_is_for_batch_requests() -> None:
    waiting = order(*(f"i{n}" for n in range(20)), "b1", "b2")
    taken = [take(waiting) for _ in range(22)]
    assert [taken.index("b1"), taken.index("b2")] == [7, 15]


def test_batch_requests_that_come_late_have_no_places_saved_up() -> None:
    waiting = order(*(f"i{n}" for n in range(20)))
    for _ in range(10):
        take(waiting)
    waiting.add(Item("b", batch=True))
    assert take(waiting) == "i10"


def test_what_was_let_in_before_comes_back_to_the_front() -> None:
    waiting = order("i1", "i2")
    waiting.put_back(Item("i0"))
    assert take(waiting) == "i0"


def test_one_that_does_not_fit_lets_sixteen_pass() -> None:
    waiting = order("long", *(f"i{n}" for n in range(40)))
    for n in range(16):
        _, second, *_ = waiting.candidates()
        assert second.name == f"i{n}"
        waiting.take(second)
    assert [item.name for item in waiting.candidates()] == ["long"]


def test_only_so_many_are_looked_at() -> None:
    waiting = order(*(f"i{n}" for n in range(1000)))
    assert len(list(waiting.candidates())) == 32


def test_what_does_not_wait_cannot_be_removed() -> None:
    with pytest.raises(ValueError, match="not in"):
        order("i1").remove(Item("i1"))
