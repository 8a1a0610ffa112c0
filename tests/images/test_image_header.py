"""The size of images, from their first bytes."""

import io
import struct

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from PIL import Image

from jupyter_xinfer.images.image_header import NotAnImageError, dimensions


def encoded(kind: str, size: tuple[int, int], **options: object) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", size).save(buffer, kind, **options)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("PNG", {}),
        ("GIF", {}),
        ("JPEG", {}),
        ("JPEG", {"progressive": True}),
        ("JPEG", {"exif": b"Exif\0\0" + b"x" * 3000}),
        ("WEBP", {}),
        ("WEBP", {"lossless": True}),
        ("WEBP", {"exif": b"Exif\0\0x"}),
    ],
)
@pytest.mark.parametrize("size", [(1, 1), (300, 7), (1023, 768)])
def test_the_size_is_read(kind: str, options: dict[str, object], size: tuple[int, int]) -> None:
    assert dimensions(encoded(kind, size, **options)) == size


def test_a_size_without_pixels_is_read_too() -> None:
    header = b"\x89PNG\r\n\x1a\n" + struct.pack(">I4sII", 13, b"IHDR", 2**31 - 1, 2**31 - 1)

    assert dimensions(header) == (2**31 - 1, 2**31 - 1)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x89PNG\r\n\x1a\n",
        b"\x89PNG\r\n\x1a\n" + struct.pack(">I4sII", 13, b"IHDR", 0, 5),
        b"\xff\xd8",
        b"\xff\xd8\xff\xe0\x00\x00",
        b"GIF89a\x01",
        b"RIFF....WEBPVP8X",
        b"<svg width='1'/>",
        b"BM......",
    ],
)
def test_what_is_no_image_is_told(data: bytes) -> None:
    with pytest.raises(NotAnImageError):
        dimensions(data)


BEGINNINGS = st.sampled_from([encoded(kind, (3, 4)) for kind in ("PNG", "GIF", "JPEG", "WEBP")])


@given(
    st.one_of(st.binary(), st.tuples(BEGINNINGS, st.integers(0, 40), st.binary()).map(lambda t: t[0][: t[1]] + t[2]))
)
@example(b"\xff\xd8" + b"\xff" * 5000)
def test_no_bytes_break_the_reader(data: bytes) -> None:
    try:
        width, height = dimensions(data)
    except NotAnImageError:
        return
    assert width > 0
    assert height > 0
