"""Who may have which files of the nodes opened.

A launch names files by paths, and nodes open them with their own rights: without a rule, whoever may launch models
could find out which files there are, and use those of others. An administrator may name any file, everybody else those
below the folders that the administrator set. Files of hubs, and models by name, are no files of a node here.
"""

import posixpath
from collections.abc import Iterable, Sequence

from jupyter_xinfer.auth.permissions import ADMIN
from jupyter_xinfer.auth.principal import Principal
from xinfer_runtime.catalog.families import Family
from xinfer_runtime.catalog.hub_reference import is_hub_reference
from xinfer_runtime.errors import InvalidRequest, PermissionDenied
from xinfer_runtime.models import LaunchRequest

_SUFFIX = ".gguf"


class NodeFiles:
    """`folders` are those whose files everybody may name. Raises InvalidRequest for one that is no absolute path."""

    def __init__(self, folders: Sequence[str] = ()) -> None:
        for folder in folders:
            if not folder.startswith("/") or folder.rstrip("/") != posixpath.normpath(folder).rstrip("/"):
                raise InvalidRequest(
                    f"XinferApp.model_folders: {folder!r} must be an absolute path without . and ..",
                    param="model_folders",
                )
        self._folders = tuple(posixpath.normpath(folder).rstrip("/") + "/" for folder in folders)

    def require(self, caller: Principal, files: Iterable[tuple[str, str]]) -> None:
        """Raise PermissionDenied, naming the field, unless the caller may name all `files`, pairs of field and path.

        Nothing is looked up: the answer is the same for files that exist and for others.
        """
        if ADMIN in caller.permissions:
            return
        for field, path in files:
            if not self._allows(path):
                raise PermissionDenied(
                    f"`{field}`: only administrators may name any file on the nodes; you may name those in the folders "
                    "that they allow (XinferApp.model_folders), by absolute paths without . and .. in them. Or use a "
                    "model by its name or from a hub, or ask an administrator to register this one.",
                    param=field,
                )

    def _allows(self, path: str) -> bool:
        # As text, since the file is on another machine: what ".." or a link in the path means is known only there.
        return posixpath.normpath(path) == path and path.startswith(self._folders)


def files_of_launch(request: LaunchRequest) -> list[tuple[str, str]]:
    """The files of the nodes that a launch names, each with its field."""
    files = []
    name = request.model_name or ""
    if request.model_path:
        files.append(("model_path", request.model_path))
    elif name.lower().endswith(_SUFFIX):
        files.append(("model_name", name))
    files = [(field, path) for field, path in files if not is_hub_reference(path)]
    if request.draft_model is not None and request.draft_model.lower().endswith(_SUFFIX):
        files.append(("draft_model", request.draft_model))
    if (projector := request.multimodal_projector) is not None:
        # One without a folder lies beside the model.
        files.append(("multimodal_projector", posixpath.join(posixpath.dirname(request.model_path or ""), projector)))
    for adapter in (request.lora or {}).values():
        files.append(("lora", adapter if isinstance(adapter, str) else adapter.path))
    return files


def files_of_registration(family: Family) -> list[tuple[str, str]]:
    """The files of the nodes that a registered model is of."""
    return [
        ("model_uri", path)
        for spec in family.specs
        for path in spec.quantizations.values()
        if not is_hub_reference(path)
    ]
