"""Where files of a model hub are on this node: downloaded before, by us or by Hugging Face's own tools, or not yet."""

import os
import re
from collections.abc import Mapping
from pathlib import Path

from msgspec.structs import replace

from xinfer_runtime.catalog.hub_reference import HUBS, HUGGINGFACE, HubReference, parse_hub_reference
from xinfer_runtime.errors import InvalidRequest

_LATER_PART = re.compile(r"-(?!00001)\d{5}-of-\d{5}\.gguf\Z")

PARTIAL = "partial"
"""The folder, beside those of the hubs, of files that are not complete."""


class HubFiles:
    """`environ` says where the folders and which the hub is."""

    def __init__(self, environ: Mapping[str, str] = os.environ) -> None:
        self._environ = environ
        home = Path(environ.get("XINFER_HOME") or "~/.xinfer").expanduser()
        self.folder = home.absolute() / "models"

    def reference(self, path: str) -> HubReference:
        """What `path` names, on the hub that this node uses. Raises InvalidRequest."""
        reference = parse_hub_reference(path)
        return replace(reference, hub=reference.hub or self.hub)

    @property
    def hub(self) -> str:
        """Raises InvalidRequest where `XINFER_MODEL_SRC` names none."""
        hub = (self._environ.get("XINFER_MODEL_SRC") or HUGGINGFACE).lower()
        if hub not in HUBS:
            raise InvalidRequest(f"XINFER_MODEL_SRC is {hub!r:.80} on this node; there is {', '.join(HUBS)}")
        return hub

    @property
    def offline(self) -> bool:
        return self._environ.get("HF_HUB_OFFLINE", "").lower() in ("1", "on", "yes", "true")

    def endpoint(self, hub: str) -> str | None:
        """A mirror, where the node has one."""
        if hub == HUGGINGFACE:
            return self._environ.get("HF_ENDPOINT") or None
        domain = self._environ.get("MODELSCOPE_DOMAIN")
        return f"https://{domain}" if domain else None

    def token(self, hub: str) -> str | None:
        """What opens private and gated models: Hugging Face's own token, from its variable or its file."""
        if hub != HUGGINGFACE:
            return None
        if token := self._environ.get("HF_TOKEN"):
            return token.strip()
        file = Path(self._environ.get("HF_TOKEN_PATH") or self._hugging_face_home / "token").expanduser()
        try:
            return file.read_text().strip() or None
        except (OSError, UnicodeDecodeError):
            return None

    def complete(self, reference: HubReference) -> Path | None:
        """The file, if it and all its parts are here."""
        for folder in (self.final(reference, "").parent, *self._of_hugging_face(reference)):
            if all((folder / file).is_file() for file in reference.files):
                return folder / reference.file
        return None

    def downloads(self) -> list[HubReference]:
        """What was downloaded to this node, models of several parts by their first. Touches the disk."""
        found = []
        for hub in HUBS:
            for path in sorted((self.folder / hub).glob("*/*/*/**/*.gguf")):
                owner, model, revision, *file = path.relative_to(self.folder / hub).parts
                try:
                    reference = parse_hub_reference(f"{hub}://{owner}/{model}@{revision}/{'/'.join(file)}")
                except InvalidRequest:
                    continue
                if _LATER_PART.search(path.name) is None and self.complete(reference) == path:
                    found.append(reference)
        return found

    def paths(self, reference: HubReference) -> list[Path]:
        """The files that were downloaded for it."""
        return [self.final(reference, file) for file in reference.files]

    def final(self, reference: HubReference, file: str) -> Path:
        """Where a complete file belongs."""
        return self.folder / reference.folder() / (file or reference.file)

    def partial(self, reference: HubReference, file: str) -> Path:
        """Where a file is until it is complete."""
        return self.folder / PARTIAL / reference.folder() / file

    @property
    def _hugging_face_home(self) -> Path:
        cache = self._environ.get("XDG_CACHE_HOME") or "~/.cache"
        return Path(self._environ.get("HF_HOME") or f"{cache}/huggingface").expanduser()

    def _of_hugging_face(self, reference: HubReference) -> list[Path]:
        """The folder with the model in the cache of Hugging Face's tools."""
        if reference.hub != HUGGINGFACE:
            return []
        cache = Path(self._environ.get("HF_HUB_CACHE") or self._hugging_face_home / "hub").expanduser()
        model = cache / f"models--{reference.owner}--{reference.model}"
        revision = reference.revision or "main"
        try:
            commit = (model / "refs" / revision).read_text().strip()
        except (OSError, UnicodeDecodeError):
            commit = revision
        return [model / "snapshots" / commit] if commit and "/" not in commit else []
