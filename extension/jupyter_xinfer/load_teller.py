"""Tells the controller of the load of replicas, which this server hears on its links, for the page in the dashboard."""

import asyncio
import logging
import secrets
from collections.abc import Callable
from typing import Final

from xinfer_runtime.cluster.protocol import LoadReport
from xinfer_runtime.cluster.session import ClusterSession
from xinfer_runtime.errors import XinferError
from xinfer_runtime.routing.router import Router

logger = logging.getLogger("xinfer.load")

_WATCHED_SECONDS: Final = 1.0
_UNWATCHED_SECONDS: Final = 5.0
_REPEAT_SECONDS: Final = 15.0
"""The controller forgets what nobody repeats."""


async def tell_load(current: Callable[[], tuple[ClusterSession | None, Router | None]]) -> None:
    """For ever: often while somebody looks at the page, seldom otherwise, and next to never while nothing changes."""
    name = secrets.token_hex(8)
    pause = _UNWATCHED_SECONDS
    told: LoadReport | None = None
    quiet = 0.0
    while True:
        await asyncio.sleep(pause)
        quiet += pause
        session, router = current()
        if session is None or router is None or not session.connected:
            continue
        report = load_report(name, session, router)
        if report == told and quiet < _REPEAT_SECONDS:
            continue
        try:
            watched = await session.report_load(report)
        except XinferError as error:
            logger.info("the controller does not hear of the load: %s", error)
            continue
        told, quiet = report, 0.0
        pause = _WATCHED_SECONDS if watched else _UNWATCHED_SECONDS


def load_report(name: str, session: ClusterSession, router: Router) -> LoadReport:
    stats = {replica: stats for uid in session.models for replica, stats in router.stats(uid).items()}
    queued = {uid: count for uid in session.models if (count := router.waiting(uid))}
    return LoadReport(gateway=name, replicas=stats, queued=queued)
