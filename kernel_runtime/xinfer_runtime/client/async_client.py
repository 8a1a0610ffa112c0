"""The client for asyncio. It differs from the synchronous one only in how bytes are sent and read."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Self, TypeVar, Unpack, overload

import httpx

from xinfer_runtime.client import calls
from xinfer_runtime.client.answer_stream import DONE
from xinfer_runtime.client.calls import Call, ChatOptions, LaunchOptions, Sampling
from xinfer_runtime.client.completion import Completion
from xinfer_runtime.client.connection import connection_errors, http_options, request_options
from xinfer_runtime.client.description import ModelDescription, ModelEventLine, RegisteredModel, ServerDescription
from xinfer_runtime.client.discovery import discover
from xinfer_runtime.client.errors import ConnectionFailed
from xinfer_runtime.client.launch_watch import launch_cancelled, launch_is_over
from xinfer_runtime.client.model_view import ModelTable, ModelView
from xinfer_runtime.client.openai_client import async_openai_client
from xinfer_runtime.client.sse import SseDecoder
from xinfer_runtime.client.sync_client import Progress
from xinfer_runtime.client.text_stream import AsyncTextStream
from xinfer_runtime.client.vectors import Ranked, Vector
from xinfer_runtime.errors import ModelNotFound
from xinfer_runtime.models import LaunchRequest

if TYPE_CHECKING:
    import openai

T = TypeVar("T")


class AsyncClient:
    """As `Client`, with `await`: the same arguments, methods and errors."""

    def __init__(
        self,
        base_url: str | None = None,
        api_key: str | None = None,
        *,
        verify: bool | str | None = None,
        timeout: float = 60.0,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self.endpoint = discover(base_url, api_key, verify=verify)
        self._timeout = timeout
        self._http = httpx.AsyncClient(transport=transport, **http_options(self.endpoint, timeout))

    @property
    def base_url(self) -> str:
        return self.endpoint.url

    def __repr__(self) -> str:
        return f"<AsyncClient {self.endpoint.url}>"

    async def aclose(self) -> None:
        """Closes the connections."""
        await self._http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def launch_model(
        self,
        model_name: str | None = None,
        *,
        wait_ready: bool = True,
        progress: Progress | None = None,
        replace: bool = False,
        **options: Unpack[LaunchOptions],
    ) -> str:
        """Launches a model and returns its uid, by default once it answers; see `Client.launch_model`."""
        request = LaunchRequest(model_name=model_name, **options)
        uid = await self.send(calls.launch_model(request, replace=replace))
        if wait_ready:
            await self.wait_until_ready(uid, progress)
        return uid

    async def wait_until_ready(self, uid: str, progress: Progress | None = None) -> None:
        """Returns when the model is ready; raises as `launch_model` does when it will not be."""
        while True:
            async with aclosing(self._changes(uid)) as changes:
                async for model in changes:
                    if progress is not None:
                        progress(model)
                    if launch_is_over(model):
                        return
            # The stream ended without a verdict: the model is gone, or something in between closes long streams.
            try:
                if launch_is_over(await self.describe_model(uid)):
                    return
            except ModelNotFound:
                raise launch_cancelled(uid) from None
            await asyncio.sleep(1)

    async def list_models(self) -> ModelTable["AsyncModel"]:
        """The models on the cluster, by uid."""
        listing = await self.send(calls.list_models())
        return ModelTable(AsyncModel(self, description) for description in listing.data)

    async def get_model(self, uid: str) -> "AsyncModel":
        """A handle of a model. Raises ModelNotFound."""
        return AsyncModel(self, await self.describe_model(uid))

    async def describe_model(self, uid: str) -> ModelDescription:
        return await self.send(calls.describe_model(uid))

    async def terminate_model(self, uid: str) -> None:
        """Stops a model; its memory comes back. Raises ModelNotFound."""
        await self.send(calls.terminate_model(uid))

    async def scale_model(self, uid: str, replica: int) -> ModelDescription:
        """Has so many replicas of a model; see `Client.scale_model`."""
        return await self.send(calls.scale_model(uid, replica))

    async def model_events(self, uid: str) -> list[ModelEventLine]:
        """What happened to a model, oldest first."""
        return await self.send(calls.model_events(uid))

    async def list_model_registrations(self, model_type: str = "LLM") -> list[RegisteredModel]:
        """The models that can be launched by name."""
        return await self.send(calls.registered_models(model_type))

    async def info(self) -> ServerDescription:
        """The server's version and its cluster's state."""
        return await self.send(calls.server_info())

    async def send(self, call: Call[T]) -> T:
        """Sends a request of `xinfer_runtime.client.calls` and returns what its answer says."""
        request = self._http.build_request(**request_options(call, self.endpoint, self._timeout))
        with connection_errors(self.endpoint):
            response = await self._http.send(request)
        if response.status_code != 200:
            raise calls.error_of(response.status_code, response.content, self.endpoint.url)
        return call.parse(response.content)

    async def _open(self, call: Call[Any]) -> httpx.Response:
        request = self._http.build_request(**request_options(call, self.endpoint, self._timeout))
        with connection_errors(self.endpoint):
            response = await self._http.send(request, stream=True)
            if response.status_code != 200:
                try:
                    raise calls.error_of(response.status_code, await response.aread(), self.endpoint.url)
                finally:
                    await response.aclose()
        return response

    async def _changes(self, uid: str) -> AsyncGenerator[ModelDescription, None]:
        decoder = SseDecoder()
        response = await self._open(calls.watch_model(uid))
        async with aclosing(response):
            try:
                with connection_errors(self.endpoint):
                    async for piece in response.aiter_bytes():
                        for data in decoder.feed(piece):
                            if data == DONE:
                                return
                            yield calls.parse_model(data.encode())
            except ConnectionFailed:
                # What became of the model is asked next; if the server is gone, that says so.
                return


class AsyncModel(ModelView):
    """A handle of one model of a server."""

    def __init__(self, client: AsyncClient, description: ModelDescription) -> None:
        super().__init__(description, client.endpoint)
        self._client = client

    async def refresh(self) -> Self:
        """Asks the server again."""
        self.description = await self._client.describe_model(self.uid)
        return self

    @overload
    async def chat(
        self,
        messages: str | Sequence[Any],
        *,
        stream: Literal[False] = False,
        tools: Sequence[dict[str, Any]] | None = None,
        **options: Unpack[ChatOptions],
    ) -> Completion: ...
    @overload
    async def chat(
        self,
        messages: str | Sequence[Any],
        *,
        stream: Literal[True],
        tools: Sequence[dict[str, Any]] | None = None,
        **options: Unpack[ChatOptions],
    ) -> AsyncTextStream: ...
    async def chat(
        self,
        messages: str | Sequence[Any],
        *,
        stream: bool = False,
        tools: Sequence[dict[str, Any]] | None = None,
        **options: Unpack[ChatOptions],
    ) -> Completion | AsyncTextStream:
        """Answers a conversation: OpenAI's messages, or a string for one message of the user.

        With `stream=True`, an `AsyncTextStream` that yields the text as it comes.
        """
        call = calls.chat(self.uid, messages, tools, stream, options)
        if stream:
            return AsyncTextStream(await self._client._open(call), self._endpoint)
        return await self._client.send(call)

    @overload
    async def generate(
        self, prompt: str, *, stream: Literal[False] = False, **sampling: Unpack[Sampling]
    ) -> Completion: ...
    @overload
    async def generate(
        self, prompt: str, *, stream: Literal[True], **sampling: Unpack[Sampling]
    ) -> AsyncTextStream: ...
    async def generate(
        self, prompt: str, *, stream: bool = False, **sampling: Unpack[Sampling]
    ) -> Completion | AsyncTextStream:
        """Continues a text, without a chat template."""
        call = calls.generate(self.uid, prompt, stream, sampling)
        if stream:
            return AsyncTextStream(await self._client._open(call), self._endpoint)
        return await self._client.send(call)

    async def embed(
        self, texts: str | Sequence[str], *, dimensions: int | None = None, truncate: bool = False
    ) -> list[Vector]:
        """A vector of each text, of length 1; `numpy.array` makes a matrix of them.

        `dimensions` keeps the first so many numbers. Texts that are too long are refused unless `truncate` cuts them.
        """
        texts = [texts] if isinstance(texts, str) else texts
        return await self._client.send(calls.embed(self.uid, texts, dimensions, truncate))

    async def rerank(
        self, query: str, documents: Sequence[str], *, top_n: int | None = None, truncate: bool = False
    ) -> list[Ranked]:
        """The documents by how relevant they are to the query, the best first, `top_n` of them."""
        return await self._client.send(calls.rerank(self.uid, query, documents, top_n, truncate))

    async def terminate(self) -> None:
        """Stops the model."""
        await self._client.terminate_model(self.uid)

    def openai(self) -> "openai.AsyncOpenAI":
        """OpenAI's client for this server; pass the uid as `model`. Needs the package `openai`."""
        return async_openai_client(self._endpoint)
