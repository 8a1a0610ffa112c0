import pytest

from xinfer_runtime.engines.llama_cpp.cores import threads_for


@pytest.mark.parametrize(("mebibytes", "threads"), [(4, 1), (64, 4), (8000, 8)])
def test_a_model_gets_as_many_threads_as_its_size_is_worth(mebibytes: int, threads: int) -> None:
    assert threads_for(mebibytes << 20, cores=8) == threads
