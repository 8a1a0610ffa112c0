import pytest

from xinfer_runtime.engines.llama_cpp.cores import choose_threads, threads_for


@pytest.mark.parametrize(("mebibytes", "threads"), [(4, 1), (25, 3), (8000, 7)])
def test_a_model_gets_as_many_threads_as_its_size_is_worth(mebibytes: int, threads: int) -> None:
    assert threads_for(mebibytes << 20, cores=8) == threads


@pytest.mark.parametrize(
    ("cores", "fixed", "on_gpu", "small", "large"),
    [(8, None, False, 4, 8), (2, None, False, 2, 2), (8, 3, False, 3, 3), (8, None, True, 4, 4)],
)
def test_passes_choose_within_the_share(cores: int, fixed: int | None, on_gpu: bool, small: int, large: int) -> None:
    choice = choose_threads(32 << 20, cores, fixed, on_gpu)
    assert choice.threads(1) == small
    assert choice.threads(100) == large
