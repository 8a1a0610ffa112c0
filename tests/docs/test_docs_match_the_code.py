"""The docs name every route, option, series and command that there is, so that they cannot fall behind unnoticed."""

import re
from pathlib import Path
from unittest.mock import Mock

import pytest
from prometheus_client import CollectorRegistry

import xinfer_runtime.errors as errors
from jupyter_xinfer.app import XinferApp
from jupyter_xinfer.cli.main import build_parser
from jupyter_xinfer.handlers.base import UnknownRoute
from jupyter_xinfer.handlers.routes import routes
from jupyter_xinfer.load_metrics import ModelLoad
from jupyter_xinfer.metrics import Metrics
from xinfer_runtime.models import LaunchRequest
from xinfer_runtime.notebook.arguments import cell_parser, line_parser, option_names, subcommands

ROOT = Path(__file__).parents[2]
DOCS = {path.name: path.read_text() for path in [*ROOT.glob("docs/*.md"), ROOT / "README.md"]}


def test_every_route_is_documented() -> None:
    for pattern, handler, _ in routes(Mock()):
        if handler is UnknownRoute or "dask" in pattern:
            continue
        path = re.sub("(registrations|engines)/" + re.escape("([A-Za-z0-9._-]+)"), r"\1/LLM", pattern)
        path = path.replace("([A-Za-z0-9._-]+)", "{uid}").replace("([^/]+)", "{name}")
        assert any(f"`{verb} {path}`" in DOCS["api.md"] for verb in ("GET", "POST", "DELETE")), path


@pytest.mark.parametrize("name", sorted(XinferApp.class_own_traits(config=True)))
def test_every_option_of_the_service_is_documented(name: str) -> None:
    assert f"`{name}`" in DOCS["administration.md"]


@pytest.mark.parametrize("name", LaunchRequest.__struct_fields__)
def test_every_field_of_a_launch_is_documented(name: str) -> None:
    assert f"`{name}`" in DOCS["api.md"]


def test_every_series_is_documented() -> None:
    registry = CollectorRegistry()
    metrics = Metrics(registry)
    metrics.watch_load(lambda: {"m": ModelLoad()})

    for family in registry.collect():
        suffix = "_total" if family.type == "counter" else ""
        assert f"`{family.name}{suffix}`" in DOCS["administration.md"]


def codes(root: type[errors.XinferError]) -> set[str]:
    return {root.code}.union(*(codes(child) for child in root.__subclasses__()))


def test_every_error_code_in_the_docs_exists() -> None:
    table = DOCS["api.md"].split("| status | code | when |")[1].split("\n\n")[0]
    cells = [row.split("|")[2] for row in table.splitlines() if row.count("|") > 2]
    named = {code for cell in cells for code in re.findall(r"`([a-z_]+)`", cell)}

    assert named
    assert named <= codes(errors.XinferError)


def test_every_command_and_option_of_the_command_line_is_documented() -> None:
    commands = subcommands(build_parser())

    assert commands
    for name, command in commands.items():
        assert name in DOCS["cli.md"]
        for option in set(option_names(command)) - {"--help"}:
            assert option in DOCS["cli.md"], f"{name} {option}"


def test_every_word_of_the_magics_is_documented() -> None:
    for name, command in subcommands(line_parser()).items():
        assert f"%xinfer {name}" in DOCS["notebook.md"]
        for option in set(option_names(command)) - {"--help"}:
            assert option in DOCS["notebook.md"], f"{name} {option}"
    for option in set(option_names(cell_parser())) - {"--help"}:
        assert option in DOCS["notebook.md"], option


def test_links_between_the_docs_lead_somewhere() -> None:
    for page in [*ROOT.glob("docs/*.md"), ROOT / "README.md"]:
        for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text()):
            if "://" not in target:
                assert (page.parent / target).exists(), f"{page.name} -> {target}"
