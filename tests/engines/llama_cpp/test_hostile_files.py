"""Broken and hostile model files: refused before llama.cpp sees them, or survived by it."""

import random
import subprocess
import sys
from pathlib import Path

import pytest

from xinfer_runtime.catalog.gguf_file import read_gguf
from xinfer_runtime.engines.llama_cpp import loading
from xinfer_runtime.engines.llama_cpp.options import Options
from xinfer_runtime.errors import ModelFileError
from xinfer_runtime.models import ModelSpec

LOADER = """
import sys
from pathlib import Path
from xinfer_runtime.engines.registry import create_engine
create_engine("llama.cpp")  # llama.cpp before numpy
from xinfer_runtime.engines.llama_cpp.loading import load_model
from xinfer_runtime.engines.llama_cpp.context import Chunk
from xinfer_runtime.engines.llama_cpp.options import Options
from xinfer_runtime.errors import XinferError
from xinfer_runtime.models import ModelSpec

for path in sorted(Path(sys.argv[1]).iterdir()):
    print(path.name, flush=True)
    spec = ModelSpec(uid="m", name="m", path=str(path), max_sequences=2, context_length=256)
    try:
        model = load_model(spec, Options(threads=1), lambda fraction, stage: True)
    except XinferError:
        continue
    vocabulary = model.weights.vocabulary
    vocabulary.pieces(range(vocabulary.size))
    model.context.decode([Chunk(0, 0, vocabulary.tokenize(["Hello there"])[:20] or [0], 1)])
    model.free()
print("all survived")
"""


def test_a_truncated_file_never_reaches_llama_cpp(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loading, "load_weights", lambda *_: pytest.fail("llama.cpp was given the file"))
    cut = tmp_path / "cut.gguf"
    cut.write_bytes(tiny_model.read_bytes()[:-5000])
    with pytest.raises(ModelFileError, match="truncated: tensor"):
        loading.load_model(ModelSpec(uid="m", name="m", path=str(cut)), Options(), lambda fraction, stage: True)


def test_what_passes_the_checks_does_not_end_the_process(tiny_model: Path, tmp_path: Path) -> None:
    whole, header = tiny_model.read_bytes(), read_gguf(tiny_model).data_start
    for seed in range(120):
        chance = random.Random(seed)
        raw = bytearray(whole)
        for _ in range(chance.choice((1, 1, 2, 4))):
            # The first kilobyte has the numbers that llama.cpp computes with, the end the tensor table.
            place = chance.randrange(24, 1000) if chance.random() < 0.5 else chance.randrange(24, header)
            raw[place] = chance.choice((0, 1, 127, 255, chance.randrange(256)))
        (tmp_path / f"{seed:03}.gguf").write_bytes(raw)

    done = subprocess.run([sys.executable, "-c", LOADER, str(tmp_path)], capture_output=True, text=True, timeout=100)

    said = done.stdout.splitlines()
    assert said[-1:] == ["all survived"], f"{said[-1:]}, {done.returncode}: {done.stderr[-2000:]}"
