"""What names of permissions stand for."""

import pytest

from jupyter_xinfer.auth.permissions import expand
from jupyter_xinfer.auth.principal import EVERYTHING, NOBODY, Principal
from jupyter_xinfer.handlers.base import endpoint, permission_of
from xinfer_runtime.errors import InvalidRequest, PermissionDenied


def test_newer_names_stand_for_ours() -> None:
    assert expand(["models:write", "cache:list"], "p") == {"models:start", "models:stop", "models:list"}


def test_names_of_what_is_not_offered_here_give_nothing() -> None:
    assert expand(["virtualenv:list", "keys:create"], "p") == frozenset()


def test_an_unknown_name_is_refused_with_its_place() -> None:
    with pytest.raises(InvalidRequest, match=r"`user_config\[3\]\.permissions\[1\]`.*'models:lst'"):
        expand(["models:list", "models:lst"], "user_config[3].permissions")


def test_a_caller_is_refused_by_the_name_of_what_it_lacks() -> None:
    caller = Principal(kind="api_key", name="ci", permissions=frozenset({"models:read"}))
    caller.require("models:read")
    with pytest.raises(PermissionDenied, match="models:start"):
        caller.require("models:start")


def test_admin_may_do_everything_and_nobody_nothing() -> None:
    admin = Principal(kind="user", name="ann", permissions=frozenset({"admin"}))
    for permission in EVERYTHING:
        admin.require(permission)
        with pytest.raises(PermissionDenied):
            NOBODY.require(permission)
    with pytest.raises(PermissionDenied):
        NOBODY.require_model("any")


def test_a_verb_that_declares_nothing_needs_admin() -> None:
    class Handler:
        @endpoint
        async def get(self) -> None: ...

        @endpoint("models:stop")
        async def delete(self) -> None: ...

    assert permission_of(Handler, "GET") == "admin"
    assert permission_of(Handler, "DELETE") == "models:stop"


def test_a_verb_cannot_declare_a_permission_that_does_not_exist() -> None:
    with pytest.raises(ValueError, match="models:raed"):
        endpoint("models:raed")
