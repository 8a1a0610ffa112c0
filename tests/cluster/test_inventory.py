import os
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tests.cluster.fake_nvml import GIB, FakeGpu, FakeNvml

from xinfer_runtime.cluster.amd_gpus import amd_gpus, load_amdsmi
from xinfer_runtime.cluster.gpu_visibility import visible, visible_devices
from xinfer_runtime.cluster.inventory import NodeSurvey, machine_memory, private_memory
from xinfer_runtime.cluster.nvidia_gpus import load_nvml, nvidia_gpus
from xinfer_runtime.cluster.protocol import Gpu
from xinfer_runtime.engines.registry import installed_engines
from xinfer_runtime.errors import InvalidRequest
from xinfer_runtime.labels import parse_labels

MACHINE = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def test_a_gpu_is_read_with_name_memory_and_load() -> None:
    assert nvidia_gpus(FakeNvml(FakeGpu("GPU-a", free=100 * GIB))) == [
        Gpu(
            uuid="GPU-a",
            index=0,
            name="NVIDIA H200",
            memory_total=140 * GIB,
            memory_free=100 * GIB,
            utilisation=0.25,
        )
    ]


def test_a_divided_gpu_is_its_instances() -> None:
    instances = [FakeGpu("MIG-1", total=20 * GIB, busy=None), FakeGpu("MIG-2", total=40 * GIB, busy=None)]
    found = nvidia_gpus(FakeNvml(FakeGpu("GPU-a", instances=instances), FakeGpu("GPU-b", instances=[])))
    assert [(gpu.uuid, gpu.index, gpu.parent) for gpu in found] == [
        ("MIG-1", 0, "GPU-a"),
        ("MIG-2", 0, "GPU-a"),
        ("GPU-b", 1, ""),
    ]
    assert found[0].utilisation == 0


def test_a_gpu_that_is_lost_hides_no_other() -> None:
    assert [gpu.uuid for gpu in nvidia_gpus(FakeNvml(FakeGpu("GPU-a", broken=True), FakeGpu("GPU-b")))] == ["GPU-b"]


def test_a_machine_without_driver_has_no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", FakeNvml(driver=False))  # type: ignore[arg-type]
    assert load_nvml() is None
    assert nvidia_gpus(FakeNvml(driver=False)) == []
    monkeypatch.setitem(sys.modules, "pynvml", None)
    monkeypatch.setitem(sys.modules, "amdsmi", None)
    assert load_nvml() is None
    assert load_amdsmi() is None


def test_an_amd_gpu_is_read_in_the_units_of_its_library() -> None:
    def activity(handle: str) -> dict[str, Any]:
        return {"gfx_activity": 40 if handle == "a" else "N/A"}

    library = SimpleNamespace(
        AmdSmiException=OSError,
        amdsmi_get_processor_handles=lambda: ["a", "b", "c"],
        amdsmi_get_gpu_enumeration_info=lambda handle: {"hip_uuid": {"a": "GPU-1f", "b": "2f", "c": ""}[handle]},
        amdsmi_get_gpu_vram_usage=lambda _: {"vram_total": 192 * 1024, "vram_used": 2 * 1024},
        amdsmi_get_gpu_activity=activity,
        amdsmi_get_gpu_asic_info=lambda _: {"market_name": "MI300X"},
    )
    found = amd_gpus(library)  # type: ignore[arg-type]
    assert [(gpu.uuid, gpu.utilisation) for gpu in found] == [("GPU-1f", 0.4), ("GPU-2f", 0.0)]
    assert (found[0].memory_total, found[0].memory_free, found[0].vendor) == (192 * GIB, 190 * GIB, "amd")


def gpu(uuid: str, index: int, vendor: str = "nvidia", parent: str = "") -> Gpu:
    return Gpu(uuid=uuid, index=index, name="g", memory_total=1, memory_free=1, vendor=vendor, parent=parent)


@pytest.mark.parametrize(
    ("value", "left"),
    [
        (None, "abc"),
        ("", ""),
        ("2,0", "ca"),
        ("GPU-b", "b"),
        ("GPU-c,GPU-nowhere,GPU-a", "c"),
        ("-1,0", ""),
        ("1,1", "b"),
    ],
)
def test_a_batch_system_leaves_a_part_of_the_gpus(value: str | None, left: str) -> None:
    gpus = [gpu(f"GPU-{name}", index) for index, name in enumerate("abc")]
    environ = {} if value is None else {"CUDA_VISIBLE_DEVICES": value}
    assert {each.uuid for each in visible(gpus, environ)} == {f"GPU-{name}" for name in left}


