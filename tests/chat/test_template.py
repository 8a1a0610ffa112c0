"""Chat templates: conventions, errors, and the sandbox."""

import pytest

from xinfer_runtime.chat.template import ChatTemplate
from xinfer_runtime.errors import InvalidRequest
from xinfer_runtime.messages import ChatMessage, ToolCall

HI = (ChatMessage(role="user", content="hi"),)
TOOL = {"type": "function", "function": {"name": "add", "description": "a & b <c>"}}


def render(source: str, messages: tuple[ChatMessage, ...] = HI, **kwargs: object) -> str:
    return ChatTemplate(source, bos_token="<s>", eos_token="</s>").render(messages, **kwargs)  # type: ignore[arg-type]


def test_messages_and_tokens_are_rendered() -> None:
    source = (
        "{{ bos_token }}{% for m in messages %}[{{ m.role }}]{{ m['content'] }}{{ eos_token }}{% endfor %}"
        "{% if add_generation_prompt %}[assistant]{% endif %}"
    )
    assert render(source) == "<s>[user]hi</s>[assistant]"


def test_blocks_leave_no_lines_behind() -> None:
    assert render("{% for m in messages %}\n  {% if true %}\n{{ m.content }}\n  {% endif %}\n{% endfor %}") == "hi\n"


def test_loop_controls_work() -> None:
    assert render("{% for i in range(9) %}{% if i == 2 %}{% break %}{% endif %}{{ i }}{% endfor %}") == "01"


def test_tools_are_json_that_is_not_escaped_for_html() -> None:
    assert '"a & b <c>"' in render("{{ tools | tojson }}", tools=[TOOL])
    assert render("{{ tools is none }}") == "True"


def test_tool_calls_come_with_arguments_as_an_object() -> None:
    call = ToolCall(id="1", name="add", arguments='{"a": 1}')
    messages = (
        ChatMessage(role="assistant", tool_calls=(call,)),
        ChatMessage(role="tool", content="2", tool_call_id="1", name="add"),
    )
    source = (
        "{{ messages[0].content }}|{{ messages[0].tool_calls[0].function.arguments.a }}"
        "|{{ messages[1].tool_call_id }}|{{ messages[1].name }}"
    )
    assert render(source, messages) == "|1|1|add"


def test_thoughts_come_under_the_names_that_families_have_for_them() -> None:
    call = ToolCall(id="1", name="add", arguments="{}")
    source = "{{ messages[0].reasoning_content }}|{{ messages[0].thinking }}"
    spoken = ChatMessage(role="assistant", content="ok", reasoning="hm")

    assert render(source, (spoken,)) == "hm|hm"
    # gpt-oss' template refuses both together.
    assert render(source, (ChatMessage(role="assistant", content="ok", reasoning="hm", tool_calls=(call,)),)) == "hm|"
    assert render("{{ 'thinking' in messages[0] }}") == "False"


def test_arguments_that_are_no_json_object_stay_text() -> None:
    call = ToolCall(id="1", name="add", arguments="[1")
    message = ChatMessage(role="assistant", tool_calls=(call,))
    assert render("{{ messages[0].tool_calls[0].function.arguments }}", (message,)) == "[1"


def test_options_reach_the_template() -> None:
    assert render("{{ enable_thinking }}", options={"enable_thinking": False}) == "False"


@pytest.mark.parametrize("name", ["messages", "tools", "bos_token"])
def test_options_cannot_replace_what_the_request_says(name: str) -> None:
    with pytest.raises(InvalidRequest, match="template_kwargs"):
        render("x", options={name: "y"})


def test_every_string_of_the_request_is_protected() -> None:
    call = ToolCall(id="i", name="f", arguments='{"k": "v"}')
    message = ChatMessage(role="tool", content="c", name="n", tool_call_id="o", tool_calls=(call,))
    source = "{{ messages[0] | tojson }}{{ tools | tojson }}{{ extra }}"
    rendered = render(source, (message,), tools=[{"t": "u"}], options={"extra": "e"}, protect=lambda text: f"<{text}>")
    for text in "cnoifkvtue":
        assert f"<{text}>" in rendered


def test_the_templates_own_refusal_is_the_requests_error() -> None:
    with pytest.raises(InvalidRequest, match="alternate") as caught:
        render("{{ raise_exception('Roles must alternate') }}")
    assert caught.value.param == "messages"


def test_a_role_that_is_none_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="im_end"):
        render("{% for m in messages %}<|{{ m.role }}|>{% endfor %}", (ChatMessage(role="im_end", content=""),))


def test_a_template_that_does_not_compile_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="does not compile"):
        ChatTemplate("{% for %}")


