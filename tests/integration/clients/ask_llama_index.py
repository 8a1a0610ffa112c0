"""Asks the server through LlamaIndex's model for servers like OpenAI's, and prints what it understood as JSON."""

import asyncio
import json
import sys

from llama_index.core.base.llms.types import ChatMessage
from llama_index.core.tools import FunctionTool
from llama_index.llms.openai_like import OpenAILike

URL, KEY = sys.argv[1:]
CAPITAL = "What is the capital of France?"


def get_weather(city: str) -> str:
    """Get the weather in a city"""
    return f"sunny in {city}"


def llm(**options: bool) -> OpenAILike:
    return OpenAILike(
        model="xinfer-demo", api_base=URL, api_key=KEY, context_window=1024, temperature=0, max_retries=0, **options
    )


chat = llm(is_chat_model=True, is_function_calling_model=True)
messages = [ChatMessage(role="user", content=CAPITAL)]
tool = FunctionTool.from_defaults(get_weather)
asked = chat.chat_with_tools([tool], user_msg="What is the weather in Rome?")
calls = chat.get_tool_calls_from_response(asked, error_on_no_tool_call=False)
print(
    json.dumps(
        {
            "whole": chat.chat(messages).message.content,
            "stream": "".join(part.delta or "" for part in chat.stream_chat(messages)),
            "asynchronous": asyncio.run(chat.achat(messages)).message.content,
            "completion": llm(is_chat_model=False).complete("Once upon a time").text,
            "calls": [[call.tool_name, call.tool_kwargs] for call in calls],
        }
    )
)
