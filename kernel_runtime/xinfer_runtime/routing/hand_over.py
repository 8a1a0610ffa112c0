"""The streams of a replica that is to leave go on at another one, before its time is up."""

import asyncio
from collections.abc import Callable
from typing import Final

from xinfer_runtime.routing.link import Link

AT_ONCE: Final = 4
"""Streams of a link that are on their way: each is a state that the replica holds for the next one."""
_TICK: Final = 0.02


async def hand_over(link: Link, has_place: Callable[[], bool]) -> None:
    """Return when the link has no streams. They leave, a few at a time, while another replica has a place for them.

    Where none has, they are left to finish; what is cut off at last goes on elsewhere all the same, with its tokens.
    """
    while link.outstanding and link.lost is None:
        while has_place() and link.leaving < AT_ONCE and link.let_one_leave():
            pass
        await asyncio.sleep(_TICK)
