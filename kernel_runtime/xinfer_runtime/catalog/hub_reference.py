"""Names of files on a model hub, such as `hf://owner/model-GGUF/model-Q8_0.gguf`. Pure.

`hf://` is the Hugging Face hub and `modelscope://` ModelScope; `hub://` leaves the choice to each node
(`XINFER_MODEL_SRC`). A revision may stand behind the model's name: `hf://owner/model@revision/file.gguf`.
"""

import re
from pathlib import PurePosixPath
from urllib.parse import quote

from msgspec import Struct

from xinfer_runtime.errors import InvalidRequest

HUGGINGFACE, MODELSCOPE = "huggingface", "modelscope"
HUBS = (HUGGINGFACE, MODELSCOPE)

_SCHEMES = {"hf": HUGGINGFACE, "huggingface": HUGGINGFACE, "modelscope": MODELSCOPE, "hub": ""}
_PREFIX = re.compile(rf"({'|'.join(_SCHEMES)})://", re.IGNORECASE)
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}")
_REVISION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_SEGMENT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+ -]{0,199}")
_PART = re.compile(r"(.+)-00001-of-(\d{5})\.gguf")
_MOST_PARTS = 200
_DEFAULT_REVISION = {HUGGINGFACE: "main", MODELSCOPE: "master"}
_ENDPOINTS = {HUGGINGFACE: "https://huggingface.co", MODELSCOPE: "https://www.modelscope.cn"}


class HubReference(Struct, frozen=True):
    """A file on a hub; `hub` is empty where the node chooses, `revision` for the hub's default."""

    hub: str
    owner: str
    model: str
    revision: str
    file: str

    @property
    def files(self) -> tuple[str, ...]:
        """The file, and the others of a model that is split into several."""
        found = _PART.fullmatch(self.file)
        if found is None:
            return (self.file,)
        prefix, count = found[1], found[2]
        return tuple(f"{prefix}-{number:05}-of-{count}.gguf" for number in range(1, int(count) + 1))

    def __str__(self) -> str:
        revision = f"@{self.revision}" if self.revision else ""
        return f"{self.hub or 'hub'}://{self.owner}/{self.model}{revision}/{self.file}"

    def folder(self) -> PurePosixPath:
        """Where its files are kept, below the folder of all downloads."""
        return PurePosixPath(self.hub, self.owner, self.model, self.revision or _DEFAULT_REVISION[self.hub])

    def url(self, file: str, endpoint: str | None = None) -> str:
        """Where `file` is fetched from; `endpoint` is a mirror of the hub."""
        base = (endpoint or _ENDPOINTS[self.hub]).rstrip("/")
        models = "/models" if self.hub == MODELSCOPE else ""
        revision = self.revision or _DEFAULT_REVISION[self.hub]
        return f"{base}{models}/{self.owner}/{self.model}/resolve/{revision}/{quote(file)}"


def is_hub_reference(path: str) -> bool:
    return _PREFIX.match(path) is not None


def parse_hub_reference(path: str) -> HubReference:
    """Raises InvalidRequest saying what is wrong with it."""
    found = _PREFIX.match(path)
    rest = path[found.end() :].split("/") if found is not None else []
    if found is None or len(rest) < 3:
        raise _wrong(path)
    owner, (model, _, revision), *file = rest[0], rest[1].partition("@"), *rest[2:]
    named = _NAME.fullmatch(owner) and _NAME.fullmatch(model) and (not revision or _REVISION.fullmatch(revision))
    if not named or not all(map(_SEGMENT.fullmatch, file)) or not file[-1].lower().endswith(".gguf"):
        raise _wrong(path)
    reference = HubReference(_SCHEMES[found[1].lower()], owner, model, revision, "/".join(file))
    if (part := _PART.fullmatch(reference.file)) is not None and not 1 <= int(part[2]) <= _MOST_PARTS:
        raise InvalidRequest(f"model_path {path!r:.200}: at most {_MOST_PARTS} parts", param="model_path")
    return reference


def _wrong(path: str) -> InvalidRequest:
    return InvalidRequest(
        f"model_path {path!r:.200}: a file on a hub is hf://owner/model/file.gguf, modelscope://owner/model/file.gguf, "
        "or hub://owner/model/file.gguf; a revision follows the model's name after an @",
        param="model_path",
    )
