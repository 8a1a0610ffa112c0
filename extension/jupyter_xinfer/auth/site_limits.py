"""Limits that an administrator sets for callers of any kind, Jupyter's own users among them: `XinferApp.limits`."""

from collections.abc import Mapping
from typing import Any, get_args

import msgspec
from msgspec.structs import replace

from jupyter_xinfer.auth.principal import UNLIMITED, Kind, Limits, Principal
from jupyter_xinfer.protocol.decoding import decode
from xinfer_runtime.errors import InvalidRequest

_KINDS = tuple(kind for kind in get_args(Kind) if kind != "nobody")


class SiteLimits:
    """`configured` has limits by kind of caller, such as `jupyter`, or by caller, such as `jupyter:ann`.

    What a key or a user has of its own goes first, then what is set for the caller, then what is set for the kind: each
    limit by itself. Raises `InvalidRequest` that names a mistake.
    """

    def __init__(self, configured: Mapping[str, Any] | None = None) -> None:
        self._limits = {name: _checked(name, fields) for name, fields in (configured or {}).items()}

    def of(self, caller: Principal) -> Principal:
        """The caller with all limits that hold for him."""
        limits = caller.limits
        for name in (caller.id, caller.kind):
            limits = _filled(limits, self._limits.get(name, UNLIMITED))
        return caller if limits is caller.limits else replace(caller, limits=limits)


def _filled(first: Limits, then: Limits) -> Limits:
    """`first`, and `then` where it leaves something open."""
    if then == UNLIMITED:
        return first
    given = {name: value for name, value in msgspec.structs.asdict(first).items() if value is not None}
    return replace(then, **given)


def _checked(name: str, fields: Any) -> Limits:
    kind, _, who = name.partition(":")
    if kind not in _KINDS or (":" in name and not who):
        raise InvalidRequest(
            f"XinferApp.limits[{name!r:.100}]: a caller is named by kind ({', '.join(_KINDS)}), or by kind and name, "
            "as jupyter:ann."
        )
    try:
        return decode(msgspec.json.encode(fields), Limits)
    except (InvalidRequest, TypeError) as error:
        raise InvalidRequest(f"XinferApp.limits[{name!r:.100}]: {error}") from None
