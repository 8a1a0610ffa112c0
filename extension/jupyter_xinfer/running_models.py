"""The models of the cluster as the caller of a request may see them."""

from collections.abc import Callable, Mapping
from typing import Any

from jupyter_xinfer.abilities import has_ability
from jupyter_xinfer.auth.principal import current_principal
from jupyter_xinfer.cluster_access import ClusterAccess, ClusterState
from jupyter_xinfer.protocol.adapter_names import uid_of
from jupyter_xinfer.protocol.model_objects import model_object
from jupyter_xinfer.registrations import Registrations
from xinfer_runtime.catalog.families import Family, find_family
from xinfer_runtime.cluster.session import ClusterSession
from xinfer_runtime.errors import ClusterUnavailable, InvalidRequest, ModelNotFound, NotFound
from xinfer_runtime.models import EngineStats, ModelSpec, ModelStatus


class RunningModels:
    """`stats` gives the load of a model's ready replicas by their ids."""

    def __init__(
        self,
        cluster: ClusterAccess,
        registrations: Registrations,
        stats: Callable[[str], Mapping[str, EngineStats]],
    ) -> None:
        self._cluster = cluster
        self._registrations = registrations
        self._stats = stats

    def status(self, uid: str) -> ModelStatus:
        """The model `uid`. Raises `ModelNotFound`, naming the models there are, or `PermissionDenied`.

        Raises `ClusterUnavailable` while it is not known what runs.
        """
        caller = current_principal()
        caller.require_model(uid)
        session = self._known_cluster()
        status = session.models.get(uid) if session is not None else None
        if status is None:
            running = ", ".join(sorted(filter(caller.may_use, session.models))) if session is not None else ""
            there = f"Running models: {running}." if running else "No model is running."
            raise ModelNotFound(f"No model {uid!r} is running. {there} Launch one first.", param="model")
        return status

    def specs(self) -> list[ModelSpec]:
        """Of all models, also of those that the caller may not see: for decisions, and not for answers."""
        session = self._known_cluster()
        return [status.spec for status in session.models.values()] if session is not None else []

    def _known_cluster(self) -> ClusterSession | None:
        """The cluster, None where there is none yet. Raises `ClusterUnavailable` while it is not known what it runs."""
        session = self._cluster.session
        if session is None and self._cluster.state is not ClusterState.STOPPED:
            raise ClusterUnavailable(
                f"The cluster is {self._cluster.state}: what it runs is not known yet; try again in a moment. "
                f"{self._cluster.message}".strip()
            )
        return session

    def describe(self, uid: str) -> dict[str, Any]:
        status = self.status(uid)
        return model_object(status, self._stats(uid), self._family(status.spec))

    def describe_all(self) -> list[dict[str, Any]]:
        session = self._cluster.session
        may_use = current_principal().may_use
        return [self.describe(uid) for uid in sorted(filter(may_use, session.models))] if session is not None else []

    def _family(self, spec: ModelSpec) -> Family | None:
        """What is known of the model by its name; nothing of a file that was launched by its path alone."""
        if not spec.path:
            return find_family(spec.name)
        registration = self._registrations.find(spec.name)
        if registration is None or not registration.family.has_file(spec.path):
            return None
        return registration.family

    def named_or_only(self, name: str | None) -> str:
        """`name`; or the only model that runs and that the caller may use, for clients that know of no names."""
        if name:
            return name
        usable = [model["id"] for model in self.describe_all()]
        if len(usable) != 1:
            raise InvalidRequest(f"`model` is required: {len(usable)} models are running.", param="model")
        return str(usable[0])

    def named_or_able(self, name: str | None, ability: str) -> str:
        """`name`; or the only model that runs with this ability and that the caller may use."""
        if name:
            return name
        uids = [each["id"] for each in self.describe_all()]
        able = [str(uid) for uid in uids if has_ability(self.status(uid), ability)]
        if not able:
            raise NotFound(f"No loaded model has the ability {ability!r}.", param="model")
        if len(able) > 1:
            raise InvalidRequest(f"`model` is required: {', '.join(able)} have the ability {ability!r}.", param="model")
        return able[0]

    def context_length(self, model: str) -> int:
        """Tokens that one conversation may hold; 0 while no replica has said so."""
        replicas = self.status(uid_of(model)).replicas
        return next((replica.info.context_length for replica in replicas if replica.info is not None), 0)
