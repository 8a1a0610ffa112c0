"""What a client asks before it has a credential: whether it needs one."""

from jupyter_xinfer.auth.permissions import PUBLIC
from jupyter_xinfer.handlers.base import XinferHandler, endpoint


class AuthRequiredHandler(XinferHandler):
    """Xinference's client asks this first and sends its key only if the answer is true."""

    @endpoint(PUBLIC)
    async def get(self) -> None:
        self.reply({"auth": True})
