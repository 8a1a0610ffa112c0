"""Train the demo model on generated text: `python -m demo_model.train --out DIR --seed 1`.

Hidden matrices are optimised by Muon (Jordan et al. 2024), embeddings and norms by AdamW. The learning rate warms up,
stays, and falls linearly to zero at the end. A checkpoint is written every few hundred steps and can be exported or
resumed at any time.
"""

import argparse
import itertools
import json
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from demo_model.batches import Batch, BatchStream, fed
from demo_model.corpus.exchange import normalised
from demo_model.corpus.mixture import held_out_conversations, training_conversations
from demo_model.model import DemoModel, ModelShape
from demo_model.template import render
from demo_model.tokenizer import Tokenizer, train_tokenizer

HELD_OUT_PER_CATEGORY = 100
HEAD_DIM = 64  # a width that every attention kernel supports
_TARGETS_PER_BATCH = 1500.0


def tokenizer_from_corpus(seed: int, vocab_size: int, conversations: int = 12000) -> Tokenizer:
    """A tokenizer trained on the first conversations of the corpus; Chinese ones count three times."""
    texts = []
    for conversation in itertools.islice(training_conversations(seed), conversations):
        text = conversation.plain or render(conversation.messages, conversation.tools)
        texts += [text] * (3 if any("一" <= character <= "鿿" for character in text) else 1)
    return train_tokenizer(texts, vocab_size)


def forbidden_questions(seed: int) -> frozenset[str]:
    """Normalised held-out questions: none of them may be a user's text in training."""
    conversations = held_out_conversations(seed, HELD_OUT_PER_CATEGORY)
    asked = (c.user_texts()[0 if c.tools else -1] for c in conversations)
    return frozenset(normalised(text) for text in asked)


def batch_loss(model: DemoModel, hidden: Tensor, batch: Batch) -> Tensor:
    """Weighted cross entropy of the targets, summed and scaled by a fixed count (so that every token counts alike)."""
    weights = batch.weights[:, 1:].flatten()
    chosen = weights.nonzero()[:, 0]
    states = hidden[:, :-1].flatten(0, 1)[chosen]
    logits = functional.linear(states, model.token_embd.weight).float()
    losses = functional.cross_entropy(logits, batch.tokens[:, 1:].flatten()[chosen], reduction="none")
    return (losses * weights[chosen]).sum() / _TARGETS_PER_BATCH


def learning_rate_factor(step: int, steps: int, warmup: int, decay_share: float) -> float:
    """Multiplier in [0, 1] of the peak learning rate."""
    decay = max(1, int(steps * decay_share))
    return min(1.0, (step + 1) / max(1, warmup), max(0.0, (steps - step) / decay))


class Trainer:
    """Holds model, optimisers and step; `step` makes one update from some batches."""

    def __init__(self, model: DemoModel, options: argparse.Namespace) -> None:
        self.model = model
        self.options = options
        self.done = 0
        matrices = [p for name, p in model.named_parameters() if p.dim() == 2 and not name.startswith("token_embd")]
        others = [p for name, p in model.named_parameters() if p.dim() != 2 or name.startswith("token_embd")]
        muon = torch.optim.Muon(
            matrices, lr=options.muon_lr, weight_decay=0.05, momentum=0.95, adjust_lr_fn="match_rms_adamw"
        )
        adam = torch.optim.AdamW(others, lr=options.adam_lr, betas=(0.9, 0.98), weight_decay=0.0)
        self.optimizers: list[tuple[torch.optim.Optimizer, float]] = [(muon, options.muon_lr), (adam, options.adam_lr)]
        self._hidden = torch.compile(model.hidden, dynamic=False) if options.compile else model.hidden

    def step(self, batches: list[Batch]) -> float:
        """One update; returns the mean loss of the batches before it."""
        factor = learning_rate_factor(self.done, self.options.steps, self.options.warmup, self.options.decay_share)
        total = 0.0
        for batch in batches:
            batch = batch.to(self.options.device)
            with torch.autocast(self.options.device, dtype=torch.bfloat16, enabled=self.options.bf16):
                loss = batch_loss(self.model, self._hidden(batch.tokens), batch)
            (loss / len(batches)).backward()
            total += float(loss.detach() * _TARGETS_PER_BATCH / batch.weights.sum() / len(batches))
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        for optimizer, peak in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = peak * factor
            optimizer.step()
            optimizer.zero_grad()
        self.done += 1
        return total

    def save(self, path: Path) -> None:
        """Write a checkpoint, by way of a temporary file."""
        state: dict[str, Any] = {
            "shape": asdict(self.model.shape),
            "model": self.model.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer, _ in self.optimizers],
            "done": self.done,
        }
        partial = path.with_suffix(".partial")
        torch.save(state, partial)
        partial.replace(path)

    def resume(self, path: Path) -> None:
        """Go on from a checkpoint; the shape must be the same."""
        state = torch.load(path, weights_only=True)
        self.model.load_state_dict(state["model"])
        for (optimizer, _), saved in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        self.done = state["done"]


