"""`model` as requests give it: a model's uid, and after a colon the name of one of its LoRA adapters."""

from msgspec.structs import replace

from xinfer_runtime.errors import InvalidRequest
from xinfer_runtime.messages import GenerateRequest


def uid_of(model: str) -> str:
    return model.partition(":")[0]


def with_adapter(model: str, request: GenerateRequest) -> GenerateRequest:
    """The request for the adapter that `model` names. Raises InvalidRequest where the request names another one."""
    _, colon, adapter = model.partition(":")
    if not colon:
        return request
    if request.lora not in (None, adapter):
        raise InvalidRequest(
            f"`model` names the LoRA adapter {adapter!r:.100}, and `lora_name` {request.lora!r:.100}.",
            param="lora_name",
        )
    return replace(request, lora=adapter)
