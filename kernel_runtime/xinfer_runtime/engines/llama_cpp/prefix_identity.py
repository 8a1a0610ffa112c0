"""What saved prefixes were computed with. Cells are worth nothing to whatever differs in any of it."""

import hashlib
import os
import sys
from collections.abc import Mapping
from pathlib import Path

import llama_cpp
import msgspec

from xinfer_runtime import __version__
from xinfer_runtime.catalog.gguf_facts import GgufFile
from xinfer_runtime.catalog.gguf_parts import part_paths
from xinfer_runtime.catalog.lora_file import adapter_path
from xinfer_runtime.engines.llama_cpp.options import Options
from xinfer_runtime.engines.llama_cpp.prefix_file import PrefixFile

_SAMPLES, _SAMPLE_BYTES = 64, 4096


def prefix_file(
    uid: str, file: GgufFile, options: Options, sizes: tuple[int, ...], environ: Mapping[str, str] = os.environ
) -> PrefixFile:
    """Where the prefixes of a model are kept on this node while it is not loaded. `sizes` are those of its context.

    There is one file for a model's name and path, so that what is of no use any more is replaced and does not gather.
    Raises OSError where the files of the model are gone.
    """
    home = Path(environ.get("XINFER_HOME") or "~/.xinfer").expanduser().absolute()
    name = hashlib.sha256(msgspec.msgpack.encode((uid, str(file.path.absolute())))).hexdigest()[:32]
    return PrefixFile(home / "prefixes" / name, identity(file, options, sizes))


def identity(file: GgufFile, options: Options, sizes: tuple[int, ...]) -> bytes:
    """32 bytes that stand for the model's files, its adapters, this version and whatever changes or lays out cells."""
    parts = _parts(file)
    with open(file.path, "rb") as stream:
        header = hashlib.sha256(stream.read(file.data_start)).digest()
    adapters = [(name, adapter.scale, _stamp(adapter_path(adapter))) for name, adapter in sorted(options.lora.items())]
    facts = (
        (__version__, llama_cpp.__version__, sys.byteorder),
        (header, [_stamp(part) for part in parts], adapters),
        (options.cache_type_k, options.cache_type_v, options.flash_attention, options.n_gpu_layers, sizes),
    )
    return hashlib.sha256(msgspec.msgpack.encode(facts)).digest()


def state_identity(created: float, file: GgufFile, options: Options, sizes: tuple[int, ...]) -> str:
    """64 hexadecimal digits, the same on another node, where files have other paths and times. `created` is the time of
    the launch, since a file may be replaced by one that looks the same between two launches.
    """
    parts = _parts(file)
    adapters = [(name, adapter.scale, _sample(adapter_path(adapter))) for name, adapter in sorted(options.lora.items())]
    facts = (
        (__version__, llama_cpp.__version__, sys.byteorder, created),
        ([_sample(part) for part in parts], adapters),
        (options.cache_type_k, options.cache_type_v, options.flash_attention, sizes),
    )
    return hashlib.sha256(msgspec.msgpack.encode(facts)).hexdigest()


def _parts(file: GgufFile) -> list[Path]:
    count = file.metadata.get("split.count", 1)
    return list(part_paths(file.path, count)) if isinstance(count, int) and count > 1 else [file.path]


def _sample(path: Path) -> tuple[int, bytes]:
    """A file's size, and a digest of its beginning and of places all over it."""
    size = path.stat().st_size
    digest = hashlib.sha256()
    with open(path, "rb") as stream:
        for place in range(_SAMPLES):
            stream.seek(place * max(size - _SAMPLE_BYTES, 0) // (_SAMPLES - 1))
            digest.update(stream.read(_SAMPLE_BYTES))
    return size, digest.digest()


def _stamp(path: Path) -> tuple[str, int, int]:
    status = path.stat()
    return str(path.absolute()), status.st_size, status.st_mtime_ns
