"""How many CPU threads a model gets of the cores that its process may use."""

from xinfer_runtime.engines.llama_cpp.thread_choice import ThreadChoice

_WEIGHTS_PER_THREAD = 8 << 20

_MANY = 8
"""Cores from which on a thread less computes hardly slower, and waits less for the core that it shares."""


def threads_for(weight_bytes: int, cores: int) -> int:
    """Threads for a model: one per 8 MiB of weights, at most one per core.

    llama.cpp's threads meet at a barrier after every operation. With little work between barriers one thread is faster
    even on idle cores, and when something else wants a core, every barrier waits for the operating system: a tiny model
    with two threads on two busy cores was measured to take 20 ms for a step instead of 0.2.
    """
    return max(1, min(_without_one(cores), weight_bytes // _WEIGHTS_PER_THREAD))


def _without_one(cores: int) -> int:
    """All but the one that sends the tokens, where there are many."""
    return cores - 1 if cores >= _MANY else cores


def choose_threads(weight_bytes: int, cores: int, fixed: int | None, on_gpu: bool) -> ThreadChoice:
    """Among what numbers of threads passes choose; `fixed` is what the launch asks for."""
    few = fixed or threads_for(weight_bytes, cores)
    # On a GPU the threads have next to nothing to do.
    return ThreadChoice(few, fixed=True) if fixed or on_gpu else ThreadChoice(few, cores, _without_one(cores))
