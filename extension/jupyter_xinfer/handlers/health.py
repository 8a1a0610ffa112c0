"""`GET /health`: says that the server is up and nothing more, to everybody."""

from jupyter_xinfer.auth.permissions import PUBLIC
from jupyter_xinfer.handlers.base import XinferHandler, endpoint
from jupyter_xinfer.protocol.answers import Health


class HealthHandler(XinferHandler):
    def check_host(self) -> bool:
        """Probes come by address, whatever names the server answers to."""
        return True

    @endpoint(PUBLIC, gives=Health)
    async def get(self) -> None:
        self.reply({"status": "ok"})
