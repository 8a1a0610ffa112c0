import pytest

from xinfer_runtime.client.endpoint import Endpoint, parse_endpoint
from xinfer_runtime.errors import InvalidRequest


@pytest.mark.parametrize(
    ("address", "url"),
    [
        ("http://host:8888/user/x/", "http://host:8888/user/x/"),
        ("http://host:8888", "http://host:8888/"),
        ("host:8888", "http://host:8888/"),
        ("https://host/v1", "https://host/"),
        ("http://host/user/x/v1/", "http://host/user/x/"),
        ("http://host/user/x/lab/tree/a.ipynb?reset", "http://host/user/x/"),
        ("http://host/user/lab/", "http://host/user/lab/"),
        ("http://0.0.0.0:8888/user/x/", "http://127.0.0.1:8888/user/x/"),
        ("http://[::]:8888/", "http://[::1]:8888/"),
    ],
)
def test_a_base_url_is_found_in_what_users_paste(address: str, url: str) -> None:
    assert parse_endpoint(address).url == url


def test_the_token_of_a_pasted_url_is_the_key() -> None:
    assert parse_endpoint("http://host/lab?token=secret").key == "secret"


def test_an_explicit_key_wins_over_the_token_in_the_url() -> None:
    assert parse_endpoint("http://host/lab?token=secret", "other").key == "other"


@pytest.mark.parametrize("address", ["ftp://host/", "http://", "http://host:port/", ""])
def test_what_is_no_address_is_refused(address: str) -> None:
    with pytest.raises(InvalidRequest, match="not the address of a server"):
        parse_endpoint(address)


def test_the_key_is_not_in_the_repr() -> None:
    assert "secret" not in repr(Endpoint("http://host/", "secret"))


def test_a_uid_cannot_leave_its_place_in_the_path() -> None:
    assert Endpoint("http://host/").model_path("../../api/kernels?x") == "v1/models/..%2F..%2Fapi%2Fkernels%3Fx"
