"""The models that can be launched by name: the packaged ones, those that people register, and their files."""

import asyncio
import os
import re
from importlib import resources
from pathlib import Path
from typing import Any

from msgspec import Struct

from jupyter_xinfer.auth.node_files import files_of_registration
from jupyter_xinfer.auth.permissions import MODELS_LIST, MODELS_REGISTER, MODELS_UNREGISTER
from jupyter_xinfer.auth.principal import current_principal
from jupyter_xinfer.handlers.base import XinferHandler, endpoint
from jupyter_xinfer.protocol.answers import CachedFiles, Registered
from jupyter_xinfer.protocol.decoding import decode
from jupyter_xinfer.protocol.model_objects import registration_object
from jupyter_xinfer.protocol.openapi import Takes
from jupyter_xinfer.protocol.xinference_objects import (
    cached_objects,
    definition_object,
    downloaded_object,
    engines_object,
    model_versions,
)
from jupyter_xinfer.registrations import definition_text
from xinfer_runtime.catalog.custom import parse_custom_model
from xinfer_runtime.catalog.families import Family, families
from xinfer_runtime.catalog.hub_files import HubFiles
from xinfer_runtime.catalog.hub_reference import is_hub_reference
from xinfer_runtime.catalog.model_kind import MODEL_TYPES
from xinfer_runtime.errors import Conflict, InvalidRequest, ModelNotFound, NotFound, PermissionDenied, Unavailable
from xinfer_runtime.models import ModelSpec


