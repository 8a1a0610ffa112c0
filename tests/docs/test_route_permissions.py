"""docs/security.md says what the code does: which route needs which permission, and what permissions there are."""

from pathlib import Path
from unittest.mock import Mock

from jupyter_xinfer.auth.permissions import ALIASES, MEANING
from jupyter_xinfer.auth.route_table import permissions_by_route, table
from jupyter_xinfer.handlers.base import UnknownRoute
from jupyter_xinfer.handlers.routes import routes

PAGE = (Path(__file__).parents[2] / "docs" / "security.md").read_text()


def test_the_table_of_routes_is_that_of_the_code() -> None:
    listed = [route for route in routes(Mock()) if route[1] is not UnknownRoute]
    written = PAGE.split("<!-- routes -->\n")[1].split("\n<!-- end of routes -->")[0]

    assert written == table(permissions_by_route(listed)), "python -m jupyter_xinfer.auth.route_table prints the table"


def test_every_permission_is_explained_as_the_code_does() -> None:
    for name, meaning in MEANING.items():
        assert f"| `{name}` | {meaning} |" in PAGE


def test_every_alias_that_gives_something_is_told() -> None:
    for name, given in ALIASES.items():
        assert not given or f"`{name}`" in PAGE
