"""The Jupyter server extension: its options, its routes, its start and its end."""

import asyncio
import logging
import os
import time
from pathlib import Path
from typing import Any

from jupyter_events import EventLogger
from jupyter_server.extension.application import ExtensionApp
from jupyter_server.serverapp import ServerApp
from jupyter_server.utils import url_path_join
from traitlets import Bool, Dict, Enum, Float, List, Unicode, default

from jupyter_xinfer.auth.config import AuthConfig, load_auth_config
from jupyter_xinfer.auth.gate import Gate
from jupyter_xinfer.auth.key_ring import KeyRing
from jupyter_xinfer.auth.key_store import KeyStore
from jupyter_xinfer.auth.ledger import Ledger, tokens_by_caller
from jupyter_xinfer.auth.limits import DAY, Limiter
from jupyter_xinfer.auth.meter import Meter
from jupyter_xinfer.auth.runtime_key import RuntimeKey
from jupyter_xinfer.auth.site_limits import SiteLimits
from jupyter_xinfer.banner import banner
from jupyter_xinfer.handlers.routes import routes
from jupyter_xinfer.metrics import Metrics
from jupyter_xinfer.service import Service, ServiceConfig
from xinfer_runtime.cluster.authority import find_credentials
from xinfer_runtime.cluster.credentials import TlsCredentials
from xinfer_runtime.errors import Conflict, InvalidRequest, Unavailable, XinferError
from xinfer_runtime.logs import FORMAT_VARIABLE, FORMATS, JSON, TEXT, format_as_json, wants_json
from xinfer_runtime.models import LaunchRequest

EVENT_SCHEMA = Path(__file__).parent / "events" / "model-state.yaml"
EVENT_SCHEMA_ID = "https://jupyter-xinfer.dev/events/model-state"
# Jupyter gives extensions no time limit of their own when it shuts down.
STOP_TIMEOUT = 20.0


