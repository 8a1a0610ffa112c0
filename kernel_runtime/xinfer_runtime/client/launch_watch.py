"""When a launch is over, and how it ended. No I/O."""

from xinfer_runtime.client.description import ModelDescription
from xinfer_runtime.client.errors import LaunchFailed
from xinfer_runtime.errors import Cancelled, ErrorInfo, XinferError, from_info


def launch_is_over(model: ModelDescription) -> bool:
    """Whether the model is ready.

    Raises:
        XinferError: it failed; of the server's class where the server says which, else LaunchFailed.
        Cancelled: somebody stopped it meanwhile.
    """
    if model.state == "failed":
        raise _failure(model)
    if model.state == "draining":
        raise launch_cancelled(model.model_uid)
    return model.state == "ready"


def launch_cancelled(uid: str) -> Cancelled:
    return Cancelled(f"Model {uid!r} was stopped before it was ready. Launch it again if that was not meant.")


def _failure(model: ModelDescription) -> XinferError:
    reasons = [model.message, *(replica.message for replica in model.replicas)]
    reason = next((text for text in reasons if text), "the server gave no reason; see its log")
    if model.error is not None:
        return from_info(ErrorInfo(model.error.code, model.error.message or reason, model.error.param))
    return LaunchFailed(f"Model {model.model_uid!r} could not be launched: {reason}")
