"""Usable cores: affinity and quota."""

import os
from pathlib import Path

import pytest

from xinfer_runtime.engines.llama_cpp.cores import threads_for, usable_cores


@pytest.fixture(autouse=True)
def eight_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)


def test_affinity_counts_without_control_groups(tmp_path: Path) -> None:
    assert usable_cores(tmp_path) == 8


@pytest.mark.parametrize(("quota", "cores"), [("250000 100000", 3), ("max 100000", 8), ("10000 100000", 1)])
def test_a_quota_of_version_2_counts(tmp_path: Path, quota: str, cores: int) -> None:
    (tmp_path / "cpu.max").write_text(quota + "\n")
    assert usable_cores(tmp_path) == cores


@pytest.mark.parametrize(("quota", "cores"), [("200000", 2), ("-1", 8)])
def test_a_quota_of_version_1_counts(tmp_path: Path, quota: str, cores: int) -> None:
    (tmp_path / "cpu").mkdir()
    (tmp_path / "cpu" / "cpu.cfs_quota_us").write_text(quota)
    (tmp_path / "cpu" / "cpu.cfs_period_us").write_text("100000")
    assert usable_cores(tmp_path) == cores


@pytest.mark.parametrize(("mebibytes", "threads"), [(4, 1), (64, 4), (8000, 8)])
def test_a_model_gets_as_many_threads_as_its_size_is_worth(mebibytes: int, threads: int) -> None:
    assert threads_for(mebibytes << 20, cores=8) == threads
