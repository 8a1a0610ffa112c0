"""Custom models: the JSON that people register under a name of their own, in both of Xinference's versions.

Version 1 lists `quantizations` in each spec, version 2 has one spec per `quantization`; `model_type` says what a model
is for that generates no text. Only what can be launched here is taken: GGUF files (`ggufv2`), which lie on the nodes or
on a hub, named by `model_uri`, or on a hub by `model_id`. The text comes from strangers: it is bounded, typed and
checked here, and never becomes a path of ours.
"""

import re
from typing import Annotated, Any
from urllib.parse import unquote, urlsplit

import msgspec
from msgspec import Meta, Struct

from xinfer_runtime.catalog.families import Family, FamilySpec, find_family
from xinfer_runtime.catalog.hub_reference import HUBS, is_hub_reference, parse_hub_reference
from xinfer_runtime.catalog.model_kind import ABILITIES, EMBEDDING, LLM, MODEL_TYPES, RERANK
from xinfer_runtime.errors import Conflict, InvalidRequest

MAX_BYTES = 256 * 1024
MAX_PATH = 4096
_NAME = re.compile(r"[^+\\/?%#&=\s\x00-\x1f\x7f]{1,100}")
_SIZE = re.compile(r"\d{1,6}([._]\d{1,6})?")
_LABEL = re.compile(r"[A-Za-z0-9._-]{1,40}")
_FORMAT = "ggufv2"
_DEFAULT_CONTEXT = {LLM: 2048, EMBEDDING: 512, RERANK: 512}

ShortText = Annotated[str, Meta(min_length=1, max_length=100)]
ShortTexts = Annotated[list[ShortText], Meta(max_length=64)]


class _Spec(Struct, kw_only=True):
    model_format: ShortText
    model_size_in_billions: int | float | str | None = None
    model_uri: Annotated[str, Meta(max_length=MAX_PATH)] | None = None
    model_id: ShortText | None = None
    model_hub: ShortText | None = None
    model_revision: ShortText | None = None
    quantization: str | None = None
    quantizations: ShortTexts | None = None
    model_file_name_template: Annotated[str, Meta(max_length=200)] | None = None


class _Definition(Struct, kw_only=True):
    model_name: str
    model_specs: Annotated[list[_Spec], Meta(min_length=1, max_length=64)]
    version: int = 1
    model_type: str = LLM
    model_lang: ShortTexts = []
    language: ShortTexts = []
    max_tokens: Annotated[int, Meta(ge=1, le=1 << 24)] | None = None
    model_ability: ShortTexts = []
    model_description: Annotated[str, Meta(max_length=4000)] | None = None
    model_family: ShortText | None = None
    context_length: Annotated[int, Meta(ge=1, le=1 << 24)] | None = None
    chat_template: str | None = None


def parse_custom_model(text: str) -> tuple[Family, dict[str, Any]]:
    """The model that a registered JSON text defines, and the definition itself for whoever asks for it back.

    Raises InvalidRequest, with `param` naming the field at fault, and Conflict for the name of a packaged model.
    """
    if len(text) > MAX_BYTES or len(text.encode(errors="replace")) > MAX_BYTES:
        raise InvalidRequest(f"`model` is larger than {MAX_BYTES // 1024} KiB", param="model")
    try:
        raw = msgspec.json.decode(text, type=dict[str, Any])
        # Names of fields are checked by their types; what other engines need of a definition is kept and not used.
        definition = msgspec.convert(raw, _Definition)
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        raise InvalidRequest(f"`model` is not the JSON of a custom model: {error}", param="model") from None
    if definition.version not in (1, 2):
        raise InvalidRequest(f"`version` must be 1 or 2, not {definition.version}", param="version")
    name = check_name(definition.model_name)
    if find_family(name) is not None:
        raise Conflict(f"{name} is the name of a packaged model; choose another", param="model_name")
    if definition.model_type not in MODEL_TYPES:
        raise InvalidRequest(f"`model_type` is one of {', '.join(MODEL_TYPES)}", param="model_type")
    family = Family(
        name=name,
        type=definition.model_type,
        family=definition.model_family,
        description=definition.model_description or "",
        abilities=ABILITIES.get(definition.model_type) or tuple(definition.model_ability),
        languages=tuple(definition.model_lang or definition.language),
        context_length=definition.context_length or definition.max_tokens or _DEFAULT_CONTEXT[definition.model_type],
        specs=_specs(definition.model_specs, sized=definition.model_type == LLM),
        builtin=False,
    )
    return family, {**raw, "is_builtin": False}


