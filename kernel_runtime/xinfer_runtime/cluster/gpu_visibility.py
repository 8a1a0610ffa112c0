"""Which GPUs a process may use: the environment that CUDA and ROCm read, in both directions."""

from collections.abc import Mapping, Sequence

from xinfer_runtime.cluster.protocol import Gpu

_VARIABLES = {"nvidia": ("CUDA_VISIBLE_DEVICES",), "amd": ("ROCR_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES")}
_HIDE = {"CUDA_VISIBLE_DEVICES": "", "ROCR_VISIBLE_DEVICES": ""}


def visible(gpus: Sequence[Gpu], environ: Mapping[str, str]) -> tuple[Gpu, ...]:
    """Those of `gpus` that whoever started this process left to it.

    A batch system, a container or dask-cuda hands out a part of the machine by such a variable: positions in the list
    of the vendor's GPUs, or (beginnings of) UUIDs. As CUDA does it, the list ends at the first entry that names none.
    """
    kept: list[Gpu] = []
    for vendor, variables in _VARIABLES.items():
        own = [gpu for gpu in gpus if gpu.vendor == vendor]
        for variable in variables:
            if variable in environ:
                own = _chosen(own, environ[variable])
        kept += own
    return tuple(sorted(kept, key=lambda gpu: (gpu.vendor != "nvidia", gpu.index)))


def visible_devices(uuids: Sequence[str], gpus: Sequence[Gpu]) -> dict[str, str]:
    """The variables that leave a process exactly the GPUs `uuids` of the node's `gpus`: none for a replica on CPUs."""
    vendors = {gpu.uuid: gpu.vendor for gpu in gpus}
    environment = dict(_HIDE)
    for vendor, (variable, *_) in _VARIABLES.items():
        own = [uuid for uuid in uuids if vendors.get(uuid, "nvidia") == vendor]
        if own:
            environment[variable] = ",".join(own)
    return environment


def _chosen(gpus: list[Gpu], value: str) -> list[Gpu]:
    chosen: list[Gpu] = []
    for entry in value.split(","):
        name = entry.strip()
        found = [gpu for gpu in gpus if _names(name, gpu)]
        if not found:
            break
        chosen += [gpu for gpu in found if gpu not in chosen]
    return chosen


def _names(entry: str, gpu: Gpu) -> bool:
    if entry.isdecimal():
        return gpu.index == int(entry)
    return bool(entry) and (gpu.uuid.startswith(entry) or gpu.parent.startswith(entry))
