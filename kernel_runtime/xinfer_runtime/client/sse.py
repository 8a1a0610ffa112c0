"""Server-sent events, decoded without I/O."""


class SseDecoder:
    """Turns bytes, in whatever pieces they arrive, into the `data` of events (WHATWG HTML, section 9.2.6).

    Lines end at CR, LF or CRLF and at nothing else: JSON may hold the separators that `str.splitlines` would split at.
    """

    def __init__(self) -> None:
        self._rest = b""
        self._data: list[str] = []

    def feed(self, piece: bytes) -> list[str]:
        """The data of every event that `piece` completes."""
        text = self._rest + piece
        # A CR at the end may be half of a CRLF.
        held = b"\r" if text.endswith(b"\r") else b""
        lines = text.removesuffix(b"\r").replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")
        self._rest = lines.pop() + held
        return [event for event in map(self._line, lines) if event is not None]

    def _line(self, line: bytes) -> str | None:
        if not line:
            if not self._data:
                return None
            event, self._data = "\n".join(self._data), []
            return event
        name, _, value = line.partition(b":")
        if name == b"data":
            self._data.append(value.removeprefix(b" ").decode("utf-8", "replace"))
        return None
