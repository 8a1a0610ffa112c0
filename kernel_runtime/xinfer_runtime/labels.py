"""Labels of nodes as people write them."""

from xinfer_runtime.errors import InvalidRequest


def parse_labels(text: str) -> dict[str, str]:
    """`name=value,name=value` as a dict; raises InvalidRequest for anything else."""
    labels = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        name, equals, value = (piece.strip() for piece in part.partition("="))
        if not equals or not name or not value:
            raise InvalidRequest(f"label {part!r:.100}: write name=value", param="labels")
        labels[name] = value
    return labels
