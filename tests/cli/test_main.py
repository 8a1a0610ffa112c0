"""The command line as a whole."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from jupyter_xinfer.cli import main

ROOT = Path(__file__).parents[2]
COMMANDS = ["local", "launch", "list", "terminate", "stop", "chat"]


def run(*argv: str, **environ: str) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join(str(ROOT / folder) for folder in ("kernel_runtime", "extension"))
    code = "import sys; from jupyter_xinfer.cli import main; sys.exit(main())"
    return subprocess.run(
        [sys.executable, "-c", code, *argv],
        env={**os.environ, "PYTHONPATH": path, **environ},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself_with_an_example(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        main([command, "--help"])
    assert left.value.code == 0
    assert "example" in capsys.readouterr().out


def test_help_loads_nothing_slow() -> None:
    code = (
        "import sys; from jupyter_xinfer.cli import main\n"
        "try: main(['--help'])\n"
        "finally: print([n for n in ('httpx', 'jupyterlab', 'jupyter_server', 'IPython', 'distributed')"
        " if n in sys.modules], file=sys.stderr)"
    )
    path = os.pathsep.join(str(ROOT / folder) for folder in ("kernel_runtime", "extension"))
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True, check=True
    )
    assert done.stderr == "[]\n"
    assert all(command in done.stdout for command in COMMANDS)


def test_an_unknown_option_is_wrong_usage() -> None:
    done = run("list", "--bogus")
    assert done.returncode == 2
    assert "unrecognized arguments: --bogus" in done.stderr


def test_a_server_that_is_not_there_is_one_line_and_exit_code_1() -> None:
    done = run("list", "--endpoint", "http://127.0.0.1:1/")
    assert done.returncode == 1
    assert done.stderr.startswith("jupyter xinfer: Cannot reach http://127.0.0.1:1/")
    assert "Traceback" not in done.stderr


def test_without_a_server_the_search_is_told(tmp_path: Path) -> None:
    names = ("XINFER_BASE_URL", "XINFER_API_KEY", "XINFER_RUNTIME_FILE", "JUPYTERHUB_SERVICE_URL")
    done = run("list", JUPYTER_RUNTIME_DIR=str(tmp_path), **dict.fromkeys(names, ""))
    assert done.returncode == 1
    assert "none is running" in done.stderr


def test_the_version_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--version"])
    assert capsys.readouterr().out.startswith("jupyter-xinfer ")
