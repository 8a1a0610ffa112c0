"""What someone sees who waits for an installation."""

import pytest
from install_progress import is_problem, status_of


@pytest.mark.parametrize(
    ("line", "status"),
    [
        ("  [97/193] /usr/bin/g++ -DGGML_USE_CPU -c ggml.cpp", "compiling llama.cpp: 97 of 193 files (50 %)"),
        ("  JupyterLab extension 2/2: compiling\n", "JupyterLab extension 2/2: compiling"),
        ("Collecting jupyterlab<5,>=4.5 (from jupyter-xinfer)", "resolving jupyterlab"),
        ("  Downloading bokeh-3.9.2-py3-none-any.whl (6.4 MB)", "downloading bokeh-3.9.2-py3-none-any.whl (6.4 MB)"),
        (
            "  Downloading https://host/a/b/bokeh-3.9.2-py3-none-any.whl (6.4 MB)",
            "downloading bokeh-3.9.2-py3-none-any.whl (6.4 MB)",
        ),
        ("  Building wheel for llama-cpp-python (pyproject.toml): started", "building llama-cpp-python"),
        ("Installing collected packages: six, numpy", "installing the packages"),
    ],
)
def test_line_that_tells_something(line: str, status: str) -> None:
    assert status_of(line) == status


@pytest.mark.parametrize(
    "line", ["  copying a.py -> build/lib", "", "  -- The CXX compiler identification is GNU 12.2.0"]
)
def test_line_that_tells_nothing(line: str) -> None:
    assert status_of(line) is None


def test_errors_are_always_shown() -> None:
    assert is_problem("ERROR: Could not find a version that satisfies the requirement")
    assert is_problem("  error: subprocess-exited-with-error")
    assert not is_problem("  copying errors.py -> build/lib")
