"""The bodies of tokenize and detokenize, as vLLM's and llama-server's clients know them."""

import json
from typing import Any

import pytest

from jupyter_xinfer.protocol.decoding import decode
from jupyter_xinfer.protocol.tokens import DetokenizeRequest, TokenizeRequest
from xinfer_runtime.errors import InvalidRequest
from xinfer_runtime.messages import Delta, Tokenization

USER = {"role": "user", "content": "Hi"}
ANSWER = Delta("id", token_ids=(5, 6), pieces=(b"a", b"\xe5"))


def tokenize(**fields: Any) -> TokenizeRequest:
    return decode(json.dumps(fields).encode(), TokenizeRequest)


@pytest.mark.parametrize(
    ("fields", "tokenization"),
    [
        ({"prompt": "a"}, Tokenization()),
        ({"prompt": "a", "add_special_tokens": False}, Tokenization(begin=False)),
        ({"messages": [USER]}, Tokenization(begin=False)),
        ({"content": "a"}, Tokenization(begin=False)),
        ({"content": "a", "add_special": True, "parse_special": False}, Tokenization(control=False)),
    ],
)
def test_each_dialect_has_its_own_defaults(fields: dict[str, Any], tokenization: Tokenization) -> None:
    assert tokenize(**fields).request("id").tokenize == tokenization


def test_options_of_the_template_reach_it() -> None:
    request = tokenize(messages=[USER], add_generation_prompt=False, chat_template_kwargs={"x": 1}).request("id")

    assert request.template_kwargs == {"x": 1, "add_generation_prompt": False}


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({}, "prompt"),
        ({"prompt": "a", "messages": [USER]}, "prompt"),
        ({"messages": [USER], "continue_final_message": True}, "continue_final_message"),
        ({"messages": [{"role": "user"}]}, "messages[0].content"),
        ({"prompt": "a", "surprise": 1}, "surprise"),
    ],
)
def test_a_refusal_names_the_field(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        tokenize(**fields).request("id")

    assert refused.value.param == param


def test_answers_have_the_shape_of_whom_was_asked_like() -> None:
    assert tokenize(prompt="a").answer(ANSWER, 100) == {
        "count": 2,
        "max_model_len": 100,
        "tokens": (5, 6),
        "token_strs": None,
    }
    assert tokenize(prompt="a", return_token_strs=True).answer(ANSWER, 100)["token_strs"] == ["a", "\ufffd"]
    assert tokenize(content="a").answer(ANSWER, 100) == {"tokens": (5, 6)}
    pieces = [{"id": 5, "piece": "a"}, {"id": 6, "piece": [0xE5]}]
    assert tokenize(content="a", with_pieces=True).answer(ANSWER, 100) == {"tokens": pieces}


def test_text_comes_back_under_both_names() -> None:
    body = decode(b'{"tokens": [1, 2]}', DetokenizeRequest)

    assert body.request("id").token_ids == (1, 2)
    assert body.answer(Delta("id", "text")) == {"prompt": "text", "content": "text"}
