"""A multimodal projector through libmtmd: from the bytes of an image to the rows that a model takes in its place.

libmtmd could read the bytes itself, and would hand those that it does not know to ffmpeg, where there is one: Pillow
reads four formats and nothing else. One thread at a time may look at an image, beside the one that runs the model.
"""

import ctypes
import io
from pathlib import Path
from typing import Any

import llama_cpp
import numpy as np
from llama_cpp import mtmd_cpp as mtmd

from xinfer_runtime.catalog.projector_file import PARAM
from xinfer_runtime.engines.llama_cpp import native_log
from xinfer_runtime.engines.llama_cpp.context import flash_attention_type
from xinfer_runtime.engines.llama_cpp.image_rows import ImageRows, SeenImage, first_id
from xinfer_runtime.engines.llama_cpp.options import Options
from xinfer_runtime.engines.llama_cpp.sizing import IMAGE_PIXELS
from xinfer_runtime.errors import EngineError, ModelFileError

_FORMATS = ("PNG", "JPEG", "GIF", "WEBP")


class UnreadableImageError(Exception):
    """These bytes are no image that can be read; the message says why."""


class Projector:
    """The projector at `path` for the model with the handle `model`. Must be freed before the model.

    Raises ModelFileError for a file that libmtmd cannot use with this model, or that would need of the model what the
    engine does not compute.
    """

    def __init__(self, path: Path, model: int, options: Options, threads: int, on_gpu: bool) -> None:
        native_log.install()
        native_log.clear()
        mtmd.mtmd_helper_log_set(native_log.callback, ctypes.c_void_p(0))
        params = mtmd.mtmd_context_params_default()
        params.use_gpu = on_gpu
        params.print_timings = False
        params.n_threads = threads
        params.flash_attn_type = flash_attention_type(options.flash_attention)
        self._width: int = llama_cpp.llama_model_n_embd_inp(model)
        self._context: Any = mtmd.mtmd_init_from_file(str(path).encode(), model, params)
        if not self._context:
            reason = native_log.errors().replace(str(path), path.name) or "no reason was given"
            raise ModelFileError(
                f"llama.cpp could not load the projector {path.name}: {reason}", param=PARAM, place=str(path)
            )
        for unfit, what in (
            (not mtmd.mtmd_support_vision(self._context), "it makes nothing of images"),
            (
                mtmd.mtmd_decode_use_non_causal(self._context, None),
                "the parts of an image would have to see those after them, which this engine does not compute",
            ),
            (
                mtmd.mtmd_decode_use_mrope(self._context),
                "this model has positions in two dimensions (M-RoPE), which this engine does not compute",
            ),
        ):
            if unfit:
                self.free()
                raise ModelFileError(f"The projector {path.name} cannot be used: {what}", param=PARAM, place=str(path))

    def look(self, image: bytes) -> SeenImage:
        """What the model takes in place of the image. Raises UnreadableImageError for bytes that are none."""
        width, height, pixels = _pixels(image)
        bitmap: Any = mtmd.mtmd_bitmap_init(width, height, (ctypes.c_uint8 * len(pixels)).from_buffer_copy(pixels))
        chunks: Any = mtmd.mtmd_input_chunks_init()
        try:
            marker = mtmd.mtmd_default_marker()
            text = mtmd.mtmd_input_text(marker, len(marker), False, True)
            bitmaps = (mtmd.mtmd_bitmap_p_ctypes * 1)(bitmap)
            code = mtmd.mtmd_tokenize(self._context, chunks, ctypes.byref(text), bitmaps, 1)
            if code:
                raise UnreadableImageError(f"the model cannot take an image of {width} times {height} pixels")
            count = mtmd.mtmd_input_chunks_size(chunks)
            return SeenImage(
                tuple(self._part(mtmd.mtmd_input_chunks_get(chunks, i), first_id(image, i)) for i in range(count))
            )
        finally:
            mtmd.mtmd_input_chunks_free(chunks)
            mtmd.mtmd_bitmap_free(bitmap)

    def free(self) -> None:
        mtmd.mtmd_free(self._context)

    def _part(self, chunk: Any, first: int) -> ImageRows | list[int]:
        if mtmd.mtmd_input_chunk_get_type(chunk) == mtmd.MTMD_INPUT_CHUNK_TYPE_TEXT:
            count = ctypes.c_size_t()
            tokens: Any = mtmd.mtmd_input_chunk_get_tokens_text(chunk, ctypes.byref(count))
            return [int(token) for token in tokens[: count.value]]
        code = mtmd.mtmd_encode_chunk(self._context, chunk)
        if code:
            raise EngineError(f"llama.cpp could not compute what the model takes in place of an image (code {code})")
        shape = (mtmd.mtmd_input_chunk_get_n_tokens(chunk), self._width)
        rows: Any = mtmd.mtmd_get_output_embd(self._context)
        return ImageRows(first, np.ctypeslib.as_array(rows, shape=shape).copy())


def _pixels(image: bytes) -> tuple[int, int, bytes]:
    """Width, height, and the three colours of each pixel, as it is to be seen."""
    from PIL import Image, ImageOps

    try:
        with Image.open(io.BytesIO(image), formats=_FORMATS) as opened:
            if opened.width * opened.height > IMAGE_PIXELS:
                raise UnreadableImageError(f"it has more than {IMAGE_PIXELS} pixels")
            seen = ImageOps.exif_transpose(opened).convert("RGB")
    except UnreadableImageError:
        raise
    except Exception as error:  # Of hostile bytes Pillow raises anything; they are this image's failure alone.
        raise UnreadableImageError("its bytes are damaged, or of another format than they say") from error
    return seen.width, seen.height, seen.tobytes()
