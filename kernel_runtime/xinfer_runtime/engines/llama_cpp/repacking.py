"""Whether llama.cpp would hold weights twice: mapped as they are in the file, and in the order that its CPU code likes.

It rearranges the weights of some types when it loads them, and leaves the map of the file in place. Weights that are
mostly of such types are therefore read instead of mapped.
"""

import re
from collections.abc import Sequence

import llama_cpp

from xinfer_runtime.catalog.gguf_tensors import Tensor

_Q4_0, _Q8_0, _Q2_K, _Q4_K, _Q5_K, _Q6_K, _IQ4_NL, _MXFP4 = 2, 8, 10, 12, 13, 14, 20, 39
_TYPES = {
    "AVX2": {_Q4_0, _Q4_K, _IQ4_NL, _MXFP4},
    "AVX512": {_Q2_K},
    "DOTPROD": {_Q4_0, _Q4_K, _Q5_K, _Q6_K, _IQ4_NL, _MXFP4, _Q8_0},
}
"""By what a processor has, the types that are rearranged for it (ggml-cpu/repack.cpp)."""

_ROWS = 8
"""Rows that are interleaved: a matrix must have a multiple of them."""


def processor_features() -> frozenset[str]:
    """What the processor and this build of llama.cpp have, in llama.cpp's words."""
    said = llama_cpp.llama_print_system_info().decode("utf-8", errors="replace")
    return frozenset(name for name, there in re.findall(r"(\w+) = (\d)", said) if there == "1")


def mostly_repacked(tensors: Sequence[Tensor], features: frozenset[str]) -> bool:
    """Whether more than half of the bytes of the weights would be held twice."""
    if "REPACK" not in features:
        return False
    types = set[int]().union(*(kinds for feature, kinds in _TYPES.items() if feature in features))
    weights = [each for each in tensors if len(each.shape) > 1 and each.name != "token_embd.weight"]
    repacked = [each for each in weights if each.type in types and each.shape[1] % _ROWS == 0]
    return 2 * sum(each.bytes or 0 for each in repacked) > sum(each.bytes or 0 for each in tensors)
