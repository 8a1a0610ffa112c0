"""Logins with a name and a password, and the JWTs that stand for them.

A login has an id, `sid`, which all its tokens carry: revoking it ends them all. An access token is for requests; a
refresh token is good for one exchange against a new pair. A refresh token that comes a second time was stolen, from
the user or from the thief, so it ends the login.
"""

import asyncio
import hmac
import secrets
import time
from collections import OrderedDict
from typing import Any

import jwt
from jupyter_server.auth.security import passwd_check
from msgspec import Struct

from jupyter_xinfer.auth.api_key import digest
from jupyter_xinfer.auth.config import HASHED, AuthConfig, User
from jupyter_xinfer.auth.key_ring import KeyRing
from jupyter_xinfer.auth.principal import Principal
from jupyter_xinfer.auth.shape import ISSUER
from jupyter_xinfer.auth.throttle import LoginThrottle
from xinfer_runtime.errors import AuthenticationRequired, Overloaded, RateLimited

AUDIENCE = "jupyter-xinfer"
REFRESH_SECONDS = 7 * 86_400.0
MAX_NAME = 256
MAX_PASSWORD = 1024
# argon2 takes tens of milliseconds of all cores and ten MiB: a flood of logins must not take more.
CONCURRENT_CHECKS = 2
WAITING_CHECKS = 100
KNOWN_TOKENS = 4096
_REQUIRED = ["iss", "aud", "sub", "exp", "iat", "jti", "sid", "use", "pwd"]
# Checked where there is no hash to check, so that the time of an answer does not tell which names exist. It is the hash
# of random bytes that were thrown away, made as Jupyter makes its own.
_NOBODYS_HASH = (
    "argon2:$argon2id$v=19$m=10240,t=10,p=8$s0OPyEkmLtjlc3dLlibtIQ$h+mBEqvhuGlS+Zf8VeDPbB5+dvhbsYp1TYyFNYEdjH4"
)


class TokenPair(Struct, frozen=True):
    """The answer to a login, with the names of its fields as Xinference's clients read them."""

    access_token: str
    refresh_token: str
    token_type: str
    expires_in: int