def test_a_visible_gpu_is_visible_with_its_instances_and_the_vendors_are_apart() -> None:
    gpus = [gpu("MIG-1", 0, parent="GPU-a"), gpu("GPU-b", 1), gpu("GPU-z", 0, vendor="amd")]
    assert [each.uuid for each in visible(gpus, {"CUDA_VISIBLE_DEVICES": "GPU-a"})] == ["MIG-1", "GPU-z"]
    assert [each.uuid for each in visible(gpus, {"ROCR_VISIBLE_DEVICES": ""})] == ["MIG-1", "GPU-b"]


def test_a_replica_sees_its_own_gpus_and_one_on_cpus_none() -> None:
    gpus = [gpu("GPU-a", 0), gpu("GPU-b", 1), gpu("GPU-z", 0, vendor="amd")]
    assert visible_devices(["GPU-b", "GPU-a"], gpus)["CUDA_VISIBLE_DEVICES"] == "GPU-b,GPU-a"
    assert visible_devices(["GPU-z"], gpus) == {"CUDA_VISIBLE_DEVICES": "", "ROCR_VISIBLE_DEVICES": "GPU-z"}
    assert set(visible_devices([], gpus).values()) == {""}


def test_a_node_is_measured_again_each_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = FakeGpu("GPU-a")
    monkeypatch.setitem(sys.modules, "pynvml", FakeNvml(first, FakeGpu("GPU-b")))  # type: ignore[arg-type]
    environ = {"CUDA_VISIBLE_DEVICES": "0", "XINFER_LABELS": "zone=a, disk=fast"}
    survey = NodeSurvey("box", "10.0.0.7", tmp_path / "not there yet", environ)
    inventory = survey.measure()
    assert (inventory.label, inventory.address) == ("box", "10.0.0.7")
    assert [each.uuid for each in inventory.gpus] == ["GPU-a"]
    assert inventory.labels == {"zone": "a", "disk": "fast"}
    assert 0 < inventory.disk_free <= inventory.disk_total
    assert inventory.engines is not None
    assert inventory.engines["llama.cpp"].version == installed_engines()["llama.cpp"][0]
    first.free = GIB
    assert survey.measure().gpus[0].memory_free == GIB


@pytest.mark.parametrize(("device", "uuids"), [("cpu", []), ("cuda", ["GPU-a"]), ("rocm", []), ("floppy", ["GPU-a"])])
def test_a_node_computes_on_what_it_is_told_to(
    device: str, uuids: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", FakeNvml(FakeGpu("GPU-a")))  # type: ignore[arg-type]
    survey = NodeSurvey("box", "", tmp_path, {"XINFER_DEVICE": device})
    assert [each.uuid for each in survey.measure().gpus] == uuids
    assert ("XINFER_DEVICE" in caplog.text) == (device == "floppy")


def test_labels_that_cannot_be_read_do_not_keep_a_node_away(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert NodeSurvey("box", "", tmp_path, {"XINFER_LABELS": "zone"}).measure().labels == {}
    assert "write name=value" in caplog.text
    with pytest.raises(InvalidRequest, match="'=a'"):
        parse_labels("zone=b,=a")


def test_an_engine_built_for_gpus_is_told_by_its_libraries(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "lib").mkdir()
    location = SimpleNamespace(submodule_search_locations=[str(tmp_path)])
    monkeypatch.setattr("importlib.util.find_spec", lambda _: location)
    (tmp_path / "lib" / "libggml-cpu.so").touch()
    assert not installed_engines()["llama.cpp"][1]
    (tmp_path / "lib" / "libggml-cuda.so").touch()
    assert installed_engines()["llama.cpp"][1]
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    assert installed_engines() == {}


def test_memory_is_the_machines_or_the_groups(tmp_path: Path) -> None:
    assert machine_memory(tmp_path)[0] == MACHINE
    (tmp_path / "memory.max").write_text("1000000\n")
    (tmp_path / "memory.current").write_text("700000\n")
    assert machine_memory(tmp_path) == (1_000_000, 300_000)


def test_the_memory_of_a_process_and_of_none() -> None:
    assert 1 << 20 < private_memory(os.getpid()) < 1 << 40
    assert private_memory(2**22 - 1) == 0
