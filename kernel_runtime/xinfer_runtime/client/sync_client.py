"""The client for notebooks and scripts."""

import time
from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Self, TypeVar, Unpack, overload

import httpx

from xinfer_runtime.client import calls
from xinfer_runtime.client.answer_stream import DONE
from xinfer_runtime.client.calls import Call, ChatOptions, FurtherOptions, Sampling
from xinfer_runtime.client.completion import Completion
from xinfer_runtime.client.connection import connection_errors, http_options, request_options
from xinfer_runtime.client.description import ModelDescription, ModelEventLine, RegisteredModel, ServerDescription
from xinfer_runtime.client.discovery import discover
from xinfer_runtime.client.errors import ConnectionFailed
from xinfer_runtime.client.launch_watch import launch_cancelled, launch_is_over
from xinfer_runtime.client.model_view import ModelTable, ModelView
from xinfer_runtime.client.openai_client import openai_client
from xinfer_runtime.client.sse import SseDecoder
from xinfer_runtime.client.text_stream import TextStream
from xinfer_runtime.client.vectors import Ranked, Vector
from xinfer_runtime.errors import ModelNotFound
from xinfer_runtime.models import LaunchRequest

if TYPE_CHECKING:
    import openai

T = TypeVar("T")
Progress = Callable[[ModelDescription], object]


