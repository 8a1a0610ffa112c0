"""How long to wait before the local cluster is started again: not at all, but for one that ends again and again."""

from typing import Final

HEALTHY_SECONDS: Final = 60.0
DELAYS: Final = (0.0, 1.0, 2.0, 5.0, 10.0, 30.0)


class RestartDelays:
    """The lives in a row that were short decide. All times are in seconds."""

    def __init__(self) -> None:
        self._short = 0

    def after(self, lived: float) -> float:
        """The delay after a life of `lived` seconds, 0 for one that never began."""
        if lived >= HEALTHY_SECONDS:
            self._short = 0
        delay = DELAYS[min(self._short, len(DELAYS) - 1)]
        self._short += 1
        return delay
