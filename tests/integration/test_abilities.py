"""What is told of abilities that no loaded model has: over HTTP, and by the clients of OpenAI and Xinference."""

from collections.abc import Iterator
from typing import Any

import httpx
import openai
import pytest
from xinference_client.client.restful.restful_client import RESTfulAudioModelHandle, RESTfulImageModelHandle

from jupyter_xinfer.handlers.abilities import ABILITIES

PNG = b"\x89PNG\r\n\x1a\n"


@pytest.fixture
def http(xinfer_server: Any) -> Iterator[httpx.Client]:
    with xinfer_server.client() as client:
        yield client


@pytest.mark.parametrize("path", ABILITIES)
def test_the_missing_ability_is_named(http: httpx.Client, path: str) -> None:
    named = http.post(path.removeprefix("/"), json={"model": "xinfer-demo"})
    unnamed = http.post(path.removeprefix("/"), json={})
    unknown = http.post(path.removeprefix("/"), json={"model": "no-such-model"})

    assert (named.status_code, named.json()["error"]["param"]) == (400, "model")
    assert repr(ABILITIES[path]) in named.json()["detail"]
    assert unnamed.status_code == 404
    assert repr(ABILITIES[path]) in unnamed.json()["detail"]
    assert unknown.json()["error"]["code"] == "model_not_found"


def test_a_form_names_its_model_too(http: httpx.Client) -> None:
    form = {"data": {"model": "xinfer-demo"}, "files": {"file": ("a.wav", b"RIFF")}}

    assert "'audio2text'" in http.post("v1/audio/transcriptions", **form).json()["detail"]  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        ("multipart/form-data", b"--x"),
        ("multipart/form-data; boundary=x", b"no form"),
        (
            "multipart/form-data; boundary=x",
            b'--x\r\nContent-Disposition: form-data; name="a"\r\n\r\nb\r\n' * 65 + b"--x--",
        ),
        (
            "multipart/form-data; boundary=x",
            b'--x\r\nContent-Disposition: form-data; name="a"\r\n\r\n\xff\r\n--x--\r\n',
        ),
        ("multipart/form-data; boundary=x", b"--x\r\nA: " + b"a" * 5000 + b"\r\n\r\nb\r\n--x--\r\n"),
        ("application/x-www-form-urlencoded", b"&".join(b"a=%d" % n for n in range(100))),
        ("application/json", b"{"),
    ],
)
def test_a_body_that_is_no_form_is_the_callers_mistake(http: httpx.Client, content_type: str, body: bytes) -> None:
    answer = http.post("v1/audio/transcriptions", content=body, headers={"Content-Type": content_type})

    assert answer.status_code == 400, answer.text
    assert answer.json()["error"]["code"] == "invalid_request"
    assert "model" not in answer.json()["detail"]


# The client itself calls translations deprecated.
@pytest.mark.filterwarnings("ignore:deprecated:DeprecationWarning")
def test_openais_client_says_what_is_missing(xinfer_server: Any) -> None:
    with openai.OpenAI(base_url=f"{xinfer_server.url}v1", api_key=xinfer_server.token, max_retries=0) as client:
        for call in (
            lambda: client.audio.transcriptions.create(model="xinfer-demo", file=("a.wav", b"RIFF")),
            lambda: client.audio.translations.create(model="xinfer-demo", file=("a.wav", b"RIFF")),
            lambda: client.audio.speech.create(model="xinfer-demo", input="Hello", voice="alloy"),
            lambda: client.images.generate(model="xinfer-demo", prompt="A cat"),
            lambda: client.images.edit(model="xinfer-demo", prompt="A cat", image=("a.png", PNG)),
        ):
            with pytest.raises(openai.BadRequestError, match="does not have the ability") as refused:
                call()
            assert refused.value.param == "model"


def test_xinferences_handles_say_what_is_missing(xinfer_server: Any) -> None:
    where = ("xinfer-demo", xinfer_server.url.rstrip("/"), dict(xinfer_server.headers))
    audio, image = RESTfulAudioModelHandle(*where), RESTfulImageModelHandle(*where)
    try:
        for call in (
            lambda: audio.transcriptions(b"RIFF"),
            lambda: audio.translations(b"RIFF"),
            lambda: audio.speech("Hello"),
            lambda: image.text_to_image("A cat"),
            lambda: image.image_to_image(PNG, "A cat"),
            lambda: image.inpainting(PNG, PNG, "A cat"),
            lambda: image.ocr(PNG),
        ):
            with pytest.raises(RuntimeError, match="does not have the ability"):
                call()
    finally:
        audio.session.close()
        image.session.close()
