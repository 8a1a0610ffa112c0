"""How families of models write tool calls, and which of them a chat template asks for."""

from dataclasses import replace

from xinfer_runtime.chat import call_spelling as spelling
from xinfer_runtime.chat.tool_calls import CLOSE, HERMES, OPEN, ToolFormat
from xinfer_runtime.chat.tool_readers import (
    read_deepseek,
    read_gemma,
    read_glm,
    read_invoke,
    read_json,
    read_kimi,
    read_mistral,
    read_python,
    read_xml,
)

# DeepSeek's marks are spelled with full-width bars and block characters.
_DEEPSEEK = ("<｜tool▁calls▁begin｜>", "<｜tool▁calls▁end｜>")  # noqa: RUF001

LLAMA = ToolFormat("<|python_tag|>", "", read_json, bare=True, spellings=(spelling.LLAMA,))
MISTRAL = ToolFormat("[TOOL_CALLS]", "", read_mistral, spellings=(spelling.listed(), spelling.MISTRAL))
DEEPSEEK = ToolFormat(*_DEEPSEEK, read_deepseek, spellings=(spelling.DEEPSEEK_R1, spelling.DEEPSEEK))
GLM = ToolFormat(OPEN, CLOSE, read_glm)
QWEN_CODER = ToolFormat(OPEN, CLOSE, read_xml)
SEED = ToolFormat("<seed:tool_call>", "</seed:tool_call>", read_xml)
MINIMAX = ToolFormat("<minimax:tool_call>", "</minimax:tool_call>", read_invoke)
GEMMA = ToolFormat("<start_function_call>", "<end_function_call>", read_gemma)
GEMMA_4 = ToolFormat("<|tool_call>", "<tool_call|>", read_gemma)
KIMI = ToolFormat("<|tool_calls_section_begin|>", "<|tool_calls_section_end|>", read_kimi, spellings=(spelling.KIMI,))
COMMAND = ToolFormat("<|START_ACTION|>", "<|END_ACTION|>", read_json, spellings=(spelling.COMMAND,))
NEMOTRON = ToolFormat("<TOOLCALL>", "</TOOLCALL>", read_json, spellings=(spelling.listed("</TOOLCALL>"),))
GRANITE = ToolFormat(
    "<|tool_call|>",
    "",
    lambda block: read_json(block.replace("<|/tool_call|>", "")),
    spellings=(spelling.listed(), spelling.listed("<|/tool_call|>")),
)
"""Granite 3 and Phi-4 mini, of which only the latter writes an end."""
CALL_LIST = ToolFormat(
    "<tool_calls>",
    "</tool_calls>",
    read_json,
    spellings=(spelling.CALL_LIST, spelling.listed("</tool_calls>")),
)
"""MiniMax-M1 and Apriel."""
LFM = ToolFormat("<|tool_call_start|>", "<|tool_call_end|>", read_python)
UNKNOWN = ToolFormat(OPEN, CLOSE, read_json, bare=True, spellings=(spelling.tagged(OPEN, CLOSE),))
"""Of a template that shows no format: Hermes' tags are the most usual, and JSON without tags is a call too."""

# The first whose mark is in the template: later ones are found in templates of earlier families too.
_BY_MARK: tuple[tuple[str, ToolFormat], ...] = (
    (_DEEPSEEK[0], DEEPSEEK),
    ("[TOOL_CALLS]", MISTRAL),
    ("<start_function_call>", GEMMA),
    ("<|tool_call>", GEMMA_4),
    ("<|tool_calls_section_begin|>", KIMI),
    ("<|START_ACTION|>", COMMAND),
    ("<TOOLCALL>", NEMOTRON),
    ("<minimax:tool_call>", MINIMAX),
    ("<seed:tool_call>", SEED),
    ("<|tool_call_start|>", LFM),
    ("<|tool_call|>", GRANITE),
    ("<arg_key>", GLM),
    ("<function=", QWEN_CODER),
    ("<tool_calls>", CALL_LIST),
    (OPEN, HERMES),
    ("<|python_tag|>", LLAMA),
    ("<|start_header_id|>", LLAMA),
)


def tool_format(template: str) -> ToolFormat:
    """The format that the chat template `template` shows its model."""
    return next((format for mark, format in _BY_MARK if mark in template), UNKNOWN)


def json_format(format: ToolFormat) -> ToolFormat:
    """`format`, or where it has no JSON, its marks with JSON between them: what a grammar can keep calls to."""
    if format.spellings:
        return format
    spellings = (spelling.tagged(format.opening, format.closing),)
    return replace(format, read=read_json, spellings=spellings)