def check_name(name: str) -> str:
    """`name` if a custom model may have it. Raises InvalidRequest saying why not."""
    if not _NAME.fullmatch(name) or not name.strip("."):
        raise InvalidRequest(
            rf"model_name {name!r:.120}: use 1 to 100 characters, none of + \ / ? % # & = or space", param="model_name"
        )
    return name


def _specs(given: list[_Spec], *, sized: bool) -> tuple[FamilySpec, ...]:
    """One spec per size, with the path of each quantization's file. Only models that are `sized` need a size."""
    files: dict[str, dict[str, str]] = {}
    for index, spec in enumerate(given):
        field = f"model_specs[{index}]"
        if spec.model_format.lower() != _FORMAT:
            raise InvalidRequest(
                f"`{field}.model_format` is {spec.model_format!r}; this server launches {_FORMAT}",
                param=f"{field}.model_format",
            )
        if sized and spec.model_size_in_billions is None:
            raise InvalidRequest(
                f"`{field}.model_size_in_billions` is required", param=f"{field}.model_size_in_billions"
            )
        of_size = files.setdefault(_size(spec.model_size_in_billions, field), {})
        for label in spec.quantizations or [spec.quantization or "none"]:
            if not _LABEL.fullmatch(label):
                raise InvalidRequest(f"`{field}`: {label!r:.80} is no quantization", param=f"{field}.quantization")
            if label.lower() in map(str.lower, of_size):
                raise InvalidRequest(f"`{field}`: {label} is there twice in that size", param=f"{field}.quantization")
            of_size[label] = _file(spec, label, field)
    return tuple(
        FamilySpec(format=_FORMAT, size_in_billions=size, quantizations=labels) for size, labels in files.items()
    )


def _size(size: int | float | str | None, field: str) -> str:
    if size is None:
        return ""
    text = size if isinstance(size, str) else f"{size:g}"
    if not _SIZE.fullmatch(text):
        raise InvalidRequest(
            f"`{field}.model_size_in_billions` must be a number such as 7 or 0_5, not {size!r:.40}",
            param=f"{field}.model_size_in_billions",
        )
    return text.replace(".", "_")


def _file(spec: _Spec, label: str, field: str) -> str:
    """The path that `model_uri` names, the file itself or a folder with `model_file_name_template` in it, or the
    reference to such a file of the model `model_id` on a hub."""
    param = f"{field}.model_uri"
    if is_hub_reference(spec.model_uri or ""):
        path = (spec.model_uri or "").replace("{quantization}", label)
    elif not spec.model_uri and spec.model_id is not None:
        param = f"{field}.model_id"
        path = _hub_folder(spec, param)
    else:
        path = _local_path(spec.model_uri, param).replace("{quantization}", label)
    if not path.lower().endswith(".gguf"):
        template = (spec.model_file_name_template or "").replace("{quantization}", label)
        if not template.lower().endswith(".gguf") or "/" in template or "\\" in template or "\0" in template:
            raise InvalidRequest(
                f"`{param}` must name a .gguf file, or a folder that has the .gguf file of `model_file_name_template`",
                param=param,
            )
        path = f"{path.rstrip('/')}/{template}"
    if is_hub_reference(path):
        try:
            parse_hub_reference(path)
        except InvalidRequest as error:
            raise InvalidRequest(f"`{param}`: {error}", param=param) from None
    return path


def _hub_folder(spec: _Spec, param: str) -> str:
    hub = (spec.model_hub or "hub").lower()
    if hub not in ("hub", *HUBS):
        raise InvalidRequest(f"`{param}`: model_hub {spec.model_hub!r:.80}; there is {', '.join(HUBS)}", param=param)
    return f"{hub}://{spec.model_id}" + (f"@{spec.model_revision}" if spec.model_revision else "")


def _local_path(uri: str | None, param: str) -> str:
    if not uri:
        raise InvalidRequest(
            f"`{param}` is required: the file on the nodes, as file:///path/model.gguf, or on a hub, as "
            "hf://owner/model/model.gguf; or `model_id`",
            param=param,
        )
    if uri.startswith("/"):
        path = uri
    else:
        try:
            parts = urlsplit(uri)
        except ValueError:
            raise InvalidRequest(f"`{param}` {uri!r:.120} is no URI", param=param) from None
        if parts.scheme.lower() != "file" or parts.netloc not in ("", "localhost") or parts.query or parts.fragment:
            raise InvalidRequest(
                f"`{param}` {uri!r:.120}: files on the nodes can be launched, as file:///path/model.gguf, and those of "
                "hubs, as hf://owner/model/model.gguf",
                param=param,
            )
        path = unquote(parts.path)
    if "\0" in path or not path.startswith("/") or ".." in path.split("/"):
        raise InvalidRequest(f"`{param}` {uri!r:.120}: an absolute path without .. is needed", param=param)
    return path
