from collections import Counter

from hypothesis import given
from hypothesis import strategies as st
from tests.cluster.conftest import GIB, spec

from xinfer_runtime.cluster.placement import NodeView, NoFit, Placement, _free, place


def node(name: str, available: int = 16 * GIB, **fields: object) -> NodeView:
    values = {"label": name, "host": name, "memory_total": 16 * GIB, "memory_available": available} | fields
    return NodeView(address=name, **values)  # type: ignore[arg-type]


views = st.builds(
    NodeView,
    address=st.uuids().map(str),
    label=st.just("n"),
    host=st.sampled_from("abc"),
    memory_total=st.just(100 * GIB),
    memory_available=st.integers(0, 100 * GIB),
    promised=st.integers(0, 10 * GIB),
    same_model=st.integers(0, 3),
    refusal=st.sampled_from(["", "", "no file"]),
)


@given(st.lists(views, max_size=6), st.integers(1, 8), st.integers(1, 20 * GIB))
def test_a_placement_never_promises_memory_twice_and_is_found_when_there_is_one(
    nodes: list[NodeView], count: int, memory: int
) -> None:
    able = {view.host for view in nodes if not view.refusal}
    room = sum(_free(host, nodes) // memory for host in able)
    outcome = place(spec(replica=count, memory=memory), nodes)
    assert isinstance(outcome, Placement) == (room >= count)
    if isinstance(outcome, Placement):
        by_address = {view.address: view for view in nodes}
        chosen = [by_address[address] for address in outcome.addresses]
        assert len(chosen) == count
        assert not any(view.refusal for view in chosen)
        for host, replicas in Counter(view.host for view in chosen).items():
            assert replicas * memory <= _free(host, nodes)


def test_replicas_spread_over_nodes() -> None:
    assert place(spec(replica=3), [node("a"), node("b"), node("c")]) == Placement(("a", "b", "c"))


def test_a_node_without_the_model_comes_before_a_bigger_one_with_it() -> None:
    assert place(spec(), [node("a", same_model=1), node("b", 8 * GIB)]) == Placement(("b",))


def test_what_loading_replicas_will_take_is_not_free() -> None:
    outcome = place(spec(memory=10 * GIB), [node("a", promised=8 * GIB)])
    assert isinstance(outcome, NoFit)
    assert "8.0 GiB promised" in outcome.message


def test_a_refusal_has_numbers_for_every_node() -> None:
    outcome = place(spec(memory=20 * GIB), [node("a"), node("b", 2 * GIB), node("c", refusal="x.gguf is missing")])
    assert isinstance(outcome, NoFit)
    assert "'m' needs 20.0 GiB" in outcome.message
    assert "a: 15.2 GiB free of 16.0 GiB" in outcome.message
    assert "b: 1.2 GiB free" in outcome.message
    assert "c: x.gguf is missing" in outcome.message


def test_all_replicas_or_none() -> None:
    outcome = place(spec(replica=3, memory=6 * GIB), [node("a")])
    assert isinstance(outcome, NoFit)
    assert "2 of 3 would fit" in outcome.message


def test_no_nodes_is_no_fit() -> None:
    assert isinstance(place(spec(), []), NoFit)


def test_a_gpu_is_not_promised_where_none_is_placed() -> None:
    outcome = place(spec(n_gpu=1), [node("a")])
    assert isinstance(outcome, NoFit)
    assert "GPU" in outcome.message


def test_no_gpu_is_not_a_wish_for_one() -> None:
    assert place(spec(n_gpu=0), [node("a")]) == Placement(("a",))
