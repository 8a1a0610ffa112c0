"""The names of the files that a split model consists of: `name-00001-of-00003.gguf` and so on."""

import re
from pathlib import Path

_PART = re.compile(r"(?P<prefix>.+)-00001-of-(?P<count>\d{5})\.gguf")


def part_paths(first: Path, count: int) -> list[Path]:
    """All parts of a model, of which `first` is the first and says that there are `count`.

    Raises ValueError where the name does not say so, since llama.cpp finds the other parts by it.
    """
    found = _PART.fullmatch(first.name)
    if found is None or int(found["count"]) != count:
        raise ValueError(f"it is the first of {count} parts and must be called ...-00001-of-{count:05}.gguf")
    return [first.with_name(f"{found['prefix']}-{number:05}-of-{count:05}.gguf") for number in range(1, count + 1)]
