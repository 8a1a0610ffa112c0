"""Models in the words of Xinference's clients."""

import msgspec
import pytest
from msgspec.structs import replace

from jupyter_xinfer.protocol.model_objects import model_object, progress_object
from jupyter_xinfer.protocol.xinference_objects import (
    cluster_objects,
    definition_object,
    engines_object,
    instance_object,
    size_number,
)
from xinfer_runtime.catalog.families import Family, FamilySpec
from xinfer_runtime.client.description import ModelDescription
from xinfer_runtime.errors import EngineError
from xinfer_runtime.models import EngineStats, ModelInfo, ModelSpec, ModelStatus, Replica, ReplicaState

FAMILY = Family(
    name="mine",
    family="qwen",
    description="Mine",
    abilities=("chat",),
    languages=("en",),
    context_length=2048,
    specs=(FamilySpec(format="ggufv2", size_in_billions="7", quantizations={"q4": "/m/4.gguf", "q8": "/m/8.gguf"}),),
    builtin=False,
)
SPEC = ModelSpec(uid="m", name="mine", size_in_billions="7", quantization="q4", path="/m/4.gguf")


@pytest.mark.parametrize(("label", "number"), [("7", 7), ("0_5", "0_5"), ("70", 70)])
def test_whole_sizes_are_numbers(label: str, number: int | str) -> None:
    assert size_number(label) == number


def test_a_model_that_still_loads_is_described_by_what_is_known_of_its_name() -> None:
    described = model_object(ModelStatus(spec=SPEC), {}, FAMILY)

    assert described["model_ability"] == ["chat"]
    assert (described["model_family"], described["model_size_in_billions"]) == ("qwen", 7)


@pytest.mark.parametrize(
    ("states", "wanted", "progress"),
    [
        ([], 1, 0.0),
        ([ReplicaState.LOADING], 1, 0.99),
        ([ReplicaState.READY], 1, 1.0),
        ([ReplicaState.READY], 2, 0.5),
        ([ReplicaState.READY] * 199 + [ReplicaState.LOADING], 200, 0.99),
        ([ReplicaState.READY, ReplicaState.DRAINING], 1, 1.0),
    ],
)
def test_progress_is_1_only_when_the_model_answers(states: list[ReplicaState], wanted: int, progress: float) -> None:
    """Clients that launch in the background wait for 1; a file that is loaded is still to be tried out."""
    replicas = tuple(Replica(id=f"m-{i}", uid="m", state=state, progress=1.0) for i, state in enumerate(states))

    told = progress_object(ModelStatus(spec=replace(SPEC, replica=wanted), replicas=replicas))

    assert told["progress"] == progress
    assert all(
        (each["progress"] == 1) is (state == ReplicaState.READY)
        for each, state in zip(told["replicas"], states, strict=True)
    )


def test_a_loaded_model_speaks_for_itself() -> None:
    info = ModelInfo(context_length=512, vocab_size=10, abilities=("generate",))
    replica = Replica(id="m-0", uid="m", state=ReplicaState.READY, address="10.0.0.1:5", info=info)

    described = model_object(ModelStatus(spec=SPEC, replicas=(replica,)), {}, FAMILY)

    assert (described["model_ability"], described["address"]) == (["generate"], "10.0.0.1:5")


def test_the_load_of_a_replica_is_told() -> None:
    replica = Replica(id="m-0", uid="m", state=ReplicaState.READY)
    load = {"running": 2, "waiting": 1, "kv_used": 30, "kv_total": 90, "tokens_per_second": 7.5, "step_seconds": 0.25}
    counts = {"prompt_tokens": 40, "cached_tokens": 20, "restored_tokens": 7, "drafted_tokens": 8, "accepted_tokens": 5}

    described = model_object(ModelStatus(spec=SPEC, replicas=(replica,)), {"m-0": EngineStats(**load, **counts)})

    told = msgspec.convert(described, ModelDescription)
    assert {name: getattr(told.replicas[0], name) for name in (*load, *counts)} == {**load, **counts}
    assert (told.running, told.waiting, told.tokens_per_second) == (2, 1, 7.5)


def test_a_file_launched_by_path_has_every_key_too() -> None:
    known = model_object(ModelStatus(spec=SPEC), {}, FAMILY)
    unknown = model_object(ModelStatus(spec=SPEC), {}, None)

    assert known.keys() == unknown.keys()
    assert unknown["model_family"] == "mine"


@pytest.mark.parametrize(
    ("state", "status"),
    [("placing", "CREATING"), ("loading", "LOADING"), ("ready", "READY"), ("draining", "TERMINATING")],
)
def test_states_have_xinferences_names(state: str, status: str) -> None:
    replica = Replica(id="m-0", uid="m", node="n", state=ReplicaState(state))

    instance = instance_object(ModelStatus(spec=SPEC, replicas=(replica,)), ["chat"])

    assert instance["status"] == instance["replica_statuses"][0]["status"] == status


def test_a_failed_replica_says_why() -> None:
    replica = Replica(id="m-0", uid="m", state=ReplicaState.FAILED, error=EngineError("no memory").info)

    [status] = instance_object(ModelStatus(spec=SPEC, replicas=(replica,)), [])["replica_statuses"]

    assert (status["status"], status["error_message"]) == ("ERROR", "no memory")


def test_engines_and_definition_list_every_quantization() -> None:
    [parameters] = engines_object(FAMILY)["llama.cpp"]

    assert parameters["quantizations"] == ["q4", "q8"]
    assert [spec["quantization"] for spec in definition_object(FAMILY)["model_specs"]] == ["q4", "q8"]


def test_gpus_are_counted_where_dask_reports_them() -> None:
    worker = {"gpu": {"memory-total": [80, 80]}, "host": "h"}

    supervisor, node = cluster_objects("tls://s:1", {"tls://h:2": worker, "tls://h:3": {}})[:2]

    assert supervisor["ip_address"] == "tls://s:1"
    assert (node["gpu_count"], node["gpu_vram_total"]) == (2, 160)
