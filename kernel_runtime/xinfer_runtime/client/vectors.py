"""Vectors of texts and rankings of documents, as the client gives them."""

from array import array
from base64 import b64decode
from collections.abc import Sequence
from dataclasses import dataclass
from sys import byteorder

import msgspec
from msgspec import Struct

from xinfer_runtime.client.errors import UnexpectedAnswer

Vector = list[float]


@dataclass(frozen=True)
class Ranked:
    """A document, its place among those that were sent, and how relevant it is, from 0 to 1."""

    index: int
    score: float
    document: str


class _Embedding(Struct):
    index: int
    embedding: str


class _Embeddings(Struct):
    data: list[_Embedding]


class _Result(Struct):
    index: int
    relevance_score: float


class _Results(Struct):
    results: list[_Result]


def parse_vectors(body: bytes) -> list[Vector]:
    """The vectors of an answer in base64, in the order of the inputs."""
    try:
        found = sorted(msgspec.json.decode(body, type=_Embeddings).data, key=lambda each: each.index)
        return [_numbers(each.embedding) for each in found]
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, ValueError) as error:
        raise UnexpectedAnswer(f"The server's answer is no list of vectors: {error}") from None


def parse_ranking(body: bytes, documents: Sequence[str]) -> list[Ranked]:
    """The ranking of `documents`, the most relevant first."""
    try:
        found = msgspec.json.decode(body, type=_Results).results
        return [Ranked(each.index, each.relevance_score, documents[each.index]) for each in found]
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, IndexError) as error:
        raise UnexpectedAnswer(f"The server's answer is no ranking of the documents: {error}") from None


def _numbers(encoded: str) -> Vector:
    values = array("f", b64decode(encoded, validate=True))
    if byteorder == "big":
        values.byteswap()
    return values.tolist()
