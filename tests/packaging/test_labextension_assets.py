"""When the panel's assets are built, and what that asks for."""

from pathlib import Path

import labextension_assets as assets
import pytest


@pytest.fixture
def source(tmp_path: Path) -> Path:
    root = tmp_path / "labextension"
    (root / "src").mkdir(parents=True)
    (root / "package.json").write_text("{}")
    (root / "src" / "index.ts").write_text("export {};")
    return root


def test_digest_does_not_depend_on_generated_files(source: Path) -> None:
    before = assets.source_digest(source)
    (source / "lib").mkdir()
    (source / "lib" / "index.js").write_text("compiled")
    assert assets.source_digest(source) == before


@pytest.mark.parametrize("path", ["package.json", "yarn.lock", "tsconfig.json", "src/index.ts", "style/icons/new.svg"])
def test_digest_depends_on_every_source(source: Path, path: str) -> None:
    before = assets.source_digest(source)
    changed = source / path
    changed.parent.mkdir(parents=True, exist_ok=True)
    changed.write_text("changed")
    assert assets.source_digest(source) != before


def test_digest_depends_on_names(source: Path) -> None:
    before = assets.source_digest(source)
    (source / "src" / "index.ts").rename(source / "src" / "main.ts")
    assert assets.source_digest(source) != before


def test_assets_are_fresh_until_a_source_changes(source: Path, tmp_path: Path) -> None:
    output = tmp_path / "output"
    output.mkdir()
    assert not assets.is_fresh(source, output)
    (output / ".source-digest").write_text(assets.source_digest(source))
    assert assets.is_fresh(source, output)
    (source / "src" / "index.ts").write_text("export const answer = 42;")
    assert not assets.is_fresh(source, output)


@pytest.mark.parametrize("version", ["v20.19.0", "v20.20.2", "v22.12.0", "v24.1.0\n", "v26.0.0-nightly20260101"])
def test_node_that_rspack_runs_on(version: str) -> None:
    assert assets.node_is_fit(version)


@pytest.mark.parametrize("version", ["v18.20.0", "v20.18.3", "v21.7.0", "v22.11.0", "", "20.19.0", "node: not found"])
def test_node_that_it_does_not_run_on(version: str) -> None:
    assert not assets.node_is_fit(version)


@pytest.mark.parametrize(
    ("skip", "fresh", "has_node", "expected"),
    [
        (False, False, True, [assets.BUILDER]),
        (False, False, False, [assets.BUILDER, assets.NODE_WHEEL]),
        (False, True, False, []),
        (True, False, False, []),
    ],
)
def test_build_asks_for_node_only_where_it_is_needed(
    skip: bool, fresh: bool, has_node: bool, expected: list[str]
) -> None:
    assert assets.build_requirements(skip=skip, fresh=fresh, has_node=has_node) == expected


@pytest.mark.parametrize(("value", "skipped"), [("1", True), ("yes", True), ("0", False), ("", False)])
def test_server_only_install_is_asked_for_by_the_environment(
    monkeypatch: pytest.MonkeyPatch, value: str, skipped: bool
) -> None:
    monkeypatch.setenv(assets.SKIP_VARIABLE, value)
    assert assets.is_skipped() == skipped


def test_unfit_node_is_not_used(tmp_path: Path) -> None:
    node = tmp_path / "node"
    node.write_text("#!/bin/sh\necho v18.20.0\n")
    node.chmod(0o755)
    assert assets.fit_node_on_path(str(tmp_path)) is None
    node.write_text("#!/bin/sh\necho v22.12.0\n")
    assert assets.fit_node_on_path(str(tmp_path)) == str(node)


def test_without_node_the_error_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(assets, "fit_node_on_path", lambda path=None: None)
    monkeypatch.setattr(assets, "find_spec", lambda name: None)
    with pytest.raises(assets.AssetError, match=r"needs Node\.js .* XINFER_SKIP_LABEXTENSION=1"):
        assets.tool_environment()
