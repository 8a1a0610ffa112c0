"""The custom models that somebody registered with this server: in memory, and those to keep as files.

Each file is the registered text itself, checked again when it is read. Its name is made from a hash of the model's,
which strangers choose.
"""

import asyncio
import hashlib
import logging
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from jupyter_xinfer.protocol.nesting import MOST, deeper_than
from xinfer_runtime.catalog.custom import MAX_BYTES, parse_custom_model
from xinfer_runtime.catalog.families import Family
from xinfer_runtime.catalog.model_kind import LLM
from xinfer_runtime.errors import Conflict, InvalidRequest, ModelNotFound, Overloaded, Unavailable, XinferError

MAX_MODELS = 1000


@dataclass(frozen=True)
class Registration:
    family: Family
    definition: dict[str, Any]
    """What was registered, field by field, with `is_builtin`."""
    file: Path | None


class Registrations:
    """`folder` is made when the first model is kept. Names are the same in any case."""

    def __init__(self, folder: Path, log: logging.Logger | logging.LoggerAdapter[logging.Logger]) -> None:
        self._folder = folder
        self._by_name: dict[str, Registration] = {}
        self._changing = asyncio.Lock()
        for file in sorted(folder.glob("*.json"))[:MAX_MODELS]:
            try:
                self._hold(_read(file), file)
            except (OSError, UnicodeError, XinferError) as error:
                log.error("The registered model in %s is not used: %s", file, error)

    def families(self) -> tuple[Family, ...]:
        return tuple(each.family for each in self._by_name.values())

    def find(self, name: str) -> Registration | None:
        return self._by_name.get(name.lower())

    async def add(self, text: str, *, persist: bool) -> None:
        """Register the model that the JSON `text` defines; with `persist`, also for the server's next start.

        Raises InvalidRequest naming the field at fault, and Conflict for a name that is taken.
        """
        family, _ = parse_custom_model(text)
        async with self._changing:
            if self.find(family.name) is not None:
                raise Conflict(f"A model {family.name} is registered already; unregister it first.", param="model_name")
            if len(self._by_name) >= MAX_MODELS:
                raise Overloaded(f"{MAX_MODELS} models are registered; unregister some first.")
            file = self._folder / _file_name(family.name) if persist else None
            if file is not None:
                await self._change(_write, file, text)
            self._hold(text, file)

    async def remove(self, name: str) -> None:
        """Forget a registered model. Replicas of it go on. Raises ModelNotFound."""
        async with self._changing:
            registration = self.find(name)
            if registration is None:
                raise ModelNotFound(f"No model {name!r:.120} is registered.", param="model_name")
            if registration.file is not None:
                await self._change(registration.file.unlink, True)
            del self._by_name[name.lower()]

    async def _change(self, change: Callable[..., None], *arguments: Any) -> None:
        """Do that to a file, in a thread. Raises Unavailable where the disk does not take it."""
        try:
            await asyncio.to_thread(change, *arguments)
        except OSError as error:
            reason = error.strerror or type(error).__name__
            raise Unavailable(
                f"Registrations cannot be kept on the server's disk: {reason}. Nothing was changed.",
                place=f"{self._folder}: {error}",
            ) from error

    def _hold(self, text: str, file: Path | None) -> None:
        family, definition = parse_custom_model(text)
        self._by_name[family.name.lower()] = Registration(family, definition, file)


def definition_text(model: Any, model_type: str = LLM) -> str:
    """The JSON text of a registration's `model`: Xinference's client sends a string, a person perhaps an object.

    The definition of anything but an LLM says so, for whoever reads it again.
    """
    if isinstance(model, str):
        if len(model) <= MAX_BYTES and deeper_than(model.encode("utf-8", "surrogatepass")):
            raise InvalidRequest(f"`model` is nested deeper than {MOST} levels.", param="model")
        if model_type == LLM or len(model) > MAX_BYTES:
            return model
        try:
            model = msgspec.json.decode(model)
        except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
            raise InvalidRequest(f"`model` is not the JSON of a custom model: {error}", param="model") from None
    if isinstance(model, dict):
        return msgspec.json.encode(model if model_type == LLM else {**model, "model_type": model_type}).decode()
    raise InvalidRequest("`model` must be the JSON of a custom model, as a string.", param="model")


def _file_name(name: str) -> str:
    readable = re.sub(r"[^a-z0-9]+", "-", name.lower())[:40].strip("-")
    return f"{readable}-{hashlib.sha256(name.lower().encode()).hexdigest()[:16]}.json"


def _read(file: Path) -> str:
    if file.stat().st_size > MAX_BYTES:
        raise InvalidRequest(f"it is larger than {MAX_BYTES // 1024} KiB")
    return file.read_text(encoding="utf-8")


def _write(file: Path, text: str) -> None:
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    aside = file.with_suffix(".new")
    descriptor = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
        stream.write(text)
        stream.flush()
        os.fsync(stream.fileno())
    aside.replace(file)
