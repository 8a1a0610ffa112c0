"""A toy-size training run on the CPU, its export, and llama.cpp's agreement with the network in torch."""

import json
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
llama_cpp = pytest.importorskip("llama_cpp")
gguf = pytest.importorskip("gguf")
pytest.importorskip("regex")

from demo_model import export, train  # noqa: E402
from demo_model.batches import BatchStream, LeakError, weighted_tokens  # noqa: E402
from demo_model.corpus.conversation import Conversation  # noqa: E402
from demo_model.corpus.exchange import normalised  # noqa: E402
from demo_model.corpus.mixture import training_conversations  # noqa: E402
from demo_model.tokenizer import Tokenizer  # noqa: E402

TOY = (
    "--steps=60", "--dim=64", "--layers=2", "--ffn-dim=64", "--vocab-size=600", "--batch-tokens=1024", "--batches=1",
    "--warmup=2", "--no-bf16", "--threads=1",
)  # fmt: skip


def losses(folder: Path) -> list[float]:
    return [json.loads(line)["loss"] for line in (folder / "log.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("toy")
    train.main([f"--out={folder}", "--seed=5", "--log-every=1", *TOY])
    return folder


def test_the_loss_falls(trained: Path) -> None:
    assert losses(trained)[-1] < 0.85 * losses(trained)[0]


def test_the_same_seed_gives_the_same_weights(trained: Path, tmp_path: Path) -> None:
    train.main([f"--out={tmp_path}", "--seed=5", *TOY])
    first, second = train.load_model(trained / "checkpoint.pt"), train.load_model(tmp_path / "checkpoint.pt")
    for one, other in zip(first.parameters(), second.parameters(), strict=True):
        torch.testing.assert_close(one, other)


def test_a_run_can_be_resumed(trained: Path) -> None:
    before = len(losses(trained))
    train.main([f"--out={trained}", "--seed=5", "--log-every=1", *TOY, "--steps=62", "--resume"])
    assert len(losses(trained)) == before + 2


def test_llama_cpp_computes_what_torch_computes(trained: Path, tmp_path: Path) -> None:
    file = tmp_path / "toy.gguf"
    export.main(["--from", str(trained), "--to", str(file)])
    tokenizer = Tokenizer.load(trained / "tokenizer.json")
    ids = tokenizer.encode("<|im_start|>user\nWhat is the capital of France? 你好<|im_end|>\n<|im_start|>assistant\n")
    with torch.no_grad():
        expected = train.load_model(trained / "checkpoint.pt")(torch.tensor([ids]))[0].numpy()
    llama = llama_cpp.Llama(str(file), n_ctx=256, n_threads=1, logits_all=True, verbose=False)
    llama.eval(ids)
    found = np.array(llama.scores[: len(ids)])
    llama.close()
    assert np.abs(found - expected).max() < 0.1 * expected.std()


def test_an_export_that_is_too_large_is_refused(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(export, "LARGEST_FILE", 1000)
    with pytest.raises(ValueError, match="make the model smaller"):
        export.main(["--from", str(trained), "--to", str(tmp_path / "toy.gguf")])


def test_only_what_the_assistant_says_is_learned(trained: Path) -> None:
    tokenizer = Tokenizer.load(trained / "tokenizer.json")
    messages = [{"role": "user", "content": "Hello"}, {"role": "assistant", "content": "Hello! How can I help you?"}]
    ids, weights = weighted_tokens(Conversation("small_talk", messages, [], [2]), tokenizer)
    learned = [token for token, weight in zip(ids, weights, strict=True) if weight]
    assert tokenizer.decode(learned) == "Hello! How can I help you?<|im_end|>"
    assert set(weights) == {0.0, 0.5}


def test_training_stops_at_a_held_out_question(trained: Path) -> None:
    tokenizer = Tokenizer.load(trained / "tokenizer.json")
    question = next(c.user_texts()[0] for c in training_conversations(5) if c.messages)
    stream = BatchStream(tokenizer, 5, 1024, frozenset({normalised(question)}))
    with pytest.raises(LeakError):
        next(iter(stream))


@pytest.mark.parametrize(("step", "factor"), [(0, 0.1), (9, 1.0), (59, 1.0), (80, 0.5), (100, 0.0)])
def test_the_learning_rate_rises_stays_and_falls(step: int, factor: float) -> None:
    assert train.learning_rate_factor(step, 100, warmup=10, decay_share=0.4) == pytest.approx(factor)
