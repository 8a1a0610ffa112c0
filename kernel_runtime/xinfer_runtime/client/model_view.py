"""What handles of both clients know of their model without asking the server."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Generic, TypeVar

from xinfer_runtime.client.description import ModelDescription
from xinfer_runtime.client.endpoint import Endpoint
from xinfer_runtime.client.table import describe_state, html_table, text_table


class ModelView:
    """A model as it was when the server was asked; `description` has every field."""

    def __init__(self, description: ModelDescription, endpoint: Endpoint) -> None:
        self.description = description
        self._endpoint = endpoint

    @property
    def uid(self) -> str:
        return self.description.model_uid

    @property
    def state(self) -> str:
        return self.description.state

    @property
    def abilities(self) -> tuple[str, ...]:
        return self.description.model_ability

    @property
    def base_url(self) -> str:
        """What an OpenAI client takes as `base_url`; its `model` is the uid, its `api_key` the server's token."""
        return self._endpoint.join("v1")

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.uid!r} {describe_state(self.description)} at {self.base_url}>"

    def _repr_html_(self) -> str:
        return html_table([self.description])


M = TypeVar("M", bound=ModelView)


class ModelTable(Mapping[str, M], Generic[M]):
    """Models by uid, shown as a table."""

    def __init__(self, models: Iterable[M]) -> None:
        self._models = {model.uid: model for model in models}

    def __getitem__(self, uid: str) -> M:
        return self._models[uid]

    def __iter__(self) -> Iterator[str]:
        return iter(self._models)

    def __len__(self) -> int:
        return len(self._models)

    @property
    def descriptions(self) -> list[ModelDescription]:
        return [model.description for model in self._models.values()]

    def __repr__(self) -> str:
        return text_table(self.descriptions)

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        del cycle
        printer.text(repr(self))

    def _repr_html_(self) -> str:
        return html_table(self.descriptions)
