"""How large an image is, from its first bytes: a small file can be an image of a billion pixels."""

import struct

_JPEG_SIZES = frozenset({*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC})
"""Markers of JPEG segments that tell the size: the start of a frame, of any kind."""


class NotAnImageError(Exception):
    """The bytes are none of PNG, JPEG, GIF and WebP, or are cut off before their size."""


def dimensions(data: bytes) -> tuple[int, int]:
    """Width and height in pixels. Raises `NotAnImageError`."""
    try:
        width, height = _dimensions(data)
    except (struct.error, IndexError):
        raise NotAnImageError from None
    if width < 1 or height < 1:
        raise NotAnImageError
    return width, height


def _dimensions(data: bytes) -> tuple[int, int]:
    if data.startswith(b"\x89PNG\r\n\x1a\n") and data[12:16] == b"IHDR":
        return struct.unpack_from(">II", data, 16)
    if data.startswith((b"GIF87a", b"GIF89a")):
        return struct.unpack_from("<HH", data, 6)
    if data.startswith(b"\xff\xd8"):
        return _jpeg(data)
    if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
        return _webp(data)
    raise NotAnImageError


def _jpeg(data: bytes) -> tuple[int, int]:
    at = 2
    while True:
        (start, marker) = struct.unpack_from(">BB", data, at)
        if start != 0xFF:
            raise NotAnImageError
        if marker == 0xFF:  # Filling between segments.
            at += 1
            continue
        (length,) = struct.unpack_from(">H", data, at + 2)
        if marker in _JPEG_SIZES:
            height, width = struct.unpack_from(">HH", data, at + 5)
            return width, height
        if length < 2:
            raise NotAnImageError
        at += 2 + length


def _webp(data: bytes) -> tuple[int, int]:
    kind = data[12:16]
    if kind == b"VP8X":
        return 1 + int.from_bytes(_exactly(data, 24, 3), "little"), 1 + int.from_bytes(_exactly(data, 27, 3), "little")
    if kind == b"VP8 " and data[23:26] == b"\x9d\x01\x2a":
        width, height = struct.unpack_from("<HH", data, 26)
        return width & 0x3FFF, height & 0x3FFF
    if kind == b"VP8L" and data[20] == 0x2F:
        (bits,) = struct.unpack_from("<I", data, 21)
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    raise NotAnImageError


def _exactly(data: bytes, at: int, count: int) -> bytes:
    found = data[at : at + count]
    if len(found) < count:
        raise NotAnImageError
    return found
