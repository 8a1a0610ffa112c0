"""`jupyter xinfer keys create|list|revoke` and `hash-password`: they work on files, whether a server runs or not."""

import argparse
import getpass
import json
import os
import re
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xinfer_runtime.errors import InvalidRequest, NotFound

if TYPE_CHECKING:
    from jupyter_xinfer.auth.api_key import ApiKey
    from jupyter_xinfer.auth.key_store import KeyStore

_EXAMPLES = """\
examples:
  jupyter xinfer keys create --name dify --permission models:list --permission models:read
  jupyter xinfer keys create --name ci --permission models:start --model xinfer-demo --expires 30d
  jupyter xinfer keys list
  jupyter xinfer keys revoke ci

Keys are kept hashed in XINFER_HOME. A running server sees every change at its next request.
"""
_HASH_EXAMPLES = """\
examples:
  jupyter xinfer hash-password                   asks for it
  jupyter xinfer hash-password < password.txt    reads the first line
"""
_UNITS = {"m": 60, "h": 3600, "d": 86_400, "w": 7 * 86_400}
_LIMITS = ("requests_per_minute", "tokens_per_minute", "concurrent_requests", "tokens_per_day")


def add_commands(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    layout: dict[str, Any] = {"formatter_class": argparse.RawDescriptionHelpFormatter, "allow_abbrev": False}
    keys = commands.add_parser(
        "keys",
        help="create, list and revoke API keys",
        description="API keys for programs.",
        epilog=_EXAMPLES,
        **layout,
    )
    keys.set_defaults(passes_options_on=False)
    actions = keys.add_subparsers(title="actions", metavar="ACTION", required=True)

    create = actions.add_parser("create", help="make a key; it is shown once", epilog=_EXAMPLES, **layout)
    create.add_argument("--name", required=True, help="what the key is for; unique among valid keys")
    create.add_argument("--owner", help="who answers for it (default: the user of this shell)")
    create.add_argument(
        "--permission",
        action="append",
        metavar="PERMISSION",
        help="may be repeated (default: models:list, models:read)",
    )
    create.add_argument("--model", action="append", metavar="UID", help="allow only this model; may be repeated")
    create.add_argument("--expires", metavar="TIME", help="30m, 12h, 90d, 4w, or a date such as 2030-12-31 (UTC)")
    for name in _LIMITS:
        create.add_argument(f"--{name.replace('_', '-')}", type=int, metavar="N")
    create.add_argument("--weight", type=float, metavar="W", help="its share where requests wait (default: 1)")
    create.add_argument("--priority", choices=("interactive", "batch"), help="batch lets others go first")
    create.set_defaults(run=_create)

    shown = actions.add_parser("list", help="show all keys, without their secrets", epilog=_EXAMPLES, **layout)
    shown.add_argument("--json", action="store_true", help="as JSON")
    shown.set_defaults(run=_list)

    revoke = actions.add_parser("revoke", help="make keys useless, at once", epilog=_EXAMPLES, **layout)
    revoke.add_argument("key", nargs="+", metavar="KEY", help="id or name")
    revoke.set_defaults(run=_revoke)

    hashing = commands.add_parser(
        "hash-password",
        help="hash a password for --auth-config",
        description="Print the argon2 hash of a password, for `password` in the file of --auth-config.",
        epilog=_HASH_EXAMPLES,
        **layout,
    )
    hashing.set_defaults(run=_hash_password, passes_options_on=False)


def expiry(text: str, now: float) -> float:
    """When a key made at `now` expires, in seconds since the epoch. Raises `InvalidRequest`."""
    span = re.fullmatch(r"(\d{1,6})([mhdw])", text)
    if span is not None:
        return now + int(span.group(1)) * _UNITS[span.group(2)]
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        raise InvalidRequest(
            f"--expires: {text!r} is neither a span such as 90d nor a date such as 2030-12-31."
        ) from None
    seconds = (at if at.tzinfo is not None else at.replace(tzinfo=UTC)).timestamp()
    if seconds <= now:
        raise InvalidRequest(f"--expires: {text} is in the past.")
    return seconds


def _store() -> "KeyStore":
    from jupyter_xinfer.auth.key_store import KeyStore

    home = os.environ.get("XINFER_HOME")
    return KeyStore(Path(home).expanduser() if home else Path.home() / ".xinfer")


def _create(arguments: argparse.Namespace, _: list[str]) -> int:
    from jupyter_xinfer.auth.fair_share import MOST_WEIGHT
    from jupyter_xinfer.auth.permissions import MODELS_LIST, MODELS_READ, expand
    from jupyter_xinfer.auth.principal import Limits
    from xinfer_runtime.messages import Priority

    limits = {name: getattr(arguments, name) for name in _LIMITS}
    for name, value in limits.items():
        if value is not None and value < 1:
            raise InvalidRequest(f"--{name.replace('_', '-')} must be 1 or more.")
    if arguments.weight is not None and not 0 < arguments.weight <= MOST_WEIGHT:
        raise InvalidRequest(f"--weight must be above 0 and at most {MOST_WEIGHT:.0f}.")
    priority = Priority(arguments.priority) if arguments.priority else None
    key, secret = _store().create(
        name=arguments.name,
        owner=arguments.owner or getpass.getuser(),
        permissions=expand(arguments.permission or (MODELS_LIST, MODELS_READ), "--permission"),
        models=frozenset(arguments.model) if arguments.model else None,
        limits=Limits(**limits, weight=arguments.weight, priority=priority),
        expires=expiry(arguments.expires, time.time()) if arguments.expires else None,
    )
    # The key alone on standard output, so that it can go into a file without passing over a screen.
    print(f"Key {key.id} ({key.name}). It is shown this once; keep it:", file=sys.stderr)
    print(secret)
    return 0


def _list(arguments: argparse.Namespace, _: list[str]) -> int:
    keys = _store().keys()
    if arguments.json:
        print(json.dumps([_facts(key) for key in keys], indent=2))
        return 0
    rows = [("ID", "NAME", "OWNER", "KEY", "STATE", "PERMISSIONS", "MODELS", "EXPIRES", "LAST USED")]
    for key in keys:
        facts = _facts(key)
        rows.append(
            (
                key.id,
                key.name,
                key.owner,
                facts["key"],
                key.state,
                " ".join(facts["permissions"]),
                " ".join(facts["models"]) if facts["models"] is not None else "all",
                facts["expires"] or "never",
                facts["last_used"] or "never",
            )
        )
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    return 0


def _facts(key: "ApiKey") -> dict[str, Any]:
    return {
        "id": key.id,
        "name": key.name,
        "owner": key.owner,
        "key": f"{key.shown}...",
        "state": key.state,
        "permissions": sorted(key.permissions),
        "models": sorted(key.models) if key.models is not None else None,
        "limits": {
            name: value for name in (*_LIMITS, "weight", "priority") if (value := getattr(key.limits, name)) is not None
        },
        "created": _time(key.created),
        "expires": _time(key.expires),
        "last_used": _time(key.last_used),
        "revoked": _time(key.revoked),
    }


def _time(seconds: float | None) -> str | None:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ") if seconds is not None else None


def _revoke(arguments: argparse.Namespace, _: list[str]) -> int:
    store = _store()
    missing = []
    for name in arguments.key:
        try:
            key = store.revoke(name)
        except NotFound as error:
            missing.append(error)
        else:
            print(f"Revoked {key.id} ({key.name}).")
    if missing:
        raise missing[0]
    return 0


def _hash_password(_: argparse.Namespace, __: list[str]) -> int:
    from jupyter_server.auth.security import passwd

    if sys.stdin.isatty():
        password = getpass.getpass("Password: ")
        if getpass.getpass("Again: ") != password:
            raise InvalidRequest("The two passwords differ.")
    else:
        password = sys.stdin.readline().rstrip("\r\n")
    if not password:
        raise InvalidRequest("The password is empty.")
    print(passwd(password))  # type: ignore[no-untyped-call]
    return 0
