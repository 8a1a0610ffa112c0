"""Which route needs which permission, as the table in docs/security.md. `python -m jupyter_xinfer.auth.route_table`."""

import re
from typing import Any

from jupyter_xinfer.auth.permissions import MEANING, PUBLIC

METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE")
_GROUP = re.compile(r"\([^()]*\)")


def permissions_by_route(routes: list[tuple[str, type[Any], dict[str, Any]]]) -> list[tuple[str, str]]:
    """(`GET /v1/models`, permission) of every verb that declares one, in the order of the routes."""
    rows = []
    for pattern, handler, _ in routes:
        for method in METHODS:
            permission = getattr(getattr(handler, method.lower(), None), "permission", None)
            if permission is not None:
                rows.append((f"{method} {readable(pattern)}", permission))
    return rows


def readable(pattern: str) -> str:
    """A route's pattern with `{...}` for each part that varies."""
    return _GROUP.sub("{...}", pattern)


def table(rows: list[tuple[str, str]]) -> str:
    """The rows by permission, in Markdown: `PUBLIC` first, then in the order of `MEANING`, then the rest."""
    order = [PUBLIC, *MEANING]
    ordered = sorted(rows, key=lambda row: order.index(row[1]) if row[1] in order else len(order))
    lines = ["| route | permission |", "|---|---|"]
    lines += [f"| `{route}` | `{permission}` |" for route, permission in ordered]
    return "\n".join(lines)


def main() -> None:
    from jupyter_xinfer.handlers.base import UnknownRoute
    from jupyter_xinfer.handlers.routes import routes

    listed = [route for route in routes(None) if route[1] is not UnknownRoute]  # type: ignore[arg-type]
    print(table(permissions_by_route(listed)))


if __name__ == "__main__":
    main()
