"""What an installed distribution holds."""

import json
import os
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import labextension_assets
import pytest

from xinfer_runtime import __version__

ROOT = Path(__file__).parents[2]
PACKAGES = {"xinfer_runtime": ROOT / "kernel_runtime", "jupyter_xinfer": ROOT / "extension"}
DATA = f"jupyter_xinfer-{__version__}.data/data"


def test_the_panel_has_the_version_of_the_distribution() -> None:
    package = json.loads((ROOT / "extension" / "labextension" / "package.json").read_text())
    assert package["version"] == __version__


def test_the_lock_file_names_no_registry() -> None:
    assert "://" not in (ROOT / "extension" / "labextension" / "yarn.lock").read_text()


@pytest.mark.parametrize("heavy", ["torch", "transformers", "llama_cpp", "vllm"])
def test_core_dependencies_are_light(heavy: str) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert not [line for line in project["dependencies"] if line.replace("-", "_").startswith(heavy)]


def test_importing_the_extension_loads_nothing_heavy() -> None:
    heavy = ["bokeh", "dask", "distributed", "httpx", "llama_cpp", "numpy", "openai", "torch"]
    script = f"import sys, jupyter_xinfer; print([name for name in {heavy} if name in sys.modules])"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, PACKAGES.values()))}
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=environment, check=True)
    assert result.stdout.strip() == "[]"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel built from an sdist of this checkout, the wheel with an empty PATH: no Node.js, no compiler, no git."""
    folder = tmp_path_factory.mktemp("distribution")
    labextension_assets.ensure_built()
    checkout = folder / "checkout"
    for path in _files_of_the_checkout():
        target = checkout / path.relative_to(ROOT)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(path.read_bytes())
    _build(checkout, folder, "--sdist")
    (sdist,) = folder.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        archive.extractall(folder, filter="data")
    _build(folder / sdist.name.removesuffix(".tar.gz"), folder, "--wheel")
    (built,) = folder.glob("*.whl")
    return built


def _files_of_the_checkout() -> list[Path]:
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    tracked = [ROOT / name for name in listed.stdout.split("\0") if name]
    return [path for path in [*tracked, *labextension_assets.OUTPUT.rglob("*")] if path.is_file()]


def _build(source: Path, output: Path, kind: str) -> None:
    no_tools = output / "bin"
    no_tools.mkdir(exist_ok=True)
    subprocess.run(
        [sys.executable, "-m", "build", kind, "--outdir", str(output), str(source)],
        env={**os.environ, "PATH": str(no_tools)},
        check=True,
    )


@pytest.mark.slow
def test_wheel_holds_the_panel_and_enables_the_extension(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    panel = f"{DATA}/share/jupyter/labextensions/jupyter-xinfer"
    assert f"{DATA}/etc/jupyter/jupyter_server_config.d/jupyter_xinfer.json" in names
    assert {f"{panel}/install.json", f"{panel}/package.json"} <= set(names)
    assert [name for name in names if name.startswith(f"{panel}/static/remoteEntry.")]
    assert not [name for name in names if name.startswith("jupyter_xinfer/labextension/")]


@pytest.mark.slow
def test_wheel_holds_every_file_of_the_packages(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    expected = {
        path.relative_to(root).as_posix()
        for package, root in PACKAGES.items()
        for path in _files_of_the_checkout()
        if path.is_relative_to(root / package) and not path.is_relative_to(labextension_assets.OUTPUT)
    }
    assert "xinfer_runtime/catalog/data/xinfer-demo-q8_0.gguf" in expected
    assert expected - names == set()
    assert {name.split("/")[0] for name in names} == {
        *PACKAGES,
        f"jupyter_xinfer-{__version__}.data",
        f"jupyter_xinfer-{__version__}.dist-info",
    }
