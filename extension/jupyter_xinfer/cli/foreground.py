"""Commands that run until somebody ends them."""

import asyncio
import logging
import signal
import sys
from collections.abc import Awaitable, Callable


def run_until_stopped(serve: Callable[[asyncio.Event], Awaitable[None]]) -> int:
    """Run `serve(stop)`; Ctrl-C and SIGTERM set `stop`. Logs go to standard error."""
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(name)s %(levelname)s %(message)s")

    async def main() -> None:
        stop = asyncio.Event()
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        await serve(stop)

    asyncio.run(main())
    return 0