class XinferApp(ExtensionApp):
    """jupyter-xinfer: OpenAI-compatible endpoints and model management on the Jupyter server."""

    name = "jupyter_xinfer"
    extension_url = "/v1/models"
    load_other_extensions = True

    home = Unicode(help="Folder for state and logs. Default: $XINFER_HOME, or ~/.xinfer.").tag(config=True)
    scheduler_address = Unicode(
        "", help="Address (tls://host:port) of a Dask scheduler to use. Empty: a local cluster, started when needed."
    ).tag(config=True)
    tls_ca_file = Unicode("", help="PEM file of the CA of the cluster at scheduler_address.").tag(config=True)
    tls_cert_file = Unicode("", help="PEM file with this server's certificate for that cluster.").tag(config=True)
    tls_key_file = Unicode("", help="PEM file with the key of tls_cert_file.").tag(config=True)
    auth_config = Unicode(
        "",
        help="JSON file of users with passwords and API keys. Without it, Jupyter's users and keys of the key store.",
    ).tag(config=True)
    launch = List(Unicode(), help="Names of models to launch when the server starts.").tag(config=True)
    launch_timeout = Float(3600.0, help="Seconds a launch may take before it is given up.").tag(config=True)
    public_url = Unicode(
        "", help="URL under which kernels and clients on other machines reach this server. Default: its own."
    ).tag(config=True)
    body_timeout = Float(
        300.0, help="Seconds that the body of a request may take to come; its connection is closed then."
    ).tag(config=True)
    image_hosts = List(
        Unicode(),
        help="Hosts from which images are fetched that requests name by URL, such as '*.example.org'; '*' for all. "
        "Only public addresses are connected to. Default: none, images come as data: URLs.",
    ).tag(config=True)
    model_folders = List(
        Unicode(),
        help="Folders on the nodes, as absolute paths: whoever may launch or register models may name the model files "
        "in them. Default: none, only administrators name files on the nodes.",
    ).tag(config=True)
    share_weights = Dict(
        Float(),
        help="Shares of callers where requests wait, as {'user:ann': 2.0, 'api_key:ci@xinfer-demo': 0.5}; the names "
        "are those of `jupyter xinfer usage`, with @MODEL for one model alone. Default: 1, or a key's or user's own.",
    ).tag(config=True)
    limits = Dict(
        Dict(),
        help="Limits of callers by kind or name, as {'jupyter': {'tokens_per_day': 1000000}, 'jupyter:ann': {...}}, "
        "with the fields that limits have in the auth file. A key's or user's own go first. Default: none.",
    ).tag(config=True)
    # Not `log_format`, which is traitlets' own name for how one line looks.
    log_lines = Enum(
        FORMATS,
        help="'text', or 'json' for one JSON object a line: of this server, its local cluster and their replicas.",
    ).tag(config=True)
    keep_alive_while_loaded = Bool(
        True, help="Whether a running model keeps ServerApp.shutdown_no_activity_timeout from ending the server."
    ).tag(config=True)

    service: Service
    runtime_key: RuntimeKey

    @default("home")
    def _default_home(self) -> str:
        return os.environ.get("XINFER_HOME") or str(Path.home() / ".xinfer")

    @default("log_lines")
    def _default_log_lines(self) -> str:
        return JSON if wants_json() else TEXT

    def initialize_settings(self) -> None:
        """A mistake in the configuration ends the server: it must not run with fewer doors shut."""
        try:
            self._set_up()
        except InvalidRequest as error:
            self.log.critical("%s", error)
            self.exit(1)

    def _set_up(self) -> None:
        self._set_up_logs()
        home = Path(self.home).expanduser().absolute()
        home.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._event_logger.register_event_schema(EVENT_SCHEMA)
        self.runtime_key = RuntimeKey()
        self._tasks: set[asyncio.Task[Any]] = set()
        config = ServiceConfig(
            home=home,
            base_url=self._server.base_url,
            scheduler=self.scheduler_address or None,
            credentials=self._credentials(),
            launch_timeout=self.launch_timeout,
            body_timeout=self.body_timeout,
            image_hosts=list(self.image_hosts),
            model_folders=list(self.model_folders),
            share_weights=dict(self.share_weights),
        )
        provider = self._server.identity_provider
        ring, limits = KeyRing(KeyStore(home), self.log), SiteLimits(self.limits)
        gate = Gate(self.runtime_key, ring, self._users(), lambda: provider.token, limits)
        ledger = Ledger(home, self.log)
        meter = Meter(Limiter(self._spent_today(ledger)), ledger)
        self.service = Service(config, Metrics(), gate, meter, self._emit, self.log)
        # Jupyter's idle shutdown looks at every setting with this ending; JupyterHub's culler at the newest of them.
        self.settings["xinfer_last_activity"] = self.service.last_activity
        self.service.on_activity(lambda now: self._server.web_app.settings.update(xinfer_last_activity=now))

    def initialize_handlers(self) -> None:
        self.handlers.extend(routes(self.service))

    async def _start_jupyter_server_extension(self, serverapp: ServerApp) -> None:
        """Runs on the loop with all other extensions' starts, so everything slow goes into tasks."""
        url = self.url
        # Kernels inherit the environment. The key itself stays in the file: people print os.environ into notebooks.
        os.environ["XINFER_BASE_URL"] = url
        os.environ["XINFER_RUNTIME_FILE"] = str(self.runtime_key.path)
        self.runtime_key.write(url, self._own_certificate())
        task = self.service.start()
        if task is not None:
            self._keep(task)
        for name in self.launch:
            self._keep(asyncio.create_task(self._launch_at_start(name), name=f"xinfer-launch-{name}"))

    async def stop_extension(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self.runtime_key.remove()
        try:
            await asyncio.wait_for(self.service.stop(), STOP_TIMEOUT)
        except TimeoutError:
            self.log.error("jupyter-xinfer did not stop within %s s; what is left ends with this process", STOP_TIMEOUT)

    def current_activity(self) -> dict[str, Any] | None:
        """Read by Jupyter's idle shutdown: something truthy keeps the server alive."""
        running = [model["id"] for model in self.service.models.describe_all()]
        return {"models": running} if running and self.keep_alive_while_loaded else None

    @property
    def _server(self) -> ServerApp:
        if self.serverapp is None:
            raise RuntimeError("the extension is not linked to a Jupyter server")
        return self.serverapp

    @property
    def _event_logger(self) -> EventLogger:
        logger = self._server.event_logger
        if logger is None:
            raise RuntimeError("the Jupyter server has no event logger")
        return logger

    @property
    def url(self) -> str:
        """This server's URL, up to and including its base URL."""
        if self.public_url:
            return self.public_url.rstrip("/") + "/"
        return url_path_join(self._server.connection_url.split("?")[0], "/")

    def _own_certificate(self) -> str:
        """What the server shows to whoever connects to its own `url`: the first certificate of its file."""
        if self.public_url or not self._server.certfile:
            return ""
        try:
            text = Path(self._server.certfile).read_text()
        except (OSError, UnicodeDecodeError) as error:
            self.log.warning(
                "%s cannot be read, so that kernels may not trust this server: %s", self._server.certfile, error
            )
            return ""
        begin, end = "-----BEGIN CERTIFICATE-----", "-----END CERTIFICATE-----"
        return text[text.index(begin) : text.index(end) + len(end)] + "\n" if begin in text and end in text else ""

    def _set_up_logs(self) -> None:
        """Our modules' lines go where Jupyter's go."""
        # The local cluster and its replicas inherit it.
        os.environ[FORMAT_VARIABLE] = self.log_lines
        jupyters = _logger(self._server.log)
        if self.log_lines == JSON:
            format_as_json(jupyters, _logger(self.log))
        ours = logging.getLogger("xinfer")
        ours.handlers = list(jupyters.handlers)
        ours.setLevel(min((handler.level for handler in ours.handlers), default=jupyters.level))
        ours.propagate = False

    async def _launch_at_start(self, name: str) -> None:
        self.log.info("Launching the model %s ...", name)
        try:
            uid = await self._launch_or_find(name)
        except XinferError as error:
            self.log.error("The model %s was not launched: %s", name, error)
            return
        print(banner(uid, self.url, self._server.identity_provider.token or self.runtime_key.key), flush=True)

    async def _launch_or_find(self, name: str) -> str:
        try:
            return await self.service.launch(LaunchRequest(model_name=name), wait_ready=True)
        except Conflict:
            # It came back with the cluster's state from the last time.
            await self.service.wait_ready(name)
            return name

    def _emit(self, data: dict[str, str]) -> None:
        self._event_logger.emit(schema_id=EVENT_SCHEMA_ID, data=data)

    def _keep(self, task: asyncio.Task[Any]) -> None:
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _users(self) -> AuthConfig | None:
        """The users of `auth_config`."""
        if not self.auth_config:
            return None
        config = load_auth_config(Path(self.auth_config).expanduser())
        for warning in config.warnings:
            self.log.warning("XinferApp.auth_config: %s", warning)
        return config

    def _spent_today(self, ledger: Ledger) -> dict[str, int]:
        """Tokens of the day so far, by caller."""
        try:
            return tokens_by_caller(ledger.rows(time.time() // DAY * DAY))
        except Unavailable as error:
            self.log.error("jupyter-xinfer: the day's budgets of tokens begin anew: %s", error)
            return {}

    def _credentials(self) -> TlsCredentials | None:
        files = (self.tls_ca_file, self.tls_cert_file, self.tls_key_file)
        if not self.scheduler_address:
            return None
        if not any(files):
            # A supervisor of this home, or a join, left credentials for its cluster.
            return find_credentials(Path(self.home).expanduser())
        if not all(files):
            return None
        try:
            return TlsCredentials.from_files(*(Path(file).expanduser() for file in files))
        except OSError as error:
            raise InvalidRequest(
                f"A file named by XinferApp.tls_ca_file, tls_cert_file, tls_key_file: {error}"
            ) from error


def _logger(log: logging.Logger | logging.LoggerAdapter[logging.Logger]) -> logging.Logger:
    return log.logger if isinstance(log, logging.LoggerAdapter) else log
