"""The model families that can be launched by name. Every one of them can really be launched."""

from functools import cache
from importlib import resources

import msgspec
from msgspec import Struct


class FamilySpec(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One format and size of a family. `quantizations` maps each label to the packaged file, or to a path on the nodes
    for a model that somebody registered."""

    format: str
    size_in_billions: str
    quantizations: dict[str, str]


class Family(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A model by name. `context_length` is what its files were trained for; `family` where it is not the name."""

    name: str
    description: str
    abilities: tuple[str, ...]
    languages: tuple[str, ...]
    context_length: int
    specs: tuple[FamilySpec, ...]
    type: str = "LLM"
    family: str | None = None
    builtin: bool = True

    def has_file(self, file: str) -> bool:
        return any(file in spec.quantizations.values() for spec in self.specs)


@cache
def families() -> tuple[Family, ...]:
    """All families, in the order in which to show them."""
    raw = resources.files(__package__).joinpath("families.json").read_bytes()
    return msgspec.json.decode(raw, type=tuple[Family, ...])


def find_family(name: str) -> Family | None:
    """The family of that name, in any case."""
    return next((family for family in families() if family.name.lower() == name.lower()), None)
