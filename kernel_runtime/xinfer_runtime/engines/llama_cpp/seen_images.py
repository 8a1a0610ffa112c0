"""Images that were looked at, for as long as a request needs them and a while after: conversations send them again."""

import hashlib
import time
import weakref
from collections import OrderedDict
from collections.abc import Callable

from xinfer_runtime.engines.llama_cpp.image_rows import SeenImage

_POLL = 0.02


class SeenImages:
    """Looks at images with `look`, and keeps those that were asked for last, for half of `most` bytes.

    Used by one thread; others only let go of what they got.
    """

    def __init__(self, look: Callable[[bytes], SeenImage], most: int) -> None:
        self._look = look
        self._most = most
        self._kept: OrderedDict[bytes, SeenImage] = OrderedDict()
        self._alive: weakref.WeakValueDictionary[bytes, SeenImage] = weakref.WeakValueDictionary()

    def look(self, image: bytes) -> SeenImage:
        """What the model takes in place of the image; raises what `look` raises."""
        key = hashlib.sha256(image).digest()
        seen = self._alive.get(key)
        if seen is None:
            seen = self._alive[key] = self._look(image)
        self._kept[key] = seen
        self._kept.move_to_end(key)
        kept = sum(each.bytes for each in self._kept.values())
        while kept > self._most // 2:
            kept -= self._kept.popitem(last=False)[1].bytes
        return seen

    def wait_for_room(self, wanted: Callable[[], bool]) -> None:
        """Wait until requests have let go of enough that `most` bytes are not exceeded, or until nobody `wanted` to."""
        while wanted() and self._bytes() >= self._most:
            time.sleep(_POLL)

    def _bytes(self) -> int:
        return sum(each.bytes for each in self._alive.values())
