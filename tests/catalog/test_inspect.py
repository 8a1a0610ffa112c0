"""What a node finds out about a model from its file."""

from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from xinfer_runtime.catalog.families import families
from xinfer_runtime.catalog.forecast import forecast
from xinfer_runtime.catalog.gguf_file import read_gguf
from xinfer_runtime.catalog.inspect import inspect
from xinfer_runtime.catalog.locate import locate
from xinfer_runtime.catalog.resolve import resolve
from xinfer_runtime.errors import InvalidRequest, ModelFileError
from xinfer_runtime.models import LaunchRequest, ModelSpec


@pytest.fixture
def spec(tmp_path: Path, llama_bytes: bytes) -> ModelSpec:
    path = tmp_path / "small.gguf"
    path.write_bytes(llama_bytes)
    return resolve(LaunchRequest(model_path=str(path)))


def test_what_the_file_says_is_filled_in(spec: ModelSpec) -> None:
    found = inspect(spec)
    assert (found.quantization, found.context_length) == ("Q8_0", 2048)
    assert found.size_in_billions == "0_000006"
    assert found.memory_bytes > 0


def test_what_the_launch_says_is_kept(spec: ModelSpec) -> None:
    wanted = msgspec.structs.replace(spec, context_length=100, max_sequences=2, quantization="mine")
    found = inspect(wanted)
    assert (found.context_length, found.max_sequences, found.quantization) == (100, 2, "mine")


def test_inspecting_twice_changes_nothing(spec: ModelSpec) -> None:
    assert inspect(inspect(spec)) == inspect(spec)


def test_a_context_longer_than_the_model_was_trained_for_is_refused(spec: ModelSpec) -> None:
    with pytest.raises(InvalidRequest, match="2048") as caught:
        inspect(msgspec.structs.replace(spec, context_length=4096))
    assert caught.value.param == "context_length"


@pytest.mark.parametrize(("path", "said"), [("/nowhere/x.gguf", "does not exist"), ("/", "is no file")])
def test_a_file_that_is_not_there_is_named(path: str, said: str) -> None:
    with pytest.raises(ModelFileError, match=said):
        locate(ModelSpec(uid="x", name="x", path=path))


def test_a_path_that_no_system_can_have_is_refused() -> None:
    with pytest.raises(ModelFileError, match="on this node"):
        locate(ModelSpec(uid="x", name="x", path="/" + "x" * 5000 + ".gguf"))


def test_a_quantization_without_a_file_is_refused() -> None:
    with pytest.raises(ModelFileError, match="q1_0"):
        locate(ModelSpec(uid="x", name="xinfer-demo", size_in_billions="0_004", quantization="q1_0"))


def test_every_file_of_the_catalog_is_packaged_and_is_what_the_catalog_says() -> None:
    for family in families():
        for each in family.specs:
            for label in each.quantizations:
                spec = ModelSpec(
                    uid="x",
                    name=family.name,
                    format=each.format,
                    size_in_billions=each.size_in_billions,
                    quantization=label,
                )
                file = read_gguf(locate(spec))
                assert file.quantization.lower() == label.lower()
                by_file = inspect(ModelSpec(uid="x", name="x", path=str(file.path)))
                nominal = float(each.size_in_billions.replace("_", "."))
                assert file.parameters / 1e9 == pytest.approx(nominal, rel=0.15)
                assert by_file.context_length == family.context_length
                assert ("chat" in family.abilities) == (file.chat_template is not None)


def test_more_sequences_and_more_context_need_more_memory(write: Callable[[bytes], Path], llama_bytes: bytes) -> None:
    file = read_gguf(write(llama_bytes))
    small = forecast(file, ModelSpec(uid="s", name="s", context_length=256, max_sequences=1))
    large = forecast(file, ModelSpec(uid="l", name="l", context_length=2048, max_sequences=8))
    assert large.kv_cache == 72 * small.kv_cache == (8 + 1) * 2048 * file.cache_shape.bytes_per_cell
    assert large.total > small.total
    assert small.weights == file.weight_bytes
