from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.cluster.conftest import GIB, spec

from xinfer_runtime.cluster.placement import NoFit, Placement, place
from xinfer_runtime.cluster.placement_room import (
    GPU_CONTEXT_BYTES,
    DeviceView,
    NodeView,
    Presence,
    Spot,
    device_bytes,
    free_devices,
    free_memory,
    host_bytes,
)
from xinfer_runtime.cluster.protocol import EngineSupport
from xinfer_runtime.models import ModelSpec, ReplicaWish

ANY = ReplicaWish()
CPU = ReplicaWish(n_gpu=0)
ONE_GPU = ReplicaWish(n_gpu=1)


def node(name: str, available: int = 16 * GIB, **fields: Any) -> NodeView:
    values = {"label": name, "host": name, "memory_total": 16 * GIB, "memory_available": available} | fields
    return NodeView(address=f"tls://{name}:1", **values)


def gpu(uuid: str, free: int = 80 * GIB, index: int = 0, **fields: Any) -> DeviceView:
    return DeviceView(uuid=uuid, index=index, name="H100", memory_total=80 * GIB, memory_free=free, **fields)


def gpus(*free: int, name: str = "") -> tuple[DeviceView, ...]:
    return tuple(gpu(f"{name}{index}", size, index) for index, size in enumerate(free))


def placed(*args: Any, **options: Any) -> tuple[Spot, ...]:
    outcome = place(*args, **options)
    assert isinstance(outcome, Placement), outcome
    return outcome.spots


def refused(*args: Any, **options: Any) -> str:
    outcome = place(*args, **options)
    assert isinstance(outcome, NoFit), outcome
    return outcome.message


def names(spots: tuple[Spot, ...]) -> list[str]:
    return [spot.address.removeprefix("tls://").removesuffix(":1") for spot in spots]


# ---- properties

devices = st.lists(
    st.builds(
        DeviceView,
        uuid=st.sampled_from("stuvwxyz"),
        index=st.integers(0, 3),
        name=st.just("g"),
        memory_total=st.just(80 * GIB),
        memory_free=st.integers(0, 80 * GIB),
        promised=st.integers(0, 20 * GIB),
        divided=st.booleans(),
    ),
    max_size=4,
    unique_by=(lambda each: each.uuid, lambda each: each.index),
).map(tuple)
views = st.builds(
    NodeView,
    address=st.uuids().map(str),
    label=st.just("n"),
    host=st.sampled_from("abc"),
    memory_total=st.just(100 * GIB),
    memory_available=st.integers(0, 100 * GIB),
    promised=st.integers(0, 10 * GIB),
    devices=devices,
    engines=st.sampled_from([None, {"llama.cpp": EngineSupport(version="1")}, {}]),
    labels=st.sampled_from([{}, {"zone": "a"}]),
    refusal=st.sampled_from(["", "", "", "it is being drained"]),
)
wishes = st.one_of(
    st.builds(ReplicaWish, n_gpu=st.sampled_from([None, 0, 1, 2])),
    st.lists(st.integers(0, 3), min_size=1, max_size=2, unique=True).map(
        lambda indices: ReplicaWish(n_gpu=len(indices), gpu_idx=tuple(indices))
    ),
)
memories = st.integers(1, 60 * GIB)


