"""The key that this server's own kernels use, and the file they find it in.

Kernels are started by the server and run as its user, so they may do what their owner may do; but Jupyter's token is
not always there to give them (password login, JupyterHub). So each server makes a key of its own at start, that opens
our routes and nothing else of Jupyter, and writes it to a file that only its user can read.
"""

import hmac
import json
import os
import secrets
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from jupyter_core.paths import jupyter_runtime_dir, secure_write

from xinfer_runtime import __version__

PREFIX = "sk-xinfer-"


def _new_key() -> str:
    return PREFIX + secrets.token_urlsafe(32)


@dataclass
class RuntimeKey:
    """The key, and the runtime file `xinfer-<pid>.json` that holds it while the server runs."""

    key: str = field(default_factory=_new_key, repr=False)
    path: Path = field(default_factory=lambda: Path(jupyter_runtime_dir()) / f"xinfer-{os.getpid()}.json")

    def matches(self, credential: str) -> bool:
        return hmac.compare_digest(credential.encode(), self.key.encode())

    def write(self, url: str, certificate: str = "") -> None:
        """Write the file for a server that answers at `url` with this certificate, in PEM."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        facts = {"url": url, "key": self.key, "pid": os.getpid(), "version": __version__}
        if certificate:
            facts["certificate"] = certificate
        with secure_write(str(self.path)) as file:
            json.dump(facts, file)

    def remove(self) -> None:
        with suppress(FileNotFoundError):
            self.path.unlink()
