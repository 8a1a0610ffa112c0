"""What a model can do, by its type: before a request is sent to one that cannot serve it."""

from xinfer_runtime.catalog.model_kind import ABILITIES, EMBEDDING, RERANK
from xinfer_runtime.errors import InvalidRequest
from xinfer_runtime.models import ModelStatus

_INSTEAD = {
    EMBEDDING: "It is an embedding model: send texts to /v1/embeddings.",
    RERANK: "It is a reranker: send a query and documents to /v1/rerank.",
}
_LAUNCH = {
    "embed": "It generates text. Launch an embedding model, or this file under another uid with model_type=embedding.",
    "rerank": "It generates text. Launch a reranker.",
}


def has_ability(status: ModelStatus, ability: str) -> bool:
    """Whether models of this type can do `ability`: "embed", "rerank", or "generate" for everything with text."""
    return ability in ABILITIES.get(status.spec.type, ("generate",))


def require_ability(status: ModelStatus, ability: str) -> None:
    """Raise `InvalidRequest` that says what the model is for, unless it can do `ability`."""
    if not has_ability(status, ability):
        instead = _INSTEAD.get(status.spec.type) or _LAUNCH[ability]
        raise InvalidRequest(
            f"The model {status.spec.uid!r} does not have the ability {ability!r}. {instead}", param="model"
        )
