"""What names a file on a hub, and what does not."""

import pytest

from xinfer_runtime.catalog.hub_files import HubFiles
from xinfer_runtime.catalog.hub_reference import HubReference, is_hub_reference, parse_hub_reference
from xinfer_runtime.errors import InvalidRequest


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("hf://me/m-GGUF/m.gguf", HubReference("huggingface", "me", "m-GGUF", "", "m.gguf")),
        ("HF://me/m@v1.2/q8/m.gguf", HubReference("huggingface", "me", "m", "v1.2", "q8/m.gguf")),
        ("modelscope://me/m/m.gguf", HubReference("modelscope", "me", "m", "", "m.gguf")),
        ("hub://me/m/m.gguf", HubReference("", "me", "m", "", "m.gguf")),
    ],
)
def test_a_reference_is_understood(path: str, expected: HubReference) -> None:
    assert is_hub_reference(path)
    assert parse_hub_reference(path) == expected


@pytest.mark.parametrize(
    "path",
    [
        "hf://m.gguf",
        "hf://me/m.gguf",
        "hf://me/../m.gguf",
        "hf://../m/m.gguf",
        "hf://me/m/../../x.gguf",
        "hf://me/m@../x.gguf",
        "hf://me/m@a/b@c/x",
        "hf://me/m/x.bin",
        "hf://me/m/.gguf",
        "hf://user:pw@host/m/x.gguf",
        "hf://me/m/x?y.gguf",
        "hf://me/m/x\0.gguf",
        "hf://me//x.gguf",
        "hf://me/m/x-00001-of-99999.gguf",
    ],
)
def test_anything_else_is_refused(path: str) -> None:
    with pytest.raises(InvalidRequest, match="model_path"):
        parse_hub_reference(path)


@pytest.mark.parametrize("path", ["/models/m.gguf", "m.gguf", "https://example.org/m.gguf", "~/m.gguf", "hfx://a/b/c"])
def test_paths_are_no_references(path: str) -> None:
    assert not is_hub_reference(path)


def test_urls_are_those_of_the_hubs() -> None:
    assert (
        parse_hub_reference("hf://me/m/a b.gguf").url("a b.gguf")
        == "https://huggingface.co/me/m/resolve/main/a%20b.gguf"
    )
    there = parse_hub_reference("modelscope://me/m@v1/m.gguf").url("m.gguf", "https://mirror.example/")
    assert there == "https://mirror.example/models/me/m/resolve/v1/m.gguf"


def test_the_node_chooses_where_the_reference_leaves_it_open() -> None:
    assert HubFiles({}).reference("hub://me/m/m.gguf").hub == "huggingface"
    assert HubFiles({"XINFER_MODEL_SRC": "ModelScope"}).reference("hub://me/m/m.gguf").hub == "modelscope"
    with pytest.raises(InvalidRequest, match="XINFER_MODEL_SRC"):
        HubFiles({"XINFER_MODEL_SRC": "floppy"}).reference("hub://me/m/m.gguf")
