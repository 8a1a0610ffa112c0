"""Where the file of a model is on this node."""

from importlib import resources
from pathlib import Path

from xinfer_runtime.catalog.families import find_family
from xinfer_runtime.catalog.hub_files import HubFiles
from xinfer_runtime.catalog.hub_reference import is_hub_reference
from xinfer_runtime.errors import ModelFileError
from xinfer_runtime.models import ModelSpec


def locate(spec: ModelSpec) -> Path:
    """The file of `spec` on this node, which exists. Of one on a hub that was not downloaded, only the header is here.

    Raises ModelFileError where there is none, DoesNotFit and Unavailable for what a hub has.
    """
    if is_hub_reference(spec.path):
        # Replicas come here too, with the path of a file: they shall not load what speaks HTTP for nothing.
        from xinfer_runtime.catalog.hub_download import fetch_header

        files = HubFiles()
        reference = files.reference(spec.path)
        return files.complete(reference) or fetch_header(reference, files)
    path = Path(spec.path).expanduser() if spec.path else _packaged(spec)
    try:
        is_file = path.is_file()
    except OSError as error:
        raise ModelFileError(
            f"{path.name} cannot be read on this node: {error.strerror}", param="model_path", place=str(path)
        ) from error
    if not is_file:
        what = "is no file" if path.exists() else "does not exist"
        raise ModelFileError(f"{path.name} {what} on this node", param="model_path", place=str(path))
    return path.absolute()


def _packaged(spec: ModelSpec) -> Path:
    family = find_family(spec.name)
    files = {
        label.lower(): file
        for each in (family.specs if family else ())
        if each.format == spec.format and spec.size_in_billions in (None, each.size_in_billions)
        for label, file in each.quantizations.items()
    }
    file = files.get((spec.quantization or "").lower()) or (
        next(iter(files.values()), None) if not spec.quantization else None
    )
    if file is None:
        raise ModelFileError(
            f"No file is known for {spec.name} ({spec.format}, {spec.size_in_billions} B, {spec.quantization})",
            param="model_name",
        )
    return Path(str(resources.files(__package__).joinpath("data", file)))
