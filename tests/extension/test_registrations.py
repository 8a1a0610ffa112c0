"""Registered models as files: kept, found again, and not trusted."""

import json
import logging
import stat
from pathlib import Path

import pytest

from jupyter_xinfer.registrations import Registrations
from xinfer_runtime.errors import Conflict, ModelNotFound

LOG = logging.getLogger("test")


def definition(name: str) -> str:
    spec = {"model_format": "ggufv2", "model_size_in_billions": 7, "model_uri": "file:///m/a.gguf"}
    return json.dumps({"version": 2, "model_name": name, "model_specs": [spec]})


def files(folder: Path) -> list[Path]:
    return list(folder.iterdir())


async def test_what_is_kept_is_there_after_a_restart(tmp_path: Path) -> None:
    models = Registrations(tmp_path / "r", LOG)
    await models.add(definition("kept"), persist=True)
    await models.add(definition("passing"), persist=False)

    again = Registrations(tmp_path / "r", LOG)

    assert [family.name for family in again.families()] == ["kept"]
    [file] = files(tmp_path / "r")
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


async def test_a_removed_model_leaves_no_file(tmp_path: Path) -> None:
    models = Registrations(tmp_path, LOG)
    await models.add(definition("gone"), persist=True)

    await models.remove("GONE")

    assert not files(tmp_path)
    with pytest.raises(ModelNotFound):
        await models.remove("gone")


async def test_a_name_is_taken_once_in_any_case(tmp_path: Path) -> None:
    models = Registrations(tmp_path, LOG)
    await models.add(definition("mine"), persist=False)

    with pytest.raises(Conflict):
        await models.add(definition("MINE"), persist=True)
    assert not files(tmp_path)


@pytest.mark.parametrize("name", ["模型", "a:b", "~root", "CON", "x" * 100])
async def test_the_file_of_any_name_lies_in_the_folder(tmp_path: Path, name: str) -> None:
    models = Registrations(tmp_path / "r", LOG)
    await models.add(definition(name), persist=True)

    [file] = files(tmp_path / "r")
    assert file.name.isascii()
    assert len(file.name) < 80


@pytest.mark.parametrize("text", ["{", "\udcff", definition("../x"), definition("xinfer-demo")])
def test_a_broken_file_is_reported_and_left_alone(tmp_path: Path, text: str, caplog: pytest.LogCaptureFixture) -> None:
    file = tmp_path / "broken.json"
    file.write_bytes(text.encode(errors="surrogateescape"))

    assert Registrations(tmp_path, LOG).families() == ()
    assert str(file) in caplog.text
    assert file.exists()
