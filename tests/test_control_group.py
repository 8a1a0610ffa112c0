"""Cores by affinity and quota, and memory, of the groups around this process."""

import os
from pathlib import Path

import pytest

from xinfer_runtime.control_group import MemoryLimit, memory_limit, usable_cores


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


def group(root: Path, limit: object, used: int, cache: int = 0) -> None:
    root.mkdir(parents=True, exist_ok=True)
    (root / "memory.max").write_text(f"{limit}\n")
    (root / "memory.current").write_text(f"{used}\n")
    (root / "memory.stat").write_text(f"anon 1\ninactive_file {cache // 2}\nactive_file {cache - cache // 2}\n")


def own(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def test_memory_is_what_the_group_leaves(tmp_path: Path) -> None:
    group(tmp_path, 1_000_000, 700_000, cache=100_000)
    assert memory_limit(tmp_path, tmp_path / "none") == MemoryLimit(1_000_000, 400_000)


def test_the_groups_around_the_own_one_count_too(tmp_path: Path) -> None:
    group(tmp_path, "max", 0)
    group(tmp_path / "job", 1000, 900)
    group(tmp_path / "job" / "step", 800, 100)
    memory = memory_limit(tmp_path, own(tmp_path / "own", "0::/job/step\n"))
    assert memory == MemoryLimit(total=800, available=100)


def test_version_1_has_a_folder_for_each_controller(tmp_path: Path) -> None:
    folder = tmp_path / "memory" / "slurm" / "job"
    folder.mkdir(parents=True)
    (folder / "memory.limit_in_bytes").write_text("5000")
    (folder / "memory.usage_in_bytes").write_text("3000")
    (folder / "memory.stat").write_text("total_active_file 500\ntotal_inactive_file 500\n")
    (tmp_path / "cpu" / "job").mkdir(parents=True)
    (tmp_path / "cpu" / "job" / "cpu.cfs_quota_us").write_text("150000")
    (tmp_path / "cpu" / "job" / "cpu.cfs_period_us").write_text("100000")
    mine = own(tmp_path / "own", "4:memory:/slurm/job\n2:cpu,cpuacct:/job\n1:name=systemd:/\n")
    assert memory_limit(tmp_path, mine) == MemoryLimit(5000, 3000)
    assert usable_cores(tmp_path, mine) == 2


@pytest.mark.parametrize("limit", ["max", None])
def test_no_group_limits_memory(tmp_path: Path, limit: str | None) -> None:
    if limit is not None:
        group(tmp_path, limit, 5)
    assert memory_limit(tmp_path, tmp_path / "none") is None
