"""Whatever a caller sends as a credential, it is refused as such: no other error, and nobody gets in."""

import base64
import logging
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from jupyter_xinfer.auth.gate import Gate
from jupyter_xinfer.auth.key_ring import KeyRing
from jupyter_xinfer.auth.key_store import KeyStore
from jupyter_xinfer.auth.runtime_key import RuntimeKey
from jupyter_xinfer.auth.shape import bearer
from xinfer_runtime.errors import AuthenticationRequired

# What a header can hold once the HTTP parser has let it through.
HEADERS = st.text(st.characters(min_codepoint=0x20, max_codepoint=0xFF))
GATE = Gate(RuntimeKey(), KeyRing(KeyStore(Path("/nonexistent")), logging.getLogger(__name__)))

DEEP = base64.urlsafe_b64encode(b'{"a":' + b"[" * 2500).decode().rstrip("=")


@given(st.one_of(HEADERS, HEADERS.map("sk-".__add__), HEADERS.map("sk-xinfer-".__add__), HEADERS.map("eyJ.".__add__)))
@example("sk-" + "\xff" * 10_000)
@example("eyJhbGciOiJub25lIn0.eyJpc3MiOiJqdXB5dGVyLXhpbmZlciJ9.")
@example("eyJ.W10.")
@example(f"eyJ.{DEEP}.")
async def test_no_credential_is_anything_but_refused(credential: str) -> None:
    if GATE.recognises(credential):
        with pytest.raises(AuthenticationRequired):
            await GATE.identify(credential)


@given(HEADERS)
def test_a_header_is_no_bearer_or_gives_what_follows_the_word(header: str) -> None:
    found = bearer(header)
    assert found is None or found in header