@given(
    st.lists(views, max_size=6),
    st.lists(wishes, min_size=1, max_size=6),
    memories,
    st.sampled_from([{}, {"zone": "a"}]),
)
def test_a_placement_honours_every_wish_and_promises_nothing_twice(
    nodes: list[NodeView], wanted: list[ReplicaWish], memory: int, labels: dict[str, str]
) -> None:
    model = spec(memory=memory, labels=labels)
    outcome = place(model, nodes, wanted)
    if isinstance(outcome, NoFit):
        assert outcome.message
        return
    by_address = {view.address: view for view in nodes}
    memory_taken: Counter[str] = Counter()
    device_taken: Counter[str] = Counter()
    for wish, spot in zip(wanted, outcome.spots, strict=True):
        view = by_address[spot.address]
        assert not view.refusal
        assert view.engines is None or "llama.cpp" in view.engines
        assert labels.items() <= view.labels.items()
        chosen = [each for each in view.devices if each.uuid in spot.devices]
        assert len(chosen) == len(spot.devices) == len(set(spot.devices))
        assert not chosen or view.engines is None, "an engine that is not built for GPUs got some"
        assert len(chosen) <= 1 or not any(each.divided for each in chosen)
        assert wish.n_gpu is None or len(chosen) == wish.n_gpu
        assert not wish.gpu_idx or {each.index for each in chosen} == set(wish.gpu_idx)
        memory_taken[view.host] += host_bytes(model, len(chosen))
        for each in chosen:
            device_taken[each.uuid] += device_bytes(model, len(chosen))
    assert all(size <= free_memory(nodes)[host] for host, size in memory_taken.items())
    assert all(size <= free_devices(nodes)[uuid] for uuid, size in device_taken.items())


