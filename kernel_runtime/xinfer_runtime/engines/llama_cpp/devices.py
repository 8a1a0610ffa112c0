"""The GPUs that llama.cpp sees: those that `CUDA_VISIBLE_DEVICES` and its like leave."""

import ctypes
from typing import Any

import llama_cpp
from llama_cpp import _ggml

from xinfer_runtime.engines.llama_cpp.offload import Gpu, Offload

_GPU = 1
"""GGML_BACKEND_DEVICE_TYPE_GPU: one with memory of its own."""

_SPLIT_MODES = {
    "none": llama_cpp.LLAMA_SPLIT_MODE_NONE,
    "layer": llama_cpp.LLAMA_SPLIT_MODE_LAYER,
    "row": llama_cpp.LLAMA_SPLIT_MODE_ROW,
}

_library: Any = _ggml.libggml
_library.ggml_backend_dev_count.restype = ctypes.c_size_t
_library.ggml_backend_dev_get.argtypes = [ctypes.c_size_t]
_library.ggml_backend_dev_get.restype = ctypes.c_void_p
_library.ggml_backend_dev_type.argtypes = [ctypes.c_void_p]
_library.ggml_backend_dev_description.argtypes = [ctypes.c_void_p]
_library.ggml_backend_dev_description.restype = ctypes.c_char_p
_library.ggml_backend_dev_memory.argtypes = [
    ctypes.c_void_p,
    ctypes.POINTER(ctypes.c_size_t),
    ctypes.POINTER(ctypes.c_size_t),
]
_library.ggml_backend_dev_memory.restype = None


def supports_gpu() -> bool:
    """Whether this build of llama.cpp can put layers on a GPU."""
    return bool(llama_cpp.llama_supports_gpu_offload())


def gpus() -> list[Gpu]:
    """In llama.cpp's order, with the memory that is free now."""
    if not supports_gpu():
        return []
    found = []
    for index in range(_library.ggml_backend_dev_count()):
        device = _library.ggml_backend_dev_get(index)
        if _library.ggml_backend_dev_type(device) == _GPU:
            free, total = ctypes.c_size_t(), ctypes.c_size_t()
            _library.ggml_backend_dev_memory(device, ctypes.byref(free), ctypes.byref(total))
            name = _library.ggml_backend_dev_description(device).decode("utf-8", errors="replace")
            found.append(Gpu(index, name, free.value, total.value))
    return found


def place(params: Any, offload: Offload) -> list[Any]:
    """Say in the parameters of a load which layers go on which GPUs. Returns what must live until it is done."""
    params.n_gpu_layers = offload.layers
    if not offload.on_gpu:
        return []
    params.split_mode = _SPLIT_MODES[offload.split_mode]
    params.main_gpu = offload.main_gpu
    pointers = [*map(_library.ggml_backend_dev_get, offload.devices), None]
    handles = (ctypes.c_void_p * len(pointers))(*pointers)
    params.devices = ctypes.addressof(handles)
    split = (ctypes.c_float * llama_cpp.llama_max_devices())(*offload.tensor_split)
    if offload.tensor_split:
        params.tensor_split = split
    return [handles, split]
