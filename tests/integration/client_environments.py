"""Clients that cannot share this environment, installed below `build/` when a test first needs them."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[2] / "build" / "test-clients"
SCRIPTS = Path(__file__).with_name("clients")
INSTALL_SECONDS = 280


def node_package(package: str, version: str) -> tuple[str, Path]:
    """`node`, and a folder in whose `node_modules` the package is. Skips where it cannot be."""
    npm, node = shutil.which("npm"), shutil.which("node")
    if npm is None or node is None:
        pytest.skip("Node.js and npm are not on PATH")
    folder = FOLDER / f"{package}-{version}"
    if not (folder / "node_modules" / package).is_dir():
        folder.mkdir(parents=True, exist_ok=True)
        _install(npm, "install", "--prefix", str(folder), "--no-audit", "--no-fund", f"{package}@{version}")
    return node, folder


def node_script(script: str, package: str, version: str) -> list[str]:
    """The command that runs `clients/<script>` in Node.js where `package` can be imported. Skips where it cannot be."""
    node, folder = node_package(package, version)
    # Node.js looks for packages beside the script.
    copied = folder / script
    shutil.copyfile(SCRIPTS / script, copied)
    return [node, str(copied)]


def python_packages(*requirements: str) -> Path:
    """A folder for PYTHONPATH with `requirements`, without what they require. Skips where it cannot be made."""
    folder = FOLDER / requirements[0]
    done = folder / "installed"
    if not done.exists():
        _install(sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(folder), *requirements)
        done.touch()
    return folder


def python_script(script: str, *requirements: str) -> list[str]:
    """The command that runs `clients/<script>` in an environment with `requirements` alone. Skips without it."""
    folder = FOLDER / requirements[0]
    python, done = folder / "bin" / "python", folder / "installed"
    if not done.exists():
        _install(sys.executable, "-m", "venv", "--clear", "--without-pip", str(folder))
        _install(sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet", *requirements)
        done.touch()
    return [str(python), str(SCRIPTS / script)]


def _install(*command: str) -> None:
    result = subprocess.run(command, capture_output=True, text=True, timeout=INSTALL_SECONDS)
    if result.returncode != 0:
        pytest.skip(f"{' '.join(command[:4])} ...: {result.stderr.strip()[-300:]}")
