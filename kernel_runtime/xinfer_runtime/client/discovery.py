"""How a client finds its server: from arguments, the environment, the runtime files of this machine, or JupyterHub."""

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

from xinfer_runtime.client.endpoint import Endpoint, parse_endpoint
from xinfer_runtime.client.errors import ServerNotFound
from xinfer_runtime.errors import InvalidRequest

_NOWHERE = """No jupyter-xinfer server was found. Tried:
{tried}
Start one with `jupyter xinfer local`; or name one: Client("http://host:8888/", "<token>"), or XINFER_BASE_URL and
XINFER_API_KEY in the environment."""


def runtime_directory() -> Path:
    """Where Jupyter servers of this user leave what others need to find them."""
    from jupyter_core.paths import jupyter_runtime_dir

    return Path(jupyter_runtime_dir())


def process_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OSError):
        return True
    return True


def _read_runtime_file(path: Path) -> tuple[Endpoint, int] | str:
    """The endpoint and the server's pid in a runtime file, or why it cannot be used."""
    try:
        if hasattr(os, "getuid") and path.stat().st_uid != os.getuid():
            return "belongs to another user"
        content = json.loads(path.read_text(encoding="utf-8"))
        verify = content.get("verify", True)
        endpoint = parse_endpoint(
            content["url"], content["key"], verify=verify if isinstance(verify, bool | str) else True, source=str(path)
        )
        certificate = content.get("certificate", "")
        if isinstance(certificate, str) and endpoint.url.startswith("https:"):
            endpoint = replace(endpoint, certificate=certificate)
        return endpoint, int(content["pid"])
    except FileNotFoundError:
        return "does not exist (the server has stopped)"
    except OSError as error:
        return f"cannot be read: {error.strerror}"
    except (ValueError, KeyError, TypeError, AttributeError, InvalidRequest):
        return "is not a runtime file"


class _Search:
    """One search, with a record of what was tried."""

    def __init__(self, environ: Mapping[str, str], directory: Callable[[], Path], alive: Callable[[int], bool]) -> None:
        self._environ = environ
        self._directory = directory
        self._alive = alive
        self.tried: list[str] = []

    def environment(self) -> Endpoint | None:
        url, key = self._environ.get("XINFER_BASE_URL"), self._environ.get("XINFER_API_KEY")
        if url and key:
            return parse_endpoint(url, key, source="XINFER_BASE_URL")
        missing = [name for name, value in (("XINFER_BASE_URL", url), ("XINFER_API_KEY", key)) if not value]
        self.tried.append(f"the environment: {' and '.join(missing)} not set")
        return None

    def named_file(self) -> Endpoint | None:
        name = self._environ.get("XINFER_RUNTIME_FILE")
        if not name:
            self.tried.append("XINFER_RUNTIME_FILE: not set (it is in kernels of a server that has the extension)")
            return None
        found = _read_runtime_file(Path(name))
        if isinstance(found, str):
            self.tried.append(f"XINFER_RUNTIME_FILE: {name} {found}")
            return None
        return found[0]

    def live(self) -> list[tuple[Endpoint, int]]:
        files = sorted(self._directory().glob("xinfer-*.json"))
        readable = [found for found in map(_read_runtime_file, files) if not isinstance(found, str)]
        return [(endpoint, pid) for endpoint, pid in readable if self._alive(pid)]

    def running_server(self) -> Endpoint | None:
        servers = self.live()
        parent = self._environ.get("JPY_PARENT_PID", "")
        for endpoint, pid in servers:
            if str(pid) == parent:
                return endpoint
        if len(servers) == 1:
            return servers[0][0]
        where = f"servers on this machine ({self._directory()}/xinfer-*.json)"
        addresses = ", ".join(endpoint.url for endpoint, _ in servers)
        self.tried.append(f"{where}: {f'several, choose one: {addresses}' if servers else 'none is running'}")
        return None

    def hub(self) -> Endpoint | None:
        url, key = self._environ.get("JUPYTERHUB_SERVICE_URL"), self._environ.get("JUPYTERHUB_API_TOKEN")
        if url and key:
            return parse_endpoint(url, key, source="JUPYTERHUB_SERVICE_URL")
        self.tried.append("JupyterHub: JUPYTERHUB_SERVICE_URL and JUPYTERHUB_API_TOKEN not set")
        return None


def discover(
    base_url: str | None = None,
    api_key: str | None = None,
    *,
    verify: bool | str | None = None,
    environ: Mapping[str, str] | None = None,
    directory: Callable[[], Path] = runtime_directory,
    alive: Callable[[int], bool] = process_alive,
) -> Endpoint:
    """The server to talk to: the explicit one, else the first that the environment or the runtime files name.

    With an explicit `base_url` and no key, the key is XINFER_API_KEY or the one in the runtime file of that very
    address: a key found for one server is never sent to another. Runtime files of other users are ignored.

    Raises:
        ServerNotFound: none was found; the message lists what was tried.
        InvalidRequest: the address is not a URL.
    """
    environ = os.environ if environ is None else environ
    search = _Search(environ, directory, alive)
    if base_url:
        given = parse_endpoint(base_url, api_key)
        if given.key is None:
            key = environ.get("XINFER_API_KEY")
            own = (endpoint for endpoint, _ in search.live() if endpoint.url == given.url)
            own_file = next(own, None)
            if key:
                given = replace(given, key=key, certificate=own_file.certificate if own_file is not None else "")
            elif own_file is not None:
                given = own_file
        found: Endpoint | None = given
    else:
        found = search.environment() or search.named_file() or search.running_server() or search.hub()
    if found is None:
        raise ServerNotFound(_NOWHERE.format(tried="\n".join(f"  - {line}" for line in search.tried)))
    if api_key:
        found = replace(found, key=api_key)
    return found if verify is None else replace(found, verify=verify)
