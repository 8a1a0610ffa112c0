"""How many CPU cores are of use to a model."""

_WEIGHTS_PER_THREAD = 16 << 20


def threads_for(weight_bytes: int, cores: int) -> int:
    """Threads for a model: one per 16 MiB of weights, at most one per core.

    llama.cpp's threads meet at a barrier after every operation. With little work between barriers one thread is faster
    even on idle cores, and when something else wants a core, every barrier waits for the operating system: a tiny model
    with two threads on two busy cores was measured to take 20 ms for a step instead of 0.2.
    """
    return max(1, min(cores, weight_bytes // _WEIGHTS_PER_THREAD))
