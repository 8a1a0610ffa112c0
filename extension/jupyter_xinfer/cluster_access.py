"""The cluster as this server sees it: found or started when first needed, watched, and started again when lost."""

import asyncio
import logging
import socket
import time
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from urllib.parse import urlsplit

from tornado.netutil import Resolver

from jupyter_xinfer.dashboard_way import DashboardWay, needs_tunnel
from jupyter_xinfer.restart_delays import RestartDelays
from xinfer_runtime.cluster.credentials import TlsCredentials
from xinfer_runtime.cluster.local import LocalClusterProcess
from xinfer_runtime.cluster.session import ClusterSession
from xinfer_runtime.errors import ClusterUnavailable

CONNECT_TIMEOUT = 30.0


class ClusterState(StrEnum):
    STOPPED = "stopped"
    STARTING = "starting"
    RUNNING = "running"
    UNREACHABLE = "unreachable"
    FAILED = "failed"


class ClusterAccess:
    """Owns the session with the controller and, when no scheduler is configured, the local cluster under it.

    `scheduler` is the address of an existing Dask scheduler (then `credentials` must be that cluster's), or None for a
    local cluster of our own with `credentials` made for it. `changed` is called at every change of `state`.
    """

    def __init__(
        self,
        home: Path,
        scheduler: str | None,
        credentials: TlsCredentials | None,
        changed: Callable[[], None],
        log: logging.Logger | logging.LoggerAdapter[logging.Logger],
    ) -> None:
        self.state = ClusterState.STOPPED
        self.message = ""
        self.scheduler = scheduler
        self.session: ClusterSession | None = None
        self._home = home
        self._local = scheduler is None
        self._credentials = credentials
        self._changed = changed
        self._log = log
        self._process: LocalClusterProcess | None = None
        self._opening: asyncio.Task[ClusterSession] | None = None
        self._guard: asyncio.Task[None] | None = None
        self._dashboard_way: DashboardWay | None = None
        self._on_session: list[Callable[[ClusterSession], None]] = []

    @property
    def dashboard(self) -> str | None:
        """URL of the Dask dashboard, for this server only: it asks nobody who they are."""
        return self.session.dashboard if self.session is not None else None

    async def dashboard_resolver(self) -> Resolver | None:
        """What has tornado's clients reach the dashboard; None where they do by themselves."""
        session = self.session
        if session is None or session.dashboard is None or not needs_tunnel(session.dashboard, session.scheduler):
            return None
        address = urlsplit(session.dashboard).netloc
        if self._dashboard_way is None or self._dashboard_way.address != address:
            await self._close_dashboard_way()
            self._dashboard_way = DashboardWay(address, self._tunnel)
        return await self._dashboard_way.resolver()

    async def _tunnel(self, address: str) -> socket.socket:
        if self.session is None:
            raise ConnectionRefusedError("the cluster is not connected")
        return await self.session.tunnel(address)

    async def _close_dashboard_way(self) -> None:
        way, self._dashboard_way = self._dashboard_way, None
        if way is not None:
            await way.close()

    def on_session(self, callback: Callable[[ClusterSession], None]) -> None:
        """Call `callback` with each session that is opened."""
        self._on_session.append(callback)

    async def open(self) -> ClusterSession:
        """The session; starts the cluster or connects on the first call. Raises `ClusterUnavailable`."""
        if self.session is not None:
            return self.session
        if self._opening is None or self._opening.done():
            self._opening = asyncio.create_task(self._open(), name="xinfer-open-cluster")
        # A caller that goes away must not undo the start for the others.
        return await asyncio.shield(self._opening)

    async def close(self) -> None:
        """End the session and everything this server started."""
        await self._close_dashboard_way()
        for task in (self._guard, self._opening):
            if task is not None and not task.done():
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
        await self._drop()
        self._set(ClusterState.STOPPED)

    async def _open(self) -> ClusterSession:
        self._set(ClusterState.STARTING)
        try:
            session = await self._connect()
        except ClusterUnavailable as error:
            await self._drop()
            self._set(ClusterState.FAILED if self._local else ClusterState.UNREACHABLE, error.message)
            raise
        except BaseException:
            await self._drop()
            self._set(ClusterState.FAILED, "The cluster could not be started; the server's log has the details.")
            raise
        self.session = session
        session.subscribe_connection(self._connection_changed)
        for callback in self._on_session:
            callback(session)
        self._set(ClusterState.RUNNING)
        if self._process is not None and (self._guard is None or self._guard.done()):
            self._guard = asyncio.create_task(self._restart_when_lost(), name="xinfer-guard-cluster")
        return session

    async def _connect(self) -> ClusterSession:
        if self._local:
            self._credentials = await asyncio.to_thread(TlsCredentials.create)
            self._process = LocalClusterProcess(self._home, self._credentials)
            self.scheduler = (await self._process.start()).scheduler
            self._log.info("Local Dask cluster is up at %s", self.scheduler)
        if self.scheduler is None or self._credentials is None:
            raise ClusterUnavailable("A scheduler address needs TLS files: set XinferApp.tls_ca_file and its siblings.")
        session = ClusterSession(self.scheduler, self._credentials)
        try:
            await session.connect(CONNECT_TIMEOUT)
        except BaseException:
            await session.close()
            raise
        return session

    def _connection_changed(self, connected: bool) -> None:
        """The session reconnects by itself; a local cluster that ended is `_restart_when_lost`'s."""
        problem = self.session.problem if self.session is not None else ""
        self._set(ClusterState.RUNNING if connected else ClusterState.UNREACHABLE, problem)

    async def _restart_when_lost(self) -> None:
        """Start the local cluster again whenever its process ends; its models come back from its state file."""
        delays = RestartDelays()
        while self._process is not None:
            began = time.monotonic()
            await self._process.exited.wait()
            self._set(ClusterState.FAILED, "The local cluster's process ended; it is being started again.")
            self._log.error("The local Dask cluster ended unexpectedly; starting it again")
            lived = time.monotonic() - began
            await self._drop()
            await asyncio.sleep(delays.after(lived))
            while self.session is None:
                try:
                    await self.open()
                except ClusterUnavailable as error:
                    self._log.error("The local Dask cluster did not start: %s", error)
                    await asyncio.sleep(delays.after(0.0))

    async def _drop(self) -> None:
        session, self.session = self.session, None
        process, self._process = self._process, None
        if session is not None:
            await session.close()
        if process is not None:
            await process.close()
            self.scheduler = None

    def _set(self, state: ClusterState, message: str = "") -> None:
        if (state, message) != (self.state, self.message):
            self.state, self.message = state, message
            self._changed()
