"""The tasks of one link live and die together."""

import asyncio
from collections.abc import Coroutine
from typing import Any


async def run_until_one_ends(*coroutines: Coroutine[Any, Any, None]) -> None:
    """Run all of them; when the first ends, cancel the others and raise what it raised."""
    tasks = [asyncio.create_task(coroutine) for coroutine in coroutines]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
