"""Which layers go on which GPUs: arithmetic over the memory that is free, without llama.cpp."""

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

from xinfer_runtime.catalog.gguf_facts import GgufFile
from xinfer_runtime.engines.llama_cpp.options import Options, SplitMode
from xinfer_runtime.errors import InvalidRequest

ALL_LAYERS = -1

_MARGIN = 256 << 20
"""What stays free on each GPU, for what libraries take as they run."""


@dataclass(frozen=True)
class Gpu:
    """A GPU that this process sees; `index` is its number among llama.cpp's devices, memory in bytes."""

    index: int
    name: str
    free: int
    total: int


@dataclass(frozen=True)
class Offload:
    """How many of the last layers go on GPUs, the output counted as one, and how they are divided among `devices`."""

    layers: int = 0
    devices: tuple[int, ...] = ()
    split_mode: SplitMode = "layer"
    main_gpu: int = 0
    tensor_split: tuple[float, ...] = ()

    @property
    def on_gpu(self) -> bool:
        return self.layers != 0


def plan(gpus: Sequence[Gpu], wanted: int | None, options: Options, costs: Sequence[int], overhead: int) -> Offload:
    """The layers and GPUs for a model whose layers, the output last, take `costs` bytes each on a GPU.

    `wanted` is the launch's number of GPUs, None for those that there are; `overhead` what a pass takes on each. Raises
    InvalidRequest for what these GPUs cannot do; `param` names the option.
    """
    if wanted and wanted > len(gpus):
        raise InvalidRequest(f"n_gpu {wanted}: this process sees {len(gpus)} GPUs", param="n_gpu")
    layers = options.n_gpu_layers
    if wanted == 0 or layers == 0 or not gpus:
        if isinstance(layers, int) and layers:
            why = "this process sees no GPU" if wanted != 0 else "n_gpu is null"
            raise InvalidRequest(f"n_gpu_layers {layers}: {why}", param="n_gpu_layers")
        return Offload()
    used = gpus[:wanted]
    if options.main_gpu >= len(used):
        raise InvalidRequest(f"main_gpu {options.main_gpu}: there are {len(used)} GPUs, from 0", param="main_gpu")
    if len(options.tensor_split) > len(used):
        raise InvalidRequest(
            f"tensor_split has {len(options.tensor_split)} parts for {len(used)} GPUs", param="tensor_split"
        )
    if options.split_mode == "none":
        used = used[options.main_gpu : options.main_gpu + 1]
    if layers == "auto":
        layers = layers_that_fit(costs, [gpu.free - overhead - _MARGIN for gpu in used], options.tensor_split)
    return Offload(
        layers=ALL_LAYERS if layers >= len(costs) or layers < 0 else layers,
        devices=tuple(gpu.index for gpu in used),
        split_mode=options.split_mode,
        main_gpu=0 if options.split_mode == "none" else options.main_gpu,
        tensor_split=options.tensor_split,
    )


def layers_that_fit(costs: Sequence[int], free: Sequence[int], split: Sequence[float] = ()) -> int:
    """How many of the last layers fit on GPUs with so much free memory each.

    llama.cpp gives each GPU consecutive layers, in proportion to `split`, or else to what is free there.
    """
    shares = [max(each, 0.0) for each in (split or free)]
    shares += [0.0] * (len(free) - len(shares))
    if not sum(shares):
        return 0
    ends = [end / sum(shares) for end in accumulate(shares)]
    for count in range(len(costs), 0, -1):
        taken = [0] * len(free)
        for place, cost in enumerate(costs[len(costs) - count :]):
            taken[min(bisect_right(ends, place / count), len(free) - 1)] += cost
        if all(used <= there for used, there in zip(taken, free, strict=True)):
            return count
    return 0


def layer_costs(file: GgufFile, cache_bytes: int) -> list[int]:
    """Bytes of each layer on a GPU, its part of the KV cache included, and of the output after the last."""
    costs = [cache_bytes // max(file.layers, 1)] * file.layers
    output = 0
    tied = not any(tensor.name == "output.weight" for tensor in file.tensors)
    for tensor in file.tensors:
        first, _, rest = tensor.name.partition(".")
        number, _, _ = rest.partition(".")
        if first == "blk" and number.isdigit() and int(number) < len(costs):
            costs[int(number)] += tensor.bytes or 0
        elif first.startswith("output") or (tied and tensor.name == "token_embd.weight"):
            output += tensor.bytes or 0
    return [*costs, output]
