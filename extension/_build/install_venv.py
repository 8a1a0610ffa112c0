"""Make a virtual environment, install this checkout into it, and show how far that is.

A second call with nothing changed returns at once: a stamp in the environment holds the digest of what decides the
result. The install is editable, so a change to a Python module needs no new one.
"""

import argparse
import hashlib
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TextIO

import labextension_assets
from install_progress import is_problem, status_of

ROOT = labextension_assets.EXTENSION_ROOT.parent
CONSTRAINTS = ROOT / "constraints.txt"
WHEEL_INDEX_VARIABLE = "LLAMA_CPP_WHEEL_INDEX"


class InstallError(Exception):
    """The environment cannot be set up; the message says what to do."""


class StatusLine:
    """Shows the newest status: on a terminal in one line that is written over, elsewhere as lines of their own."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._started = time.monotonic()
        self._next_line = 0.0

    def show(self, status: str) -> None:
        """Show `status`; where lines stay, one every five seconds at most."""
        seconds = time.monotonic() - self._started
        text = f"[{seconds // 60:2.0f}:{seconds % 60:02.0f}] {status}"
        if self._stream.isatty():
            width = shutil.get_terminal_size().columns - 1
            self._stream.write(f"\r\x1b[K{text[:width]}")
        elif seconds >= self._next_line:
            self._next_line = seconds + 5
            self._stream.write(f"{text}\n")
        self._stream.flush()

    def end(self, text: str) -> None:
        """Replace the status by a last line."""
        self._stream.write(f"\r\x1b[K{text}\n" if self._stream.isatty() else f"{text}\n")
        self._stream.flush()


def install_digest(extras: str) -> str:
    """What decides the content of the environment besides the Python sources, as one digest."""
    digest = hashlib.sha256(f"{extras}\0{labextension_assets.source_digest(labextension_assets.SOURCE)}".encode())
    for path in (ROOT / "pyproject.toml", ROOT / "setup.cfg", CONSTRAINTS):
        digest.update(path.read_bytes())
    for path in sorted((labextension_assets.EXTENSION_ROOT / "jupyter-config").rglob("*.json")):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def pip_arguments(extras: str, *, wheel_index: str | None, needs_node: bool) -> list[str]:
    """The arguments of `pip` that install this checkout with its extras."""
    arguments = ["install", "-v", "--progress-bar", "off", "-c", str(CONSTRAINTS)]
    if wheel_index:
        arguments += ["--extra-index-url", wheel_index, "--prefer-binary"]
    if needs_node:
        arguments.append(labextension_assets.NODE_WHEEL)
    return [*arguments, "-e", f"{ROOT}[{extras}]"]


def create(venv: Path) -> None:
    """Make the virtual environment.

    Raises:
        InstallError: this Python has no venv.
    """
    result = subprocess.run([sys.executable, "-m", "venv", str(venv)], capture_output=True, text=True, check=False)
    if result.returncode:
        shutil.rmtree(venv, ignore_errors=True)
        raise InstallError(
            f"`{sys.executable} -m venv {venv}` failed (on Debian and Ubuntu: `apt-get install python3-venv`):\n"
            f"{result.stdout}{result.stderr}"
        )


def install(venv: Path, extras: str, *, needs_node: bool) -> None:
    """Run pip in the environment, its whole output in `install.log` there.

    Raises:
        InstallError: pip failed.
    """
    log_path = venv / "install.log"
    arguments = pip_arguments(extras, wheel_index=os.environ.get(WHEEL_INDEX_VARIABLE), needs_node=needs_node)
    status = StatusLine(sys.stdout)
    with (
        log_path.open("w", encoding="utf-8") as log,
        subprocess.Popen(
            [str(venv / "bin" / "python"), "-m", "pip", *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        ) as pip,
    ):
        assert pip.stdout is not None
        for line in pip.stdout:
            log.write(line)
            told = status_of(line)
            if told is not None:
                status.show(told)
            elif is_problem(line):
                status.end(line.rstrip())
    if pip.returncode:
        raise InstallError(
            f"pip ended with status {pip.returncode}; its whole output is in {log_path}. If it failed to compile "
            "llama-cpp-python: that needs a C++ compiler (Debian and Ubuntu: `apt-get install g++`), or a prebuilt "
            f"wheel, from an index named in {WHEEL_INDEX_VARIABLE}."
        )
    status.end(f"Installed jupyter-xinfer[{extras}] in {venv}")


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line of the Makefile."""
    parser = argparse.ArgumentParser(description="Install this checkout into a virtual environment.")
    parser.add_argument("--venv", type=Path, default=ROOT / ".venv", help="where (default: .venv in the checkout)")
    parser.add_argument("--extras", required=True, help="extras of pyproject.toml, separated by commas")
    parser.add_argument(
        "--node", action="store_true", help="install Node.js as a wheel when there is no fit one on PATH"
    )
    options = parser.parse_args(arguments)
    stamp = options.venv / f".installed-{options.extras.replace(',', '-')}"
    digest = install_digest(options.extras)
    if stamp.is_file() and stamp.read_text(encoding="ascii") == digest:
        return 0
    needs_node = options.node and labextension_assets.fit_node_on_path() is None
    try:
        if not (options.venv / "bin" / "python").exists():
            print(f"Creating {options.venv}", flush=True)
            create(options.venv)
        print(f"Installing jupyter-xinfer[{options.extras}]: one to two minutes.", flush=True)
        if "llama-cpp" in options.extras.split(","):
            print(
                "Where pip finds no wheel of llama-cpp-python it compiles it, once: about 5 minutes on 2 cores.\n"
                f"To skip that, name an index with prebuilt wheels: {WHEEL_INDEX_VARIABLE}=URL make ...",
                flush=True,
            )
        install(options.venv, options.extras, needs_node=needs_node)
    except InstallError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\ninterrupted; the next call goes on from here", file=sys.stderr)
        return 130
    stamp.write_text(digest, encoding="ascii")
    return 0


if __name__ == "__main__":
    sys.exit(main())
