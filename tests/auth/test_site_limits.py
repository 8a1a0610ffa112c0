"""Limits for callers of any kind: which hold for whom, and how mistakes are named."""

from typing import Any

import pytest

from jupyter_xinfer.auth.principal import UNLIMITED, Kind, Limits, Principal
from jupyter_xinfer.auth.site_limits import SiteLimits
from xinfer_runtime.errors import InvalidRequest
from xinfer_runtime.messages import Priority

SITE = SiteLimits(
    {
        "jupyter": {"tokens_per_day": 1000, "concurrent_requests": 2},
        "jupyter:ann": {"tokens_per_day": 5000, "priority": "batch"},
        "api_key": {"requests_per_minute": 60},
    }
)


def limits(kind: Kind, name: str, own: Limits = UNLIMITED) -> Limits:
    return SITE.of(Principal(kind=kind, name=name, limits=own)).limits


def test_a_caller_has_the_limits_of_his_kind() -> None:
    assert limits("jupyter", "bob") == Limits(tokens_per_day=1000, concurrent_requests=2)
    assert limits("user", "ann") == UNLIMITED
    assert limits("runtime_key", "this server's kernels") == UNLIMITED


def test_those_of_his_name_go_first_one_by_one() -> None:
    assert limits("jupyter", "ann") == Limits(tokens_per_day=5000, concurrent_requests=2, priority=Priority.BATCH)


def test_what_a_key_has_of_its_own_goes_before_both() -> None:
    own = Limits(requests_per_minute=600, tokens_per_day=7)
    assert limits("api_key", "ci", own) == own


def test_without_any_nobody_is_limited() -> None:
    caller = Principal(kind="jupyter", name="ann")
    assert SiteLimits().of(caller) is caller


@pytest.mark.parametrize(
    ("configured", "named"),
    [
        ({"jupiter": {}}, "jupiter"),
        ({"nobody": {}}, "nobody"),
        ({"jupyter:": {}}, "jupyter:"),
        ({"jupyter": {"tokens_per_day": 0}}, "tokens_per_day"),
        ({"jupyter": {"tokens_per_day": "many"}}, "tokens_per_day"),
        ({"jupyter": {"tokens_a_day": 1}}, "tokens_a_day"),
        ({"user:ann": 5}, "user:ann"),
        ({"user:ann": object()}, "user:ann"),
    ],
)
def test_a_mistake_is_named(configured: dict[str, Any], named: str) -> None:
    with pytest.raises(InvalidRequest, match=named):
        SiteLimits(configured)
