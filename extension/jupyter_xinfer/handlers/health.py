"""`GET /health`: the one route that asks nobody who they are. It says that the server is up and nothing more."""

from jupyter_server.auth.decorator import allow_unauthenticated

from jupyter_xinfer.handlers.base import XinferHandler


class HealthHandler(XinferHandler):
    async def prepare(self) -> None:  # type: ignore[override]
        """Nobody is identified here: a probe must not receive a login cookie."""
        self.current_user = self._jupyter_current_user = None

    @allow_unauthenticated
    async def get(self) -> None:
        self.reply({"status": "ok"})
