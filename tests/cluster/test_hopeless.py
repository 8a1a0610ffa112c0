from hypothesis import given
from hypothesis import strategies as st
from tests.cluster.conftest import GIB, spec

from xinfer_runtime.cluster.hopeless import Hopeless
from xinfer_runtime.cluster.placement import NoFit, place
from xinfer_runtime.cluster.placement_room import DeviceView, NodeView
from xinfer_runtime.models import ModelSpec, ReplicaWish


@st.composite
def models(draw: st.DrawFn) -> ModelSpec:
    memory = draw(st.integers(1, 60)) * GIB
    weights = draw(st.integers(0, memory))
    return spec(memory=memory, weight_bytes=weights, kv_cache_bytes=draw(st.integers(0, memory - weights)))


@st.composite
def nodes(draw: st.DrawFn) -> list[NodeView]:
    free = draw(st.lists(st.integers(0, 40), min_size=1, max_size=4))
    devices = tuple(DeviceView(str(i), i, "g", 80 * GIB, each * GIB) for i, each in enumerate(free))
    return [NodeView("a", "a", "a", 64 * GIB, draw(st.integers(0, 64)) * GIB, devices=devices)]


@given(models(), models(), nodes(), st.sampled_from([None, 0, 1, 2]))
def test_what_is_called_hopeless_does_not_fit(
    failed: ModelSpec, other: ModelSpec, views: list[NodeView], n_gpu: int | None
) -> None:
    wish = ReplicaWish(n_gpu=n_gpu)
    hopeless = Hopeless()
    if isinstance(place(failed, views, [wish]), NoFit):
        hopeless.add(failed, wish)
        assert hopeless.covers(failed, wish)
    if hopeless.covers(other, wish):
        assert isinstance(place(other, views, [wish]), NoFit)


def test_other_wishes_and_labels_are_another_matter() -> None:
    hopeless = Hopeless()
    hopeless.add(spec(memory=GIB), ReplicaWish(n_gpu=1))
    assert hopeless.covers(spec(memory=2 * GIB), ReplicaWish(n_gpu=1))
    assert not hopeless.covers(spec(memory=GIB - 1), ReplicaWish(n_gpu=1))
    assert not hopeless.covers(spec(memory=2 * GIB), ReplicaWish(n_gpu=0))
    assert not hopeless.covers(spec(memory=2 * GIB, labels={"zone": "a"}), ReplicaWish(n_gpu=1))
    assert not hopeless.covers(spec(memory=2 * GIB, gpu_share=0.5), ReplicaWish(n_gpu=1))
