"""Who sent the request that is being handled, and what they may do."""

from contextvars import ContextVar
from typing import Annotated, Literal

from msgspec import Meta, Struct

from jupyter_xinfer.auth.permissions import ADMIN, AUTHENTICATED, PERMISSIONS
from xinfer_runtime.errors import PermissionDenied
from xinfer_runtime.messages import Priority

Kind = Literal["jupyter", "runtime_key", "api_key", "user", "nobody"]


class Limits(Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """What one caller may use; None is no limit. A day begins at midnight UTC. Tokens are prompt and completion."""

    requests_per_minute: Annotated[int, Meta(ge=1)] | None = None
    tokens_per_minute: Annotated[int, Meta(ge=1)] | None = None
    concurrent_requests: Annotated[int, Meta(ge=1)] | None = None
    tokens_per_day: Annotated[int, Meta(ge=1)] | None = None
    weight: Annotated[float, Meta(gt=0, le=1000)] | None = None
    """The caller's share where requests wait, beside those of others; 1 where it is None."""
    priority: Priority | None = None
    """`batch` for a caller whose requests let those of others go first."""


UNLIMITED = Limits()


class Principal(Struct, frozen=True, kw_only=True):
    """A caller whose credential was checked. `models` None is every model; `session` is the login of a JWT."""

    kind: Kind
    name: str
    permissions: frozenset[str] = frozenset()
    models: frozenset[str] | None = None
    limits: Limits = UNLIMITED
    session: str | None = None

    @property
    def id(self) -> str:
        """What limits and the usage ledger count by."""
        return f"{self.kind}:{self.name}"

    def require(self, permission: str) -> None:
        """Raise `PermissionDenied`, naming the permission, unless this caller has it."""
        if permission == AUTHENTICATED or permission in self.permissions or ADMIN in self.permissions:
            return
        has = ", ".join(sorted(self.permissions)) or "none"
        raise PermissionDenied(f"This needs the permission `{permission}`, which {self.name!r} lacks (has: {has}).")

    def may_use(self, model: str) -> bool:
        return self.models is None or model in self.models

    def require_model(self, model: str) -> None:
        if not self.may_use(model):
            raise PermissionDenied(f"{self.name!r} may not use the model {model!r}.", param="model")


EVERYTHING = frozenset(PERMISSIONS)
SERVER = Principal(kind="runtime_key", name="this server", permissions=EVERYTHING)
"""The server itself: launches at the start, and whatever else no request asked for."""

NOBODY = Principal(kind="nobody", name="nobody", models=frozenset())
"""Whoever calls a public route, and every caller until his credential is checked."""

_current: ContextVar[Principal] = ContextVar("xinfer_principal", default=SERVER)


def current_principal() -> Principal:
    """The caller of the request that this task handles; the server itself outside of requests."""
    return _current.get()


def set_current_principal(principal: Principal) -> None:
    """Called once per request by the handlers' base, before anything is done for it."""
    _current.set(principal)
