"""The gateway's copy of the controller's table, kept by the messages of a watch."""

from types import MappingProxyType

from xinfer_runtime.cluster.protocol import Beat, Change, Snapshot, WatchMessage
from xinfer_runtime.models import ModelStatus


class OutOfStepError(Exception):
    """A message was missed; only a new snapshot helps."""


class ModelTable:
    """`models` is live. `revision` is -1 before the first snapshot."""

    def __init__(self) -> None:
        self._models: dict[str, ModelStatus] = {}
        self.models = MappingProxyType(self._models)
        self.epoch = ""
        self.revision = -1

    def apply(self, message: WatchMessage) -> list[str]:
        """Returns the uids that changed. Raises OutOfStepError."""
        match message:
            case Snapshot(epoch=epoch, revision=revision, models=models):
                new = {status.spec.uid: status for status in models}
                changed = [uid for uid in self._models.keys() | new.keys() if self._models.get(uid) != new.get(uid)]
                self.epoch, self.revision = epoch, revision
                self._models.clear()
                self._models.update(new)
                return changed
            case Change(revision=revision, uid=uid, status=status):
                self._follow(revision, self.revision + 1)
                self.revision = revision
                if status is None:
                    self._models.pop(uid, None)
                else:
                    self._models[uid] = status
                return [uid]
            case Beat(revision=revision):
                self._follow(revision, self.revision)
                return []

    def _follow(self, revision: int, expected: int) -> None:
        if revision != expected:
            raise OutOfStepError(f"revision {revision} of the table came where {expected} was due")
