"""Byte-level BPE: training, encoding, and the vocabulary as GGUF stores it.

Text is cut by the expression that llama.cpp applies for the pre-tokenizer `qwen2`, so that both agree: each digit
stands alone. The training adds one rule: a piece that starts with a capital letter never joins what stands before it.
A name thus has the same tokens after a blank, after a quotation mark and at the start of a line, which makes
copying it into a tool call easy for a small model.
"""

import itertools
import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path

import regex  # type: ignore[import-untyped]

PRE_TOKENIZER = "qwen2"
LONGEST_TOKEN = 15  # bytes; a longer one would be a whole Chinese sentence
_PIECES = regex.compile(
    r"(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)

CONTROL_TOKENS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
MARK_TOKENS = ("<tool_call>", "</tool_call>", "<tools>", "</tools>", "<tool_response>", "</tool_response>")
SPECIAL_TOKENS = CONTROL_TOKENS + MARK_TOKENS
_SPECIAL = regex.compile("(" + "|".join(regex.escape(token) for token in SPECIAL_TOKENS) + ")")


def byte_characters() -> list[str]:
    """GPT-2's printable stand-in for each of the 256 bytes, in byte order."""
    printable = {*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAC + 1), *range(0xAE, 0xFF + 1)}
    spare = iter(range(256, 512))
    return [chr(byte) if byte in printable else chr(next(spare)) for byte in range(256)]


_BYTE_CHARACTERS = byte_characters()
_CHARACTER_BYTES = {character: byte for byte, character in enumerate(_BYTE_CHARACTERS)}


def _mapped(text: str) -> str:
    return "".join(_BYTE_CHARACTERS[byte] for byte in text.encode("utf-8"))


def _may_join(pair: tuple[str, str]) -> bool:
    return not "A" <= pair[1][0] <= "Z" and len(pair[0]) + len(pair[1]) <= LONGEST_TOKEN


def _joined(symbols: Sequence[str], left: str, right: str) -> list[str]:
    result: list[str] = []
    for symbol in symbols:
        if result and result[-1] == left and symbol == right:
            result[-1] = left + right
        else:
            result.append(symbol)
    return result


class Tokenizer:
    """Encodes and decodes text. Token ids: the 256 bytes, the merges in order, the special tokens."""

    def __init__(self, merges: Sequence[tuple[str, str]]) -> None:
        self.merges = list(merges)
        self.tokens = [*_BYTE_CHARACTERS, *(left + right for left, right in self.merges), *SPECIAL_TOKENS]
        self.ids = {token: index for index, token in enumerate(self.tokens)}
        self._ranks = {pair: rank for rank, pair in enumerate(self.merges)}
        self._cache: dict[str, list[int]] = {}

    @property
    def vocab_size(self) -> int:
        """Number of tokens."""
        return len(self.tokens)

    def encode(self, text: str) -> list[int]:
        """Token ids of `text`; special tokens in it count as such."""
        ids: list[int] = []
        for part in _SPECIAL.split(text):
            if part in SPECIAL_TOKENS:
                ids.append(self.ids[part])
                continue
            for piece in _PIECES.findall(part):
                known = self._cache.get(piece)
                if known is None:
                    known = self._cache[piece] = [self.ids[symbol] for symbol in self._merge(_mapped(piece))]
                ids += known
        return ids

    def _merge(self, word: str) -> list[str]:
        symbols = list(word)
        while len(symbols) > 1:
            rank, pair = min((self._ranks.get(pair, 1 << 30), pair) for pair in itertools.pairwise(symbols))
            if rank == 1 << 30:
                break
            symbols = _joined(symbols, *pair)
        return symbols

    def decode(self, ids: Iterable[int]) -> str:
        """The text of `ids`; bytes that are no UTF-8 become U+FFFD."""
        data = b""
        for index in ids:
            token = self.tokens[index]
            if token in SPECIAL_TOKENS:
                data += token.encode()
            else:
                data += bytes(_CHARACTER_BYTES[character] for character in token)
        return data.decode("utf-8", errors="replace")

    def save(self, path: Path) -> None:
        """Write the merges as JSON."""
        path.write_text(json.dumps({"merges": self.merges}, ensure_ascii=False), encoding="utf-8")

    @classmethod
    def load(cls, path: Path) -> "Tokenizer":
        """Read what `save` wrote."""
        merges = json.loads(path.read_text(encoding="utf-8"))["merges"]
        return cls([(left, right) for left, right in merges])


def train_tokenizer(texts: Iterable[str], vocab_size: int) -> Tokenizer:
    """Learn merges from `texts` until the vocabulary has `vocab_size` tokens, or no pair occurs twice.

    The algorithm is the classic one (Sennrich et al. 2016): join the most frequent pair, count again. Ties go to the
    pair that sorts first, so that the result depends on the texts alone.
    """
    counts: Counter[str] = Counter()
    for text in texts:
        for part in _SPECIAL.split(text):
            if part not in SPECIAL_TOKENS:
                counts.update(_PIECES.findall(part))
    words = [(list(_mapped(piece)), count) for piece, count in sorted(counts.items())]
    pairs: Counter[tuple[str, str]] = Counter()
    places: defaultdict[tuple[str, str], set[int]] = defaultdict(set)
    for index, (symbols, count) in enumerate(words):
        for pair in itertools.pairwise(symbols):
            pairs[pair] += count
            places[pair].add(index)
    merges: list[tuple[str, str]] = []
    while len(merges) < vocab_size - 256 - len(SPECIAL_TOKENS):
        allowed = [(count, pair) for pair, count in pairs.items() if count > 1 and _may_join(pair)]
        if not allowed:
            break
        most = max(count for count, _ in allowed)
        best = min(pair for count, pair in allowed if count == most)
        merges.append(best)
        for index in sorted(places[best]):
            symbols, count = words[index]
            joined = _joined(symbols, *best)
            for pair in itertools.pairwise(symbols):
                pairs[pair] -= count
            for pair in itertools.pairwise(joined):
                pairs[pair] += count
                places[pair].add(index)
            words[index] = (joined, count)
        pairs = +pairs
    return Tokenizer(merges)
