"""When `make` installs again, and how."""

from pathlib import Path

import install_venv
import pytest


def _create(venv: Path) -> None:
    (venv / "bin").mkdir(parents=True)
    (venv / "bin" / "python").touch()


def test_nothing_is_installed_while_nothing_changed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    installs: list[str] = []
    monkeypatch.setattr(install_venv, "create", _create)
    monkeypatch.setattr(install_venv, "install", lambda venv, extras, needs_node: installs.append(extras))
    digests = iter(["one", "one", "two"])
    monkeypatch.setattr(install_venv, "install_digest", lambda extras: next(digests))
    arguments = ["--venv", str(tmp_path / "venv"), "--extras", "lab"]
    assert [install_venv.main(arguments) for _ in range(2)] == [0, 0]
    assert installs == ["lab"]
    install_venv.main(arguments)
    assert installs == ["lab", "lab"]


def test_failed_install_is_tried_again(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def fail(venv: Path, extras: str, needs_node: bool) -> None:
        raise install_venv.InstallError("pip ended with status 1")

    monkeypatch.setattr(install_venv, "create", _create)
    monkeypatch.setattr(install_venv, "install", fail)
    arguments = ["--venv", str(tmp_path / "venv"), "--extras", "lab"]
    assert [install_venv.main(arguments) for _ in range(2)] == [1, 1]


def test_digest_tells_extras_apart() -> None:
    assert install_venv.install_digest("lab") == install_venv.install_digest("lab")
    assert install_venv.install_digest("lab") != install_venv.install_digest("lab,test")


def test_pip_gets_the_constraints_and_the_extras() -> None:
    arguments = install_venv.pip_arguments("lab,llama-cpp", wheel_index=None, needs_node=False)
    assert str(install_venv.CONSTRAINTS) in arguments
    assert arguments[-1].endswith("[lab,llama-cpp]")
    assert "--extra-index-url" not in arguments


def test_an_index_of_prebuilt_wheels_is_preferred_to_compiling() -> None:
    arguments = install_venv.pip_arguments("llama-cpp", wheel_index="https://example.org/whl", needs_node=False)
    assert arguments[arguments.index("--extra-index-url") + 1] == "https://example.org/whl"
    assert "--prefer-binary" in arguments
