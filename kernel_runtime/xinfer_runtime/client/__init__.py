"""Talking to a jupyter-xinfer server from Python."""

from xinfer_runtime.client.async_client import AsyncClient, AsyncModel
from xinfer_runtime.client.completion import Completion
from xinfer_runtime.client.sync_client import Client, Model
from xinfer_runtime.client.text_stream import AsyncTextStream, TextStream

__all__ = ["AsyncClient", "AsyncModel", "AsyncTextStream", "Client", "Completion", "Model", "TextStream"]
