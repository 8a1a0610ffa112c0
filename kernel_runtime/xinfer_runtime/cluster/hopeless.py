"""What found no place in a reconcile step, so that nothing larger is tried in vain after it."""

from xinfer_runtime.models import ModelSpec, ReplicaWish

_Kind = tuple[str, ReplicaWish, tuple[tuple[str, str], ...]]


class Hopeless:
    """Within one step room only becomes less: what needs as much as something that failed will fail too."""

    def __init__(self) -> None:
        self._failed: dict[_Kind, list[tuple[int, int]]] = {}

    def add(self, spec: ModelSpec, wish: ReplicaWish) -> None:
        """One replica found no place on any of the nodes, none of which refuses the model."""
        if spec.gpu_share == 1:
            self._failed.setdefault(_kind(spec, wish), []).append(_size(spec))

    def covers(self, spec: ModelSpec, wish: ReplicaWish) -> bool:
        if not self._failed or spec.gpu_share != 1:
            return False
        memory, undivided = _size(spec)
        return any(memory >= each[0] and undivided >= each[1] for each in self._failed.get(_kind(spec, wish), ()))


def _kind(spec: ModelSpec, wish: ReplicaWish) -> _Kind:
    return spec.engine, wish, tuple(sorted(spec.labels.items()))


def _size(spec: ModelSpec) -> tuple[int, int]:
    """Bytes of the forecast, and of the part that each GPU needs: what it takes, whatever the number of GPUs."""
    divided = spec.weight_bytes + spec.kv_cache_bytes
    return spec.memory_bytes, spec.memory_bytes - divided if divided else 0
