"""The one place that decides who a credential belongs to.

Credentials are told apart by their shape, before anybody looks them up: what begins with `sk-`, and a JWT that names
us as its issuer, are ours and never reach Jupyter's identity provider, and so neither JupyterHub. Everything else is
Jupyter's and never gets here.
"""

import re

from jupyter_xinfer.auth.principal import EVERYTHING, Principal
from jupyter_xinfer.auth.runtime_key import RuntimeKey
from xinfer_runtime.errors import AuthenticationRequired

KEY_SHAPE = "sk-"
_BEARER = re.compile(r"(?:bearer|token)\s+(.+)", re.IGNORECASE)


def bearer(header: str) -> str | None:
    """The credential of an `Authorization` header."""
    found = _BEARER.match(header)
    return found.group(1).strip() if found is not None else None


class Gate:
    """Knows the service's own credentials."""

    def __init__(self, runtime_key: RuntimeKey) -> None:
        self._runtime_key = runtime_key
        self._runtime_principal = Principal(kind="runtime_key", name="this server's kernels", permissions=EVERYTHING)

    def recognises(self, credential: str) -> bool:
        """Whether the shape of `credential` makes it ours to check; says nothing about whether it is valid."""
        return credential.startswith(KEY_SHAPE)

    async def identify(self, credential: str) -> Principal:
        """The caller with this credential. Raises `AuthenticationRequired` for a wrong, expired or revoked one."""
        if self._runtime_key.matches(credential):
            return self._runtime_principal
        raise AuthenticationRequired("The API key is not valid on this server.")

    def jupyter_user(self, name: str) -> Principal:
        """Whoever Jupyter let in owns the server or was let in by its owner; the site's authorizer has been asked."""
        return Principal(kind="jupyter", name=name, permissions=EVERYTHING)
