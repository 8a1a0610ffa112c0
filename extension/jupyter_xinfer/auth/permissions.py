"""The permissions there are, and what the names of other versions of the same file format mean here."""

from collections.abc import Iterable

from xinfer_runtime.errors import InvalidRequest

MODELS_LIST = "models:list"
MODELS_READ = "models:read"
MODELS_REGISTER = "models:register"
MODELS_UNREGISTER = "models:unregister"
MODELS_START = "models:start"
MODELS_STOP = "models:stop"
ADMIN = "admin"

MEANING = {
    MODELS_LIST: "see the models: those that run, and those that can be launched",
    MODELS_READ: "use the models, and watch them being launched",
    MODELS_REGISTER: "add a model to those that can be launched",
    MODELS_UNREGISTER: "remove a model from those that can be launched",
    MODELS_START: "launch models, and add replicas",
    MODELS_STOP: "terminate models and replicas, and cancel launches",
    ADMIN: "everything; what no other permission covers needs it",
}
PERMISSIONS = tuple(MEANING)

# What a verb declares beside a permission.
PUBLIC = "public"
"""Answers everybody."""
AUTHENTICATED = "authenticated"
"""Answers every known caller, whatever his permissions."""

ALIASES: dict[str, tuple[str, ...]] = {
    "models:write": (MODELS_START, MODELS_STOP),
    "models:add": (MODELS_REGISTER,),
    "cache:list": (MODELS_LIST,),
    "cache:delete": (MODELS_UNREGISTER,),
    # Whoever may do one of these could give himself every permission.
    "users:manage": (ADMIN,),
    "keys:manage": (ADMIN,),
    "settings:write": (ADMIN,),
    # Known names of what this service does not offer over HTTP: accepted, and nothing comes of them.
    **dict.fromkeys(
        (
            "keys:create",
            "logs:list",
            "model_requests:read_body",
            "monitor:view",
            "routers:list",
            "routers:operate",
            "routers:read",
            "routers:write",
            "settings:read",
            "virtualenv:delete",
            "virtualenv:list",
        ),
        (),
    ),
}


def expand(names: Iterable[str], field: str) -> frozenset[str]:
    """The permissions that `names` stand for. Raises `InvalidRequest` that names `field` for an unknown one."""
    found: set[str] = set()
    for index, name in enumerate(names):
        if name in MEANING:
            found.add(name)
        elif name in ALIASES:
            found.update(ALIASES[name])
        else:
            raise InvalidRequest(
                f"`{field}[{index}]`: there is no permission {name!r}. There are: {', '.join(PERMISSIONS)}.",
                param=f"{field}[{index}]",
            )
    return frozenset(found)
