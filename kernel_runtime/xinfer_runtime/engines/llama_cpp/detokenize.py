"""Token bytes to text, one token at a time, without ever breaking a character."""

import codecs


class Detokenizer:
    """Decodes UTF-8 incrementally: bytes of an unfinished character wait for the rest of it.

    Bytes that can no longer become a character give U+FFFD at once, as Python's "replace" handler does.
    """

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")

    def push(self, piece: bytes) -> str:
        """The characters that `piece` completed."""
        return self._decoder.decode(piece)

    def finish(self) -> str:
        """What is left at the end of a request: one U+FFFD for an unfinished character, else nothing."""
        return self._decoder.decode(b"", final=True)
