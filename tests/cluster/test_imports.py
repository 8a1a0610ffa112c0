"""What starts often or early imports little."""

import subprocess
import sys

import pytest


@pytest.mark.parametrize(
    "module",
    [
        "xinfer_runtime.cluster.session",
        "xinfer_runtime.cluster.local",
        "xinfer_runtime.routing.router",
        "xinfer_runtime.cluster.replica_main",
    ],
)
def test_neither_a_gateways_start_nor_a_replica_imports_dask_or_bokeh(module: str) -> None:
    program = (
        f"import sys; sys.path[:0] = {sys.path!r}; import {module}; "
        "print(sorted({name.partition('.')[0] for name in sys.modules} & {'distributed', 'dask', 'bokeh', 'tornado'}))"
    )
    answer = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "[]"
