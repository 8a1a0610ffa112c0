"""The images of a request, within bounds."""

import base64
import json
import struct
from typing import Any

import pytest

from jupyter_xinfer.images import image_parts
from jupyter_xinfer.images.fetch import Fetcher
from jupyter_xinfer.images.image_parts import images_for, load_images
from jupyter_xinfer.protocol.decoding import decode
from jupyter_xinfer.protocol.openai_requests import ChatRequest
from xinfer_runtime.errors import InvalidRequest, ModelNotReady
from xinfer_runtime.models import ModelInfo, ModelSpec, ModelStatus, Replica


def png(width: int = 4, height: int = 4, size: int = 0) -> bytes:
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I4sII", 13, b"IHDR", width, height) + b"\0" * size


def data_url(data: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(data).decode()


def request(*urls: Any) -> ChatRequest:
    parts = [{"type": "text", "text": "What is it?"}]
    parts += [{"type": "image_url", "image_url": url if isinstance(url, str) else {"url": url[0]}} for url in urls]
    messages = [{"role": "system", "content": "Look."}, {"role": "user", "content": parts}]
    return decode(json.dumps({"model": "m", "messages": messages}).encode(), ChatRequest)


def status(*abilities: str) -> ModelStatus:
    info = ModelInfo(context_length=1, vocab_size=1, abilities=abilities)
    return ModelStatus(spec=ModelSpec(uid="m", name="m"), replicas=(Replica(id="r", uid="m", info=info),))


async def test_images_go_with_their_message_in_their_order() -> None:
    body = request([data_url(png(1))], data_url(png(2)))

    images = await images_for(status("chat", "vision"), body.messages, None)
    system, user = body.to_generate("id", images).messages or ()

    assert [image.data for image in user.images] == [png(1), png(2)]
    assert [image.place for image in user.images] == ["messages[1].content[1]", "messages[1].content[2]"]
    assert [image.offset for image in user.images] == [len("What is it?")] * 2
    assert user.content == "What is it?"
    assert system.images == ()


async def test_a_model_that_takes_text_only_refuses_the_first_image_unseen() -> None:
    with pytest.raises(InvalidRequest, match="text only") as refused:
        await images_for(status("chat"), request(["http://localhost/"]).messages, None)

    assert refused.value.param == "messages[1].content[1]"


async def test_a_model_that_is_still_being_loaded_is_said_to_be() -> None:
    with pytest.raises(ModelNotReady):
        await images_for(ModelStatus(spec=ModelSpec(uid="m", name="m")), request(["x"]).messages, None)


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("https://example.com/a.png", "fetches none by URL"),
        ("file:///etc/passwd", "fetches none by URL"),
        ("data:text/html;base64,AAAA", "must begin with"),
        ("data:image/png,AAAA", "must begin with"),
        ("data:image/png;base64,?", "not Base64"),
        ("data:image/png;base64,AAAA AAAA", "not Base64"),
        ("data:image/png;base64,\u00e4", "not Base64"),
        ("data:image/png;base64,", "none of PNG"),
        ("data:image/svg+xml;base64," + base64.b64encode(b"<svg/>").decode(), "none of PNG"),
        (data_url(png(100_000, 100_000)), "100000 times 100000 pixels"),
        (data_url(png(size=9 * 2**20)), "more than 8 MiB"),
    ],
)
async def test_a_refusal_names_the_part_and_the_reason(url: str, reason: str) -> None:
    with pytest.raises(InvalidRequest, match=reason) as refused:
        await load_images(request([url]).messages, None)

    assert refused.value.param == "messages[1].content[1]"


async def test_a_part_without_a_url_is_refused() -> None:
    with pytest.raises(InvalidRequest) as refused:
        await load_images(request("").messages, None)

    assert refused.value.param == "messages[1].content[1].image_url.url"


async def test_images_are_bounded_in_number_and_together(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InvalidRequest, match="at most 16") as refused:
        await load_images(request(*[[data_url(png())]] * 17).messages, None)
    assert refused.value.param == "messages[1].content[17]"

    monkeypatch.setattr(image_parts, "MAX_TOTAL_BYTES", 2**20)
    with pytest.raises(InvalidRequest, match="1 MiB together") as refused:
        await load_images(request(*[[data_url(png(size=2**19))]] * 3).messages, None)
    assert refused.value.param == "messages[1].content[2]"


async def test_a_url_is_fetched_only_from_allowed_hosts() -> None:
    with pytest.raises(InvalidRequest, match=r"not fetched from example\.com"):
        await load_images(request(["https://example.com/a.png"]).messages, Fetcher(["images.example.org"]))