@pytest.mark.parametrize(
    "source",
    [
        "{{ messages.append(1) }}",
        "{{ ''.__class__.__mro__[1].__subclasses__() }}",
        "{{ cycler.__init__.__globals__.os.system('true') }}",
        "{{ messages[0].__init__.__globals__ }}{{ 1 / 0 }}",
        "{% for i in range(10**9) %}{% endfor %}",
        "{{ 'x' * 10**9 }}",
        "{{ 10 ** 10 ** 10 }}",
        "{% include '/etc/passwd' %}",
        "{% for i in range(99999) %}{{ '%0999d' % 1 }}{% endfor %}",
        "{{ '%099999999999d' % 1 }}",
        "{{ '%0*d' % (9999999999, 1) }}",
        "{{ '{:>99999999999}'.format(1) }}",
        "{{ '{:>{}}'.format(1, 99999999999) }}",
        "{{ 'x'.ljust(99999999999) }}",
        "{{ 'x'|center(99999999999) }}",
        "{{ [1]|batch(99999999999, 'x')|list }}",
        "{{ [1]|slice(99999999999)|list }}",
        "{{ lipsum(n=99999999) }}",
        "{{ '%099999999999d'|format(1) }}",
        "{% set s = 'x' * 2000000 %}{{ s.replace('x', s) }}",
        "{% set s = 'x' * 2000000 %}{{ s|replace('x', s) }}",
        "{% set s = 'x' * 2000000 %}{{ ([s] * 2000000)|join }}",
        "{% set s = 'x' * 2000000 %}{{ ''.join([s] * 2000000) }}",
        "{% set s = 'x\n' * 1000000 %}{{ s|indent(1000000) }}",
        "{% set n = namespace(s='xxxxxxxx') %}{% for i in range(60) %}{% set n.s = n.s + n.s %}{% endfor %}",
        "{% set n = namespace(s='xxxxxxxx') %}{% for i in range(60) %}{% set n.s = n.s ~ n.s %}{% endfor %}",
        "{% set n = namespace(s=[1]) %}{% for i in range(60) %}{% set n.s = n.s + n.s %}{% endfor %}",
        "{% set n = namespace(x=9) %}{% for i in range(40) %}{% set n.x = n.x * n.x %}{% endfor %}",
        "{% set x = ('f' * 16000000)|int(base=16) %}{{ x // (x - 1) }}",
        "{{ undefined_function() }}",
        "{{ messages[7].content.x }}",
    ],
)
def test_a_hostile_or_broken_template_fails_its_request_only(source: str) -> None:
    with pytest.raises(InvalidRequest):
        render(source)


@pytest.mark.parametrize(
    "source",
    [
        "{% for a in range(99999) %}{% for b in range(999) %}{% endfor %}{% endfor %}",
        # Nothing but names and loops: nothing of it is a call.
        "{% set x = [1] * 99999 %}{% for a in x %}{% for b in x %}{% endfor %}{% endfor %}",
        "{% set x = [1] * 99999 %}{% for a in x recursive %}{{ loop(x) }}{% endfor %}",
        "{% macro f() %}{% for i in range(9) %}{{ f() }}{% endfor %}{% endmacro %}{{ f() }}",
    ],
)
def test_a_template_that_takes_too_long_is_stopped(monkeypatch: pytest.MonkeyPatch, source: str) -> None:
    monkeypatch.setattr("xinfer_runtime.chat.template_sandbox.MAX_SECONDS", 0.05)
    with pytest.raises(InvalidRequest, match=r"0\.05 s|recursion"):
        render(source)


def test_large_numbers_are_only_numbers() -> None:
    source = (
        "{% macro show(n) %}{{ n }}{% endmacro %}{{ show(67000000) }} {{ '%d' % 67000000 }} "
        "{{ '%d'|format(67000000) }} {{ '{}'.format(67000000) }} {{ '{:,}'.format(67000000) }} "
        "{{ none|default(67000000, true) }} {{ [67000000]|sum }} "
        "{{ '%.2f' % 67000000.5 }} {{ [1, 2]|batch(1)|list }}"
    )

    assert render(source) == ("67000000 67000000 67000000 67000000 67,000,000 67000000 67000000 67000000.50 [[1], [2]]")


def test_what_templates_do_with_texts_is_left_alone() -> None:
    source = (
        "{{ 'a' ~ 1 ~ none }}{{ 'b' + 'c' }}{{ '%02d' % 7 }}{{ '%s-%s'|format('d', 'e') }}{{ 'xy'.replace('x', 'z') }}"
        "{{ ['f', 'g']|join(', ') }}{{ 'abc'|replace('b', '') }}{{ 'k\nl'|indent(2) }}{{ [1] + [2] }}"
        "{{ messages|map(attribute='role')|join }}{% for i in range(3) if i %}{{ loop.index }}{% else %}no{% endfor %}"
    )

    assert render(source) == "a1Nonebc07d-ezyf, gack\n  l[1, 2]user12"


def test_whether_a_template_knows_tools_is_known() -> None:
    assert ChatTemplate("{% if tools %}{% endif %}").takes_tools
    assert not ChatTemplate("{{ messages }}").takes_tools
