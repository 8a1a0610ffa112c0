from pathlib import Path

import pytest

from xinfer_runtime.cluster.join_tokens import JoinToken, JoinTokens
from xinfer_runtime.errors import InvalidRequest, NotFound, PermissionDenied


def test_a_token_survives_its_text() -> None:
    token = JoinToken(address="10.0.0.1:8785", fingerprint="ab" * 32, secret="s3cret")
    assert JoinToken.decode(f" {token.encode()}\n") == token
    assert "s3cret" not in repr(token)


@pytest.mark.parametrize("text", ["", "xinfer-join-", "xinfer-join-e30", "nonsense", "xinfer-join-é"])
def test_what_is_no_token_is_said_to_be_none(text: str) -> None:
    with pytest.raises(InvalidRequest, match="no join token"):
        JoinToken.decode(text)


def test_a_token_is_redeemed_once(tmp_path: Path) -> None:
    tokens = JoinTokens(tmp_path)
    token_id, secret = tokens.create(60, now=0)
    assert tokens.redeem(secret, now=1, serial=255) == token_id
    with pytest.raises(PermissionDenied, match="is used"):
        tokens.redeem(secret, now=2, serial=7)


def test_an_expired_a_revoked_and_an_unknown_token_open_nothing(tmp_path: Path) -> None:
    tokens = JoinTokens(tmp_path)
    _, expired = tokens.create(60, now=0)
    with pytest.raises(PermissionDenied, match="is expired"):
        tokens.redeem(expired, now=60, serial=7)
    revoked_id, revoked = tokens.create(60, now=0)
    tokens.revoke(revoked_id)
    with pytest.raises(PermissionDenied, match="is revoked"):
        tokens.redeem(revoked, now=1, serial=7)
    with pytest.raises(PermissionDenied, match="does not know"):
        tokens.redeem("guess", now=1, serial=7)
    with pytest.raises(NotFound, match="'nobody'"):
        tokens.revoke("nobody")


def test_the_file_holds_no_secret_and_is_its_owners_alone(tmp_path: Path) -> None:
    tokens = JoinTokens(tmp_path)
    _, secret = tokens.create(60, now=0)
    path = tmp_path / "tls" / "join-tokens.json"
    assert secret not in path.read_text()
    assert path.stat().st_mode & 0o777 == 0o600
    assert [row.state(1) for row in tokens.rows()] == ["open"]
