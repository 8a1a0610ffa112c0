"""One daemon thread that runs actions when asked and a refresh in between."""

import queue
import threading
from collections.abc import Callable


class BackgroundLoop:
    """Calls `refresh` at once, after each action, and again after the seconds that it returned, until `close`.

    Neither `refresh` nor the actions may raise: nobody would see it.
    """

    def __init__(self, name: str, refresh: Callable[[], float]) -> None:
        self._refresh = refresh
        self._actions: queue.SimpleQueue[Callable[[], object] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def submit(self, action: Callable[[], object]) -> None:
        """Runs `action` on the thread, soon."""
        self._actions.put(action)

    @property
    def running(self) -> bool:
        return self._thread.is_alive()

    def close(self, seconds: float = 5.0) -> None:
        """Ends the thread after what it is doing; waits for it at most `seconds`."""
        self._actions.put(None)
        if threading.current_thread() is not self._thread:
            self._thread.join(seconds)

    def _run(self) -> None:
        while True:
            pause = self._refresh()
            try:
                action = self._actions.get(timeout=pause)
            except queue.Empty:
                continue
            if action is None:
                return
            action()
