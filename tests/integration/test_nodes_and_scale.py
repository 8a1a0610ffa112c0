"""What an administrator asks of nodes, and how many replicas a model has, over HTTP and on the command line."""

import asyncio
import json
import re
import time
from typing import Any

import httpx
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


def two_are_ready(client: Client) -> None:
    deadline = time.monotonic() + 60
    while client.describe_model(UID).ready_replicas < 2:
        assert time.monotonic() < deadline
        time.sleep(0.05)


async def test_streams_of_a_replica_that_goes_move_to_another(client: Client, xinfer_server: Any) -> None:
    client.scale_model(UID, 2)
    await asyncio.to_thread(two_are_ready, client)
    begun = [asyncio.Event() for _ in range(8)]

    async def count(http: httpx.AsyncClient, number: int) -> str:
        text = ""
        messages = [{"role": "user", "content": f"Please count to {100 - number}."}]
        body = {"model": UID, "messages": messages, "temperature": 0, "stream": True}
        async with http.stream("POST", "v1/chat/completions", json=body) as answer:
            async for line in answer.aiter_lines():
                if not line.startswith("data: {"):
                    continue
                text += json.loads(line.removeprefix("data: "))["choices"][0]["delta"].get("content") or ""
                if text:
                    begun[number - 1].set()
        return text

    headers = {"Authorization": f"Bearer {xinfer_server.token}"}
    async with httpx.AsyncClient(base_url=xinfer_server.url, headers=headers, timeout=60) as http:
        answers = [asyncio.create_task(count(http, number)) for number in range(1, 9)]
        await asyncio.gather(*(each.wait() for each in begun))
        assert (await http.post(f"v1/models/{UID}/scale", json={"replica": 1})).status_code == 200
        texts = await asyncio.gather(*answers)
        series = (await http.get("metrics")).text
    for number, text in enumerate(texts, 1):
        assert text.rstrip(".").split(", ") == [str(each) for each in range(1, 101 - number)], text
    moved = re.findall(rf'^xinfer_moves_total{{model="{UID}",state="kept"}} (.*)$', series, re.MULTILINE)
    assert sum(map(float, moved)) > 0, series


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
