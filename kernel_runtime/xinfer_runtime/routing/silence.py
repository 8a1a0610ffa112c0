"""How long a peer has been silent, not counting the time in which this process itself did not listen."""


class Silence:
    """Call `heard` for each frame, and `tick` about every `interval` seconds.

    A process whose event loop was held up wakes to a peer that seems to have been silent all along, while its frames
    wait in the socket. So a late tick counts as little more than a punctual one.
    """

    def __init__(self, now: float, interval: float) -> None:
        self._last_tick = now
        self._longest = 1.5 * interval
        self.seconds = 0.0

    def heard(self) -> None:
        self.seconds = 0.0

    def tick(self, now: float) -> float:
        """Returns the silence so far, in seconds."""
        self.seconds += min(now - self._last_tick, self._longest)
        self._last_tick = now
        return self.seconds