class RegisterRequest(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The body of `POST /v1/model_registrations/{type}`. `model` is the definition, itself JSON in a string."""

    model: Any
    persist: bool = False
    worker_ip: str | None = None


class CatalogHandler(XinferHandler):
    """What the handlers of this module share: the models by name."""

    def known(self, model_type: str = "LLM") -> list[Family]:
        return [
            family for family in (*families(), *self.service.registrations.families()) if _same(family.type, model_type)
        ]

    def hub_files(self) -> HubFiles:
        """The downloads on this machine."""
        return HubFiles({**os.environ, "XINFER_HOME": str(self.service.config.home)})

    def in_use(self, spec: ModelSpec, what: str, param: str) -> Conflict:
        """Without the name of a model that the caller may not see."""
        seen = current_principal().may_use(spec.uid)
        who = f"The model {spec.uid!r}" if seen else "A running model that you may not see"
        then = "Terminate it first." if seen else "It has to be terminated first, by whoever may."
        return Conflict(f"{who} uses {what}. {then}", param=param)

    def find(self, model_type: str, name: str) -> Family:
        for family in self.known(model_type):
            if family.name.lower() == name.lower():
                return family
        raise ModelNotFound(f"No model {name!r:.120} of type {model_type!r:.40} is registered.", param="model_name")


class RegistrationsHandler(CatalogHandler):
    @endpoint(MODELS_LIST, gives=list[Registered])
    async def get(self, model_type: str) -> None:
        self.reply([registration_object(family) for family in self.known(model_type)])

    @endpoint(MODELS_REGISTER, takes=Takes(RegisterRequest), gives=None)
    async def post(self, model_type: str) -> None:
        kind = next((each for each in MODEL_TYPES if _same(each, model_type)), None)
        if kind is None:
            raise InvalidRequest(
                f"Models of type {model_type!r:.40} cannot be registered here; {', '.join(MODEL_TYPES)} can.",
                param="type",
            )
        request = decode(self.request.body, RegisterRequest)
        if request.worker_ip:
            raise InvalidRequest("`worker_ip`: a model is registered for the whole cluster.", param="worker_ip")
        text = definition_text(request.model, kind)
        family, _ = parse_custom_model(text)
        self.service.node_files.require(current_principal(), files_of_registration(family))
        await self.service.registrations.add(text, persist=request.persist)
        self.reply(None)


class RegistrationHandler(CatalogHandler):
    @endpoint(MODELS_LIST)
    async def get(self, model_type: str, name: str) -> None:
        family = self.find(model_type, name)
        registration = self.service.registrations.find(name)
        self.reply(registration.definition if registration is not None else definition_object(family))

    @endpoint(MODELS_UNREGISTER, gives=None)
    async def delete(self, model_type: str, name: str) -> None:
        if self.find(model_type, name).builtin:
            raise InvalidRequest(f"{name} comes with the package and cannot be unregistered.", param="model_name")
        for spec in self.service.models.specs():
            if spec.name.lower() == name.lower() and not current_principal().may_use(spec.uid):
                raise self.in_use(spec, name, "model_name")
        await self.service.registrations.remove(name)
        self.reply(None)


class EnginesHandler(CatalogHandler):
    """By engine, the formats, sizes and quantizations that a model can be launched with."""

    @endpoint(MODELS_LIST)
    async def get(self, *type_and_name: str) -> None:
        *types, name = type_and_name
        self.reply(engines_object(self.find(types[0] if types else "LLM", name)))


class CachedModelsHandler(CatalogHandler):
    """The model files on this server's machine. Those that were downloaded can be removed, unless a model uses them."""

    @endpoint(MODELS_LIST, takes=Takes(query=("model_name",)), gives=CachedFiles)
    async def get(self) -> None:
        wanted = self.get_query_argument("model_name", "").lower()
        found = [family for family in self.known() if wanted in ("", family.name.lower())]
        listed = await asyncio.to_thread(_cached, found)
        listed += [
            each
            for each in await asyncio.to_thread(_downloaded, self.hub_files())
            if wanted in ("", each["model_name"].lower())
        ]
        self.reply({"list": listed})

    @endpoint(MODELS_UNREGISTER, takes=Takes(required_query=("model_version",)))
    async def delete(self) -> None:
        version = self.get_query_argument("model_version")
        if (paths := await asyncio.to_thread(_paths_of, self.hub_files(), version)) is not None:
            self._refuse_if_used(version, paths)
            await asyncio.to_thread(_remove, paths)
            self.reply({"result": True})
            return
        if not any(version in model_versions(family) for family in self.known()):
            raise NotFound(f"There is no cached model {version!r:.200}.", param="model_version")
        raise PermissionDenied(
            f"The files of {version} were not downloaded by this server: packaged files go with the package, and "
            "registered ones belong to whoever put them there. Remove them there.",
            param="model_version",
        )

    def _refuse_if_used(self, version: str, paths: list[Path]) -> None:
        """Whoever uses it: the files are gone for all."""
        files = self.hub_files()
        folder = files.reference(version).folder()
        for spec in self.service.models.specs():
            for file in files_of(spec):
                of_hub = is_hub_reference(file)
                if files.reference(file).folder() == folder if of_hub else Path(file).expanduser() in paths:
                    raise self.in_use(spec, version, "model_version")


class CachedFilesHandler(CatalogHandler):
    """What removing a cached model deletes."""

    @endpoint(MODELS_LIST, takes=Takes(required_query=("model_version",)))
    async def get(self) -> None:
        version = self.get_query_argument("model_version")
        paths = await asyncio.to_thread(_paths_of, self.hub_files(), version) or []
        self.reply({"model_version": version, "worker_ip": None, "paths": [str(path) for path in paths]})


def files_of(spec: ModelSpec) -> list[str]:
    """What a model was launched from, as the launch named it: its own file, and whatever its options name."""
    found, waiting = [spec.path], list(spec.engine_options.values())
    while waiting:
        value = waiting.pop()
        if isinstance(value, str):
            found.append(value)
        elif isinstance(value, dict | list):
            waiting += value.values() if isinstance(value, dict) else value
    return [file for file in found if file]


def _downloaded(files: HubFiles) -> list[dict[str, Any]]:
    return [downloaded_object(reference, files.paths(reference)) for reference in files.downloads()]


def _paths_of(files: HubFiles, version: str) -> list[Path] | None:
    """The files of the download of that name. It is compared with what is there, and never made a path."""
    return next((files.paths(each) for each in files.downloads() if str(each) == version), None)


def _remove(paths: list[Path]) -> None:
    for path in paths:
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            raise Unavailable(
                f"{path.name} cannot be removed from the server's disk: {error.strerror}.", place=str(path)
            ) from error


def _cached(models: list[Family]) -> list[dict[str, Any]]:
    packaged = Path(str(resources.files("xinfer_runtime.catalog").joinpath("data")))
    return [each for family in models for each in cached_objects(family, packaged)]


def _same(a: str, b: str) -> bool:
    return re.sub(r"\W", "", a).lower() == re.sub(r"\W", "", b).lower()