class Logins:
    """Without a configuration nobody can log in and no token is valid."""

    def __init__(self, config: AuthConfig | None, ring: KeyRing, throttle: LoginThrottle | None = None) -> None:
        self._config = config
        self._ring = ring
        self._throttle = throttle or LoginThrottle()
        self._waiting = 0
        self._verified_claims: OrderedDict[bytes, dict[str, Any]] = OrderedDict()
        self._checks = asyncio.Semaphore(CONCURRENT_CHECKS)

    async def log_in(self, username: str, password: str, address: str) -> TokenPair:
        """Raises `AuthenticationRequired` for a wrong name or password alike, `RateLimited` after many of them."""
        config = self._configured()
        if len(username) > MAX_NAME or len(password) > MAX_PASSWORD:
            raise _wrong()
        wait = self._throttle.refused_for(username, address)
        if wait > 0:
            raise RateLimited("Too many failed logins; try again later.", retry_after=wait)
        if self._waiting >= WAITING_CHECKS:
            raise Overloaded("Too many logins at once; try again in a moment.")
        self._throttle.attempted(username, address)
        await asyncio.sleep(self._throttle.delay(username, address))
        user = config.users.get(username)
        self._waiting += 1
        try:
            async with self._checks:
                right = await asyncio.to_thread(_check_password, user, password)
        finally:
            self._waiting -= 1
        if user is None or not right:
            raise _wrong()
        self._throttle.succeeded(username, address)
        return self._pair(config, user, secrets.token_hex(16))

    async def refresh(self, token: str) -> TokenPair:
        """A new pair for a refresh token, which is used up. Raises `AuthenticationRequired`."""
        user, claims = await self._verified(token, "refresh")
        if not await self._ring.revoke_login(claims["jti"], claims["exp"]):
            await self.revoke(claims["sid"])
            raise AuthenticationRequired("This refresh token was used before; the login has been ended.")
        return self._pair(self._configured(), user, claims["sid"])

    async def identify(self, token: str) -> Principal:
        """The user of an access token. Raises `AuthenticationRequired`."""
        user, claims = await self._verified(token, "access")
        return user.principal(claims["sid"])

    async def revoke(self, login: str) -> None:
        """End the login with this id: none of its tokens is valid any more."""
        # Access tokens may be made to last longer than the one that refreshes them.
        longest = max(REFRESH_SECONDS, self._configured().token_seconds)
        await self._ring.revoke_login(login, time.time() + longest)

    async def _verified(self, token: str, use: str) -> tuple[User, dict[str, Any]]:
        config = self._configured()
        claims = self._claims(config, token)
        user = config.users.get(claims["sub"])
        if user is None or claims["use"] != use or not hmac.compare_digest(str(claims["pwd"]), _mark(config, user)):
            raise AuthenticationRequired("The token is not valid on this server.")
        if await self._ring.is_login_revoked(claims["sid"]):
            raise AuthenticationRequired("This login has been ended; log in again.")
        return user, claims

    def _claims(self, config: AuthConfig, token: str) -> dict[str, Any]:
        """The claims of a token whose signature, times, issuer and audience are right. A signature is checked once."""
        hashed = digest(token)
        known = self._verified_claims.get(hashed)
        if known is not None and time.time() < known["exp"]:
            return known
        try:
            claims: dict[str, Any] = jwt.decode(
                token,
                config.secret,
                algorithms=[config.algorithm],
                audience=AUDIENCE,
                issuer=ISSUER,
                options={"require": _REQUIRED},
            )
        except jwt.ExpiredSignatureError:
            raise AuthenticationRequired("The token has expired; refresh it, or log in again.") from None
        except jwt.InvalidTokenError:
            raise AuthenticationRequired("The token is not valid on this server.") from None
        self._verified_claims[hashed] = claims
        if len(self._verified_claims) > KNOWN_TOKENS:
            self._verified_claims.popitem(last=False)
        return claims

    def _configured(self) -> AuthConfig:
        if self._config is None:
            raise AuthenticationRequired("This server has no users with passwords; use an API key.")
        return self._config

    def _pair(self, config: AuthConfig, user: User, login: str) -> TokenPair:
        access = _token(config, user, login, "access", config.token_seconds)
        refresh = _token(config, user, login, "refresh", REFRESH_SECONDS)
        return TokenPair(access, refresh, "bearer", int(config.token_seconds))


def _token(config: AuthConfig, user: User, login: str, use: str, seconds: float) -> str:
    now = time.time()
    claims = {
        "iss": ISSUER,
        "aud": AUDIENCE,
        "sub": user.name,
        "iat": int(now),
        "exp": int(now + seconds),
        "jti": secrets.token_hex(16),
        "sid": login,
        "use": use,
        "pwd": _mark(config, user),
    }
    return jwt.encode(claims, config.secret, algorithm=config.algorithm)


def _mark(config: AuthConfig, user: User) -> str:
    """Changes with the password, so that a new one ends the logins of the old one; says nothing without the secret."""
    return hmac.digest(config.secret, f"{user.name}\n{user.password}".encode(), "sha256")[:8].hex()


def _check_password(user: User | None, password: str) -> bool:
    """Blocks for one argon2 check in every case, whoever `user` is."""
    given = user.password if user is not None else None
    if given is not None and given.startswith(HASHED):
        return bool(passwd_check(given, password))  # type: ignore[no-untyped-call]
    passwd_check(_NOBODYS_HASH, password)  # type: ignore[no-untyped-call]
    return given is not None and hmac.compare_digest(given.encode(), password.encode("utf-8", "surrogateescape"))


def _wrong() -> AuthenticationRequired:
    return AuthenticationRequired("The user name or the password is wrong.")
