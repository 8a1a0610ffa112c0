"""Bodies of forms, `multipart/form-data`: fields and uploaded files, within bounds."""

from collections.abc import Mapping
from dataclasses import dataclass

from tornado.httputil import (
    HTTPFile,
    HTTPInputError,
    ParseBodyConfig,
    ParseMultipartConfig,
    ParseUrlEncodedConfig,
    parse_body_arguments,
)

from xinfer_runtime.errors import InvalidRequest

MAX_PARTS = 64
MAX_PART_HEADER = 4096
_BOUNDS = ParseBodyConfig(
    multipart=ParseMultipartConfig(max_parts=MAX_PARTS, max_part_header_size=MAX_PART_HEADER),
    urlencoded=ParseUrlEncodedConfig(max_arguments=MAX_PARTS),
)


@dataclass(frozen=True)
class Form:
    """The first value of each field, and the files of each name."""

    fields: Mapping[str, str]
    files: Mapping[str, list[HTTPFile]]


def is_form(content_type: str) -> bool:
    return content_type.lower().startswith(("multipart/form-data", "application/x-www-form-urlencoded"))


def read_form(content_type: str, body: bytes) -> Form:
    """Raises `InvalidRequest` for what is no form, has more parts than may be, or text that is none."""
    arguments: dict[str, list[bytes]] = {}
    files: dict[str, list[HTTPFile]] = {}
    try:
        parse_body_arguments(content_type, body, arguments, files, config=_BOUNDS)
    except HTTPInputError as error:
        raise InvalidRequest(f"The request body is not a valid form: {error}.") from None
    fields = {}
    for name, values in arguments.items():
        try:
            fields[name] = values[0].decode()
        except UnicodeDecodeError:
            raise InvalidRequest(f"`{name:.100}` is not UTF-8 text.", param=name[:100]) from None
    return Form(fields, files)