@given(st.lists(views, max_size=6), st.integers(1, 8), memories)
def test_replicas_on_processors_are_placed_whenever_there_is_room(
    nodes: list[NodeView], count: int, memory: int
) -> None:
    able = [view for view in nodes if not view.refusal and view.engines != {}]
    room = sum(free_memory(nodes)[host] // memory for host in {view.host for view in able})
    assert isinstance(place(spec(memory=memory), nodes, [CPU] * count), Placement) == (room >= count)


@given(st.lists(views, max_size=6), st.integers(1, 8), memories)
def test_replicas_on_a_gpu_each_are_placed_whenever_there_is_room(
    nodes: list[NodeView], count: int, memory: int
) -> None:
    # Every GPU belongs to one node, and every node has memory of its own: then the room of all adds up.
    nodes = [
        NodeView(
            view.address,
            view.label,
            host=str(number),
            memory_total=view.memory_total,
            memory_available=view.memory_available,
            devices=tuple(
                DeviceView(f"{number}{each.uuid}", each.index, "g", each.memory_total, each.memory_free, each.promised)
                for each in view.devices
            ),
        )
        for number, view in enumerate(nodes)
    ]
    model = spec(memory=memory)
    free = free_devices(nodes)
    room = sum(
        min(
            sum(free[each.uuid] // device_bytes(model, 1) for each in view.devices),
            free_memory(nodes)[view.host] // host_bytes(model, 1),
        )
        for view in nodes
    )
    assert isinstance(place(model, nodes, [ONE_GPU] * count), Placement) == (room >= count)


# ---- examples: processors


def test_replicas_spread_over_nodes() -> None:
    assert names(placed(spec(), [node("a"), node("b"), node("c")], [ANY] * 3)) == ["a", "b", "c"]


def test_a_node_without_the_model_comes_before_a_bigger_one_with_it() -> None:
    presence = Presence(nodes={"tls://a:1": 1})
    assert names(placed(spec(), [node("a"), node("b", 8 * GIB)], [ANY], presence=presence)) == ["b"]


def test_what_loading_replicas_will_take_is_not_free() -> None:
    assert "8.0 GiB promised" in refused(spec(memory=10 * GIB), [node("a", promised=8 * GIB)], [ANY])


def test_a_refusal_has_numbers_for_every_node() -> None:
    nodes = [node("a"), node("b", 2 * GIB), node("c")]
    message = refused(spec(memory=20 * GIB), nodes, [ANY], refusals={"tls://c:1": "x.gguf is missing"})
    assert "'m' needs 20.0 GiB" in message
    assert "a: 15.2 GiB free of 16.0 GiB" in message
    assert "b: 1.2 GiB free" in message
    assert "c: x.gguf is missing" in message


def test_a_refusal_speaks_of_few_nodes_of_many() -> None:
    nodes = [node(f"n{number}", number * GIB // 100) for number in range(500)]
    message = refused(spec(memory=20 * GIB), nodes, [ANY])
    assert "n499: 4.2 GiB free" in message
    assert "492 more nodes" in message
    assert len(message) < 2000


def test_all_replicas_or_none() -> None:
    message = refused(spec(memory=6 * GIB), [node("a")], [ANY] * 3)
    assert "2 of 3 would fit" in message
    assert "Ask for fewer replicas" in message


def test_no_nodes_is_no_fit() -> None:
    assert "no node has joined" in refused(spec(), [], [ANY])


def test_a_node_is_chosen_by_name_address_or_ip() -> None:
    nodes = [node("a", ip="10.0.0.1"), node("b", ip="10.0.0.2")]
    for name in ("b", "tls://b:1", "b:1", "10.0.0.2"):
        assert names(placed(spec(), nodes, [ReplicaWish(worker_ip=name)])) == ["b"]
    assert "a: it is not c" in refused(spec(), nodes, [ReplicaWish(worker_ip="c")])


def test_only_nodes_with_the_labels_are_asked() -> None:
    nodes = [node("a", labels={"zone": "a"}), node("b", labels={"zone": "b", "disk": "fast"})]
    assert names(placed(spec(labels={"zone": "b"}), nodes, [ANY])) == ["b"]
    assert "b: it is not labelled zone=a" in refused(spec(labels={"zone": "a", "disk": "fast"}), nodes, [ANY])


def test_a_node_without_the_engine_is_not_asked() -> None:
    assert "llama.cpp is not installed there" in refused(spec(), [node("a", engines={})], [ANY])


# ---- examples: GPUs


def test_two_replicas_of_a_model_get_two_gpus() -> None:
    spots = placed(spec(memory=10 * GIB), [node("a", devices=gpus(80 * GIB, 80 * GIB))], [ONE_GPU] * 2)
    assert sorted(spot.devices for spot in spots) == [("0",), ("1",)]


def test_small_models_are_packed_on_one_gpu() -> None:
    nodes = [node("a", devices=gpus(80 * GIB, 40 * GIB)), node("b", devices=gpus(80 * GIB, name="b"))]
    assert placed(spec(memory=10 * GIB), nodes, [ONE_GPU])[0].devices == ("1",)


def test_replicas_share_a_gpu_where_they_must() -> None:
    spots = placed(spec(memory=10 * GIB), [node("a", devices=gpus(40 * GIB))], [ONE_GPU] * 3)
    assert [spot.devices for spot in spots] == [("0",)] * 3


def test_auto_takes_the_fewest_gpus_that_hold_the_model() -> None:
    nodes = [node("a", devices=gpus(80 * GIB, 80 * GIB, 80 * GIB))]
    assert len(placed(spec(memory=70 * GIB), nodes, [ANY])[0].devices) == 1
    assert len(placed(spec(memory=120 * GIB), nodes, [ANY])[0].devices) == 2


def test_auto_takes_processors_where_no_gpu_will_do() -> None:
    nodes = [node("a", devices=gpus(2 * GIB)), node("b")]
    assert placed(spec(memory=4 * GIB), nodes, [ANY])[0].devices == ()
    unusable = node("a", devices=gpus(80 * GIB), engines={"llama.cpp": EngineSupport(version="1")})
    assert placed(spec(), [unusable], [ANY])[0].devices == ()
    assert "its llama.cpp is not built for GPUs" in refused(spec(), [unusable], [ONE_GPU])


def test_tensor_parallel_stays_within_a_node() -> None:
    nodes = [node("a", devices=gpus(80 * GIB)), node("b", devices=gpus(80 * GIB, name="b"))]
    message = refused(spec(memory=90 * GIB), nodes, [ReplicaWish(n_gpu=2)])
    assert "a: it has 1 GPU" in message
    assert "45.6 GiB of each of 2 GPUs" in message


def test_a_gpu_is_taken_by_its_position() -> None:
    nodes = [node("a", devices=gpus(80 * GIB, 80 * GIB, 3 * GIB))]
    wish = ReplicaWish(n_gpu=1, gpu_idx=(1,))
    assert placed(spec(memory=10 * GIB), nodes, [ONE_GPU, wish])[1].devices == ("1",)
    message = refused(spec(memory=10 * GIB), nodes, [ReplicaWish(n_gpu=2, gpu_idx=(0, 2))])
    assert "GPU 2 (H100) has 3.0 GiB free of 80.0 GiB" in message
    assert "it has no GPU 7" in refused(spec(), nodes, [ReplicaWish(n_gpu=1, gpu_idx=(7,))])


def test_instances_of_a_divided_gpu_are_not_put_together() -> None:
    instances = (gpu("MIG-1", 20 * GIB, divided=True), gpu("MIG-2", 20 * GIB, divided=True))
    nodes = [node("a", devices=instances)]
    assert placed(spec(memory=18 * GIB), nodes, [ANY])[0].devices == ("MIG-1",)
    refused(spec(memory=30 * GIB), nodes, [ReplicaWish(n_gpu=2)])


def test_a_gpu_that_two_nodes_share_is_promised_once() -> None:
    shared = gpu("x", 50 * GIB, promised=30 * GIB), gpu("x", 50 * GIB)
    nodes = [node("a", devices=shared[:1]), node("b", host="a", devices=shared[1:])]
    placed(spec(memory=20 * GIB - GPU_CONTEXT_BYTES), nodes, [ONE_GPU])
    refused(spec(memory=20 * GIB), nodes, [ONE_GPU])


def test_a_replica_on_a_gpu_needs_some_memory_of_the_node_too() -> None:
    starved = node("a", GIB, devices=gpus(80 * GIB))
    assert "free of 16.0 GiB" in refused(spec(memory=10 * GIB), [starved], [ONE_GPU])


def test_gpus_divide_the_layers_and_each_needs_the_rest() -> None:
    model = spec(memory=20 * GIB, weight_bytes=16 * GIB, kv_cache_bytes=2 * GIB)
    assert device_bytes(model, 2) == 11 * GIB + GPU_CONTEXT_BYTES


def test_layers_that_stay_off_the_gpu_are_in_the_nodes_memory() -> None:
    model = spec(memory=20 * GIB, weight_bytes=16 * GIB, kv_cache_bytes=2 * GIB, gpu_share=0.5)
    roomy = node("a", 16 * GIB, devices=gpus(12 * GIB))
    assert placed(model, [roomy], [ONE_GPU])[0].devices == ("0",)
    refused(model, [node("a", 8 * GIB, devices=gpus(12 * GIB))], [ONE_GPU])
    none = spec(gpu_share=0.0)
    assert placed(none, [roomy], [ANY])[0].devices == ()


# ---- advice


def big(**fields: Any) -> ModelSpec:
    """15 GiB of weights in 8.5 bits, 4 GiB of KV cache for 16384 tokens, 1 GiB of the rest."""
    values = {
        "memory": 20 * GIB,
        "weight_bytes": 15 * GIB,
        "kv_cache_bytes": 4 * GIB,
        "context_length": 16384,
        "quantization": "Q8_0",
    } | fields
    return spec(**values)


@pytest.mark.parametrize(
    ("free", "advice"),
    [
        (18, "context_length 8192"),
        (17, "a Q6_K file of it, about 16.6 GiB"),
        (14, "a Q4_K_M file of it, about 13.5 GiB"),
        (4, "At most 4.0 GiB would fit now"),
    ],
)
def test_a_refusal_says_what_would_fit(free: int, advice: str) -> None:
    nodes = [node("a", (free + 1) * GIB, memory_total=100 * GIB), node("b", GIB)]
    assert advice in refused(big(), nodes, [CPU])


def test_advice_counts_what_a_gpu_has() -> None:
    nodes = [node("a", devices=gpus(15 * GIB))]
    assert "a Q4_K_M file" in refused(big(), nodes, [ONE_GPU])
    assert "7.7 GiB" not in refused(big(), nodes, [ONE_GPU])