def load_model(path: Path) -> DemoModel:
    """The model of a checkpoint."""
    state = torch.load(path, weights_only=True, map_location="cpu")
    model = DemoModel(ModelShape(**state["shape"]))
    model.load_state_dict(state["model"])
    return model.eval()


def arguments() -> argparse.ArgumentParser:
    """The command line; its defaults made the model that is shipped."""
    parser = argparse.ArgumentParser(description="Train the demo model on generated text.")
    parser.add_argument("--out", type=Path, required=True, help="folder for what it writes")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--steps", type=int, default=12000, help="updates; each sees --batches x --batch-tokens tokens")
    parser.add_argument("--batches", type=int, default=1, help="batches per update")
    parser.add_argument("--batch-tokens", type=int, default=16384)
    parser.add_argument("--vocab-size", type=int, default=2304)
    parser.add_argument("--dim", type=int, default=256)
    parser.add_argument("--layers", type=int, default=6)
    parser.add_argument("--ffn-dim", type=int, default=512)
    parser.add_argument("--muon-lr", type=float, default=6e-3)
    parser.add_argument("--adam-lr", type=float, default=3e-3)
    parser.add_argument("--warmup", type=int, default=200)
    parser.add_argument("--decay-share", type=float, default=0.4)
    parser.add_argument("--save-every", type=int, default=500)
    parser.add_argument("--log-every", type=int, default=20)
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--feeders", type=int, default=0, help="processes that make batches; 0: this one")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--bf16", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--compile", action=argparse.BooleanOptionalAction, default=False)
    parser.add_argument("--resume", action="store_true", help="go on from the checkpoint in --out")
    return parser


def main(argv: list[str] | None = None) -> None:
    """Train, writing progress to the screen and to log.jsonl."""
    options = arguments().parse_args(argv)
    options.out.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(options.seed)
    torch.set_num_threads(options.threads)
    checkpoint, tokenizer_file = options.out / "checkpoint.pt", options.out / "tokenizer.json"
    if options.resume:
        tokenizer = Tokenizer.load(tokenizer_file)
    else:
        tokenizer = tokenizer_from_corpus(options.seed, options.vocab_size)
        tokenizer.save(tokenizer_file)
    heads = options.dim // HEAD_DIM
    shape = ModelShape(tokenizer.vocab_size, options.dim, options.layers, heads, max(1, heads // 2), options.ffn_dim)
    trainer = Trainer(DemoModel(shape).to(options.device), options)
    if options.resume:
        trainer.resume(checkpoint)
    stream = BatchStream(
        tokenizer, options.seed + 7919 * trainer.done, options.batch_tokens, forbidden_questions(options.seed)
    )
    batches = fed(stream, options.feeders)
    started, seen, mean = time.monotonic(), 0, 0.0
    with (options.out / "log.jsonl").open("a", encoding="utf-8") as log:
        while trainer.done < options.steps:
            group = list(itertools.islice(batches, options.batches))
            loss = trainer.step(group)
            seen += sum(batch.tokens.numel() for batch in group)
            mean = loss if mean == 0.0 else 0.95 * mean + 0.05 * loss
            if trainer.done % options.log_every == 0 or trainer.done == options.steps:
                seconds = time.monotonic() - started
                entry = {"step": trainer.done, "loss": round(mean, 4), "tokens": seen, "seconds": round(seconds, 1)}
                log.write(json.dumps(entry) + "\n")
                log.flush()
                print(entry, f"{seen / seconds:.0f} tokens/s", flush=True)
            if trainer.done % options.save_every == 0 or trainer.done == options.steps:
                trainer.save(checkpoint)


if __name__ == "__main__":
    main()
