"""What an administrator asks of nodes, and how many replicas a model has, over HTTP and on the command line."""

import time
from typing import Any

import pytest

from xinfer_runtime.client import Client
from xinfer_runtime.errors import Conflict, InvalidRequest

UID = "scaled"


@pytest.fixture
def client(xinfer_server: Any) -> Any:
    with Client(xinfer_server.url, xinfer_server.token) as client:
        client.launch_model("xinfer-demo", model_uid=UID)
        yield client
        client.terminate_model(UID)


def test_replicas_are_added_and_removed_while_the_model_runs(client: Client) -> None:
    assert client.scale_model(UID, 2).replica == 2
    client.wait_until_ready(UID)
    model = client.describe_model(UID)
    assert {replica.replica_id for replica in model.replicas} == {f"{UID}-0", f"{UID}-1"}
    assert client.scale_model(UID, 1).replica == 1
    with pytest.raises(InvalidRequest) as caught:
        client.scale_model(UID, 0)
    assert caught.value.param == "replica"


def test_a_model_is_replaced_while_it_answers(client: Client) -> None:
    before = client.describe_model(UID).replicas[0].replica_id
    with pytest.raises(Conflict):
        client.launch_model("xinfer-demo", model_uid=UID, context_length=512)
    client.launch_model("xinfer-demo", model_uid=UID, context_length=512, replace=True)
    model = client.get_model(UID)
    deadline = time.monotonic() + 60
    while True:
        # At any time, somebody answers.
        assert model.chat("Hello!", max_tokens=2).text is not None
        described = client.describe_model(UID)
        if [replica.replica_id for replica in described.replicas] != [before] and len(described.replicas) == 1:
            break
        assert time.monotonic() < deadline, described
    assert described.context_length == 512
    assert described.state == "ready"


def test_nodes_tell_what_they_have_and_run(client: Client, xinfer_server: Any) -> None:
    with xinfer_server.client() as http:
        (node,) = http.get("xinfer/nodes").json()["nodes"]
        replica = http.get(f"v1/models/{UID}").json()["replicas"][0]
    has = node["inventory"]
    assert has["cpus"] >= 1
    assert 0 < has["memory_available"] <= has["memory_total"]
    assert 0 < has["disk_free"] <= has["disk_total"]
    assert has["engines"]["llama.cpp"]["version"]
    assert f"{UID}-0" in node["replicas"]
    assert replica["node"] == has["label"]
    assert replica["devices"] == []
