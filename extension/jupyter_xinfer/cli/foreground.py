"""Commands that run until somebody ends them."""

import asyncio
import signal
from collections.abc import Awaitable, Callable

from xinfer_runtime.logs import log_to_stderr


def run_until_stopped(serve: Callable[[asyncio.Event], Awaitable[None]]) -> int:
    """Run `serve(stop)`; Ctrl-C and SIGTERM set `stop`. Logs go to standard error."""
    log_to_stderr()

    async def main() -> None:
        stop = asyncio.Event()
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        await serve(stop)

    asyncio.run(main())
    return 0