class Client:
    """A jupyter-xinfer server, seen from a notebook or a script.

    Without arguments it finds the server by itself: in a notebook, the Jupyter server that runs the kernel, with its
    identity; elsewhere the one that runs on this machine. `base_url` may be pasted from the browser, token and all.
    `verify` is False or a CA bundle, for a TLS certificate of one's own; `timeout` is in seconds and does not bound
    launches and generations.

    Raises:
        ServerNotFound: no server was found; the message lists what was tried.
    """

    def __init__(
        self,
        base_url: str | None = None,
        api_key: str | None = None,
        *,
        verify: bool | str | None = None,
        timeout: float = 60.0,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        self.endpoint = discover(base_url, api_key, verify=verify)
        self._timeout = timeout
        self._http = httpx.Client(transport=transport, **http_options(self.endpoint, timeout))

    @property
    def base_url(self) -> str:
        return self.endpoint.url

    def __repr__(self) -> str:
        return f"<Client {self.endpoint.url}>"

    def close(self) -> None:
        """Closes the connections."""
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def launch_model(
        self,
        model_name: str | None = None,
        *,
        model_path: str | None = None,
        model_uid: str | None = None,
        model_type: str = "LLM",
        model_engine: str | None = None,
        model_format: str | None = None,
        model_size_in_billions: int | float | str | None = None,
        quantization: str | None = None,
        replica: int = 1,
        n_gpu: int | str | None = "auto",
        context_length: int | None = None,
        wait_ready: bool = True,
        progress: Progress | None = None,
        replace: bool = False,
        **further: Unpack[FurtherOptions],
    ) -> str:
        """Launches a model and returns its uid, by default once it answers.

        `model_path` is a GGUF file on the nodes. `model_type` is read from the file where it was made for vectors or
        for ranking; "embedding" launches any other for vectors too. `context_length` is in tokens. `further` says where
        replicas run and what the engine shall do: `calls.FurtherOptions`. `progress` is called with the model's
        description at every change. Interrupting the wait does not stop the
        launch. `replace` puts it in the place of the model of its uid, which answers until then.

        Raises:
            ModelNotFound: no such name; the message has the nearest ones.
            Conflict: the uid is in use.
            DoesNotFit: no node has the memory.
            LaunchFailed: it was accepted, but did not become ready.
        """
        request = LaunchRequest(
            model_name=model_name,
            model_path=model_path,
            model_uid=model_uid,
            model_type=model_type,
            model_engine=model_engine,
            model_format=model_format,
            model_size_in_billions=model_size_in_billions,
            quantization=quantization,
            replica=replica,
            n_gpu=n_gpu,
            context_length=context_length,
            **further,
        )
        uid = self.send(calls.launch_model(request, replace=replace))
        if wait_ready:
            self.wait_until_ready(uid, progress)
        return uid

    def wait_until_ready(self, uid: str, progress: Progress | None = None) -> None:
        """Returns when the model is ready; raises as `launch_model` does when it will not be."""
        while True:
            with closing(self._changes(uid)) as changes:
                for model in changes:
                    if progress is not None:
                        progress(model)
                    if launch_is_over(model):
                        return
            # The stream ended without a verdict: the model is gone, or something in between closes long streams.
            try:
                if launch_is_over(self.describe_model(uid)):
                    return
            except ModelNotFound:
                raise launch_cancelled(uid) from None
            time.sleep(1)

    def list_models(self) -> ModelTable["Model"]:
        """The models on the cluster, by uid."""
        listing = self.send(calls.list_models())
        return ModelTable(Model(self, description) for description in listing.data)

    def get_model(self, uid: str) -> "Model":
        """A handle of a model. Raises ModelNotFound."""
        return Model(self, self.describe_model(uid))

    def describe_model(self, uid: str) -> ModelDescription:
        return self.send(calls.describe_model(uid))

    def terminate_model(self, uid: str) -> None:
        """Stops a model; its memory comes back. Raises ModelNotFound."""
        self.send(calls.terminate_model(uid))

    def scale_model(self, uid: str, replica: int) -> ModelDescription:
        """Has so many replicas of a model; returns before new ones are ready, and removed ones finish their answers.

        Raises ModelNotFound, InvalidRequest, DoesNotFit (then nothing changed).
        """
        return self.send(calls.scale_model(uid, replica))

    def model_events(self, uid: str) -> list[ModelEventLine]:
        """What happened to a model, oldest first."""
        return self.send(calls.model_events(uid))

    def list_model_registrations(self, model_type: str = "LLM") -> list[RegisteredModel]:
        """The models that can be launched by name."""
        return self.send(calls.registered_models(model_type))

    def info(self) -> ServerDescription:
        """The server's version and its cluster's state."""
        return self.send(calls.server_info())

    def send(self, call: Call[T]) -> T:
        """Sends a request of `xinfer_runtime.client.calls` and returns what its answer says."""
        request = self._http.build_request(**request_options(call, self.endpoint, self._timeout))
        with connection_errors(self.endpoint):
            response = self._http.send(request)
        if response.status_code != 200:
            raise calls.error_of(response.status_code, response.content, self.endpoint.url)
        return call.parse(response.content)

    def _open(self, call: Call[Any]) -> httpx.Response:
        request = self._http.build_request(**request_options(call, self.endpoint, self._timeout))
        with connection_errors(self.endpoint):
            response = self._http.send(request, stream=True)
            if response.status_code != 200:
                with closing(response):
                    raise calls.error_of(response.status_code, response.read(), self.endpoint.url)
        return response

    def _changes(self, uid: str) -> Generator[ModelDescription, None, None]:
        decoder = SseDecoder()
        with closing(self._open(calls.watch_model(uid))) as response:
            try:
                with connection_errors(self.endpoint):
                    for piece in response.iter_bytes():
                        for data in decoder.feed(piece):
                            if data == DONE:
                                return
                            yield calls.parse_model(data.encode())
            except ConnectionFailed:
                # What became of the model is asked next; if the server is gone, that says so.
                return


class Model(ModelView):
    """A handle of one model of a server."""

    def __init__(self, client: Client, description: ModelDescription) -> None:
        super().__init__(description, client.endpoint)
        self._client = client

    def refresh(self) -> Self:
        """Asks the server again."""
        self.description = self._client.describe_model(self.uid)
        return self

    @overload
    def chat(
        self,
        messages: str | Sequence[Any],
        *,
        stream: Literal[False] = False,
        tools: Sequence[dict[str, Any]] | None = None,
        **options: Unpack[ChatOptions],
    ) -> Completion: ...
    @overload
    def chat(
        self,
        messages: str | Sequence[Any],
        *,
        stream: Literal[True],
        tools: Sequence[dict[str, Any]] | None = None,
        **options: Unpack[ChatOptions],
    ) -> TextStream: ...
    def chat(
        self,
        messages: str | Sequence[Any],
        *,
        stream: bool = False,
        tools: Sequence[dict[str, Any]] | None = None,
        **options: Unpack[ChatOptions],
    ) -> Completion | TextStream:
        """Answers a conversation: OpenAI's messages, or a string for one message of the user.

        With `stream=True`, a `TextStream` that yields the text as it comes.
        """
        call = calls.chat(self.uid, messages, tools, stream, options)
        return TextStream(self._client._open(call), self._endpoint) if stream else self._client.send(call)

    @overload
    def generate(self, prompt: str, *, stream: Literal[False] = False, **sampling: Unpack[Sampling]) -> Completion: ...
    @overload
    def generate(self, prompt: str, *, stream: Literal[True], **sampling: Unpack[Sampling]) -> TextStream: ...
    def generate(self, prompt: str, *, stream: bool = False, **sampling: Unpack[Sampling]) -> Completion | TextStream:
        """Continues a text, without a chat template."""
        call = calls.generate(self.uid, prompt, stream, sampling)
        return TextStream(self._client._open(call), self._endpoint) if stream else self._client.send(call)

    def embed(
        self, texts: str | Sequence[str], *, dimensions: int | None = None, truncate: bool = False
    ) -> list[Vector]:
        """A vector of each text, of length 1; `numpy.array` makes a matrix of them.

        `dimensions` keeps the first so many numbers. Texts that are too long are refused unless `truncate` cuts them.
        """
        texts = [texts] if isinstance(texts, str) else texts
        return self._client.send(calls.embed(self.uid, texts, dimensions, truncate))

    def rerank(
        self, query: str, documents: Sequence[str], *, top_n: int | None = None, truncate: bool = False
    ) -> list[Ranked]:
        """The documents by how relevant they are to the query, the best first, `top_n` of them."""
        return self._client.send(calls.rerank(self.uid, query, documents, top_n, truncate))

    def terminate(self) -> None:
        """Stops the model."""
        self._client.terminate_model(self.uid)

    def openai(self) -> "openai.OpenAI":
        """OpenAI's client for this server; pass the uid as `model`. Needs the package `openai`."""
        return openai_client(self._endpoint)
