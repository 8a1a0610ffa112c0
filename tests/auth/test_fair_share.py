import pytest

from jupyter_xinfer.auth.fair_share import FairShare
from jupyter_xinfer.auth.principal import Limits, Principal
from xinfer_runtime.errors import InvalidRequest, PermissionDenied
from xinfer_runtime.messages import GenerateRequest, Priority
from xinfer_runtime.routing.fair_queue import Flow

ANN = Principal(kind="user", name="ann", limits=Limits(weight=3.0))
CI = Principal(kind="api_key", name="ci", limits=Limits(priority=Priority.BATCH))


def test_a_weight_is_of_the_caller_on_the_model_of_the_caller_or_his_own() -> None:
    share = FairShare({"user:ann@big": 5.0, "api_key:ci": 0.5})
    assert share.flow(ANN, "big") == Flow("user:ann", 5.0)
    assert share.flow(ANN, "small") == Flow("user:ann", 3.0)
    assert share.flow(CI, "small") == Flow("api_key:ci", 0.5)
    assert FairShare().flow(CI, "small") == Flow("api_key:ci", 1.0)


@pytest.mark.parametrize("weight", [0.0, -1.0, 1e9, float("nan"), True])
def test_a_weight_that_is_none_is_refused_by_its_name(weight: float) -> None:
    with pytest.raises(InvalidRequest, match=r"share_weights\['user:ann'\]"):
        FairShare({"user:ann": weight})


def test_a_batch_caller_sends_batch_requests_only() -> None:
    share, request = FairShare(), GenerateRequest(id="r", prompt="x")
    assert share.classed(CI, request).priority is Priority.BATCH
    assert share.classed(ANN, request) is request
    share.require(CI, None)
    share.require(CI, Priority.BATCH)
    share.require(ANN, Priority.INTERACTIVE)
    with pytest.raises(PermissionDenied) as refusal:
        share.require(CI, Priority.INTERACTIVE)
    assert refusal.value.param == "priority"
