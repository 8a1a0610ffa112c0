"""The one place that decides who a credential belongs to.

Ours are what begins with `sk-` and is not Jupyter's own token, and JWTs that name us as their issuer. They never reach
Jupyter's identity provider, and so neither JupyterHub; they open our routes only, and become no cookie. Everything else
is Jupyter's and never gets here.
"""

import hmac
import re
import time
from collections.abc import Callable

from jupyter_xinfer.auth.api_key import digest
from jupyter_xinfer.auth.config import AuthConfig
from jupyter_xinfer.auth.key_ring import KeyRing
from jupyter_xinfer.auth.logins import Logins
from jupyter_xinfer.auth.principal import EVERYTHING, Principal
from jupyter_xinfer.auth.runtime_key import RuntimeKey
from jupyter_xinfer.auth.shape import is_key, is_our_jwt
from jupyter_xinfer.auth.site_limits import SiteLimits
from xinfer_runtime.errors import AuthenticationRequired

_MADE_UP = re.compile(r"[0-9a-f]{32}")


class Gate:
    """Knows the service's own credentials: the runtime key, API keys of the store and of the file, and JWTs.

    `jupyter_token` gives the token of the Jupyter server, which an administrator may have chosen to look like a key.
    """

    def __init__(
        self,
        runtime_key: RuntimeKey,
        ring: KeyRing,
        config: AuthConfig | None = None,
        jupyter_token: Callable[[], str] = str,
        limits: SiteLimits | None = None,
    ) -> None:
        self.logins = Logins(config, ring)
        self._ring = ring
        self._jupyter_token = jupyter_token
        self._limits = limits or SiteLimits()
        self._runtime_key = runtime_key
        self._runtime_principal = Principal(kind="runtime_key", name="this server's kernels", permissions=EVERYTHING)
        self._users_by_digest = config.by_digest if config is not None else {}

    def recognises(self, credential: str) -> bool:
        """Whether the shape of `credential` makes it ours to check; says nothing about whether it is valid."""
        if not is_key(credential):
            return is_our_jwt(credential)
        return not hmac.compare_digest(credential.encode(), self._jupyter_token().encode())

    async def identify(self, credential: str) -> Principal:
        """The caller with this credential. Raises `AuthenticationRequired` for a wrong, expired or revoked one."""
        return self._limits.of(await self._identify(credential))

    async def _identify(self, credential: str) -> Principal:
        # Keys are found by their SHA-256: the time that takes depends on the digest, of which no guess of a key gives a
        # guesser any control, and so tells nothing about any key.
        if not is_key(credential):
            return await self.logins.identify(credential)
        if self._runtime_key.matches(credential):
            return self._runtime_principal
        hashed = digest(credential)
        user = self._users_by_digest.get(hashed)
        if user is not None:
            return user.principal()
        key = await self._ring.find(hashed)
        if key is None:
            raise AuthenticationRequired("The API key is not valid on this server.")
        refusal = key.why_not_valid(time.time())
        if refusal is not None:
            raise AuthenticationRequired(refusal)
        self._ring.note_use(key)
        return key.principal

    def jupyter_user(self, username: str, name: str) -> Principal:
        """Whoever Jupyter let in owns the server or was let in by its owner; the site's authorizer has been asked.

        Jupyter makes up a new anonymous user for each request with its token and each login with its password. They are
        all the server's owner, and one caller here: use adds up under one name.
        """
        if name.startswith("Anonymous ") and _MADE_UP.fullmatch(username):
            username = "owner"
        return self._limits.of(Principal(kind="jupyter", name=username, permissions=EVERYTHING))

    async def close(self) -> None:
        await self._ring.close()
