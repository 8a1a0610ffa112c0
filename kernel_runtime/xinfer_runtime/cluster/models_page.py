"""The page "Xinfer" of the Dask dashboard: models, replicas on nodes, and what they do, beside Dask's own plots."""

import logging
from collections.abc import Callable
from functools import partial
from ipaddress import ip_address
from time import time
from typing import TYPE_CHECKING, Any, Final

from xinfer_runtime.cluster.models_table import Columns, model_columns, replica_columns
from xinfer_runtime.cluster.observed_load import ObservedLoad
from xinfer_runtime.models import ModelStatus

if TYPE_CHECKING:
    from distributed.scheduler import Scheduler

logger = logging.getLogger("xinfer.controller")

ROUTE: Final = "/xinfer"
_EVERY_MS = 1000
_HISTORY = 600
"""Points of the plots, one a second."""

_FORMATS: Final = {"kv": "0 %", "prefix_hits": "0 %", "tokens_per_second": "0.0"}
_WIDTHS: Final = {"model": 2, "replica": 2, "node": 2, "devices": 2, "message": 4}
"""Of the columns that hold more than a number or a word."""

Statuses = Callable[[], tuple[ModelStatus, ...]]


def add_models_page(scheduler: "Scheduler", statuses: Statuses, load: ObservedLoad) -> None:
    """Add the page, where the scheduler has a dashboard at all and strangers do not reach it. Once per scheduler."""
    try:
        _add(scheduler, statuses, load)
    except Exception:
        # It is made with what other versions of Dask and Bokeh may not have; models run without it.
        logger.exception("the dashboard has no page of models")


def _add(scheduler: "Scheduler", statuses: Statuses, load: ObservedLoad) -> None:
    try:
        from bokeh.server.tornado import BokehTornado
        from distributed.dashboard.core import BokehApplication
        from distributed.dashboard.scheduler import template_variables
        from tornado.ioloop import IOLoop
    except ImportError:
        return  # Dask has no dashboard without Bokeh.
    applications = scheduler.http_application.applications
    dasks = next((each for each in applications if isinstance(each, BokehTornado)), None)
    dashboard = scheduler.services.get("dashboard")
    if dasks is None or dashboard is None:
        return
    if not ip_address(dashboard.address).is_loopback:
        logger.warning(
            "the dashboard listens on %s, where it asks nobody who they are: it gets no page of models; give the "
            "scheduler a dashboard address such as 127.0.0.1:8787",
            dashboard.address,
        )
        return
    variables = template_variables(scheduler)
    prefix = dasks.prefix.strip("/")
    page = BokehApplication(
        {ROUTE: partial(_document, statuses, load)}, scheduler, prefix=prefix, template_variables=variables
    )
    scheduler.http_application.add_application(page)
    page.initialize(IOLoop.current())
    page.start()
    # Dask's pages share this list: it is the menu of them all.
    variables["pages"].insert(1, ROUTE.strip("/"))


def _document(statuses: Statuses, load: ObservedLoad, _scheduler: "Scheduler", extra: dict[str, Any], doc: Any) -> None:
    from bokeh.layouts import column, row
    from bokeh.models import ColumnDataSource
    from bokeh.models.widgets import Div
    from distributed.dashboard.components.scheduler import BOKEH_THEME, env

    at_first = statuses()
    models = _table(model_columns(at_first, load), height=180)
    replicas = _table(replica_columns(at_first, load), height=360)
    history = ColumnDataSource({name: [] for name in ("time", "tokens_per_second", "running", "waiting")})

    def update() -> None:
        load.look()
        seen = statuses()
        now = model_columns(seen, load)
        _show(models, now)
        _show(replicas, replica_columns(seen, load))
        history.stream(_totals(now), rollover=_HISTORY)

    update()
    doc.title = "Xinfer: Models"
    doc.add_root(
        column(
            row(
                _plot(history, "Tokens/s", {"tokens_per_second": "#1f77b4"}),
                _plot(history, "Requests", {"running": "#2ca02c", "waiting": "#ff7f0e"}),
                sizing_mode="stretch_width",
            ),
            Div(text="<b>Models</b>"),
            models,
            Div(text="<b>Replicas</b>"),
            replicas,
            sizing_mode="stretch_width",
        )
    )
    doc.template = env.get_template("simple.html")
    doc.template_variables.update(extra)
    doc.theme = BOKEH_THEME
    doc.add_periodic_callback(update, _EVERY_MS)


def _show(table: Any, columns: Columns) -> None:
    """Put these rows in the place of those there are."""
    if columns != table.source.data:
        table.source.data = columns
        # Bokeh's table draws new values of as many rows as before only when something of its view changes too.
        table.view.tags = [1 - sum(table.view.tags)]


def _totals(models: Columns) -> dict[str, Any]:
    """A point of the plots. `waiting` is in the engines and in gateways."""

    def total(*names: str) -> float:
        return sum(float(value) for name in names for value in models[name])

    return {
        "time": [time() * 1000],
        "tokens_per_second": [total("tokens_per_second")],
        "running": [total("running")],
        "waiting": [total("waiting", "queued")],
    }


def _plot(source: Any, title: str, lines: dict[str, str]) -> Any:
    from bokeh.models import DataRange1d
    from bokeh.plotting import figure

    plot = figure(
        title=title,
        x_axis_type="datetime",
        y_range=DataRange1d(start=0, default_span=1),
        height=220,
        tools="",
        toolbar_location=None,
        sizing_mode="stretch_width",
    )
    for name, colour in lines.items():
        plot.line("time", name, source=source, color=colour, line_width=2, legend_label=_title(name))
    plot.legend.location = "bottom_left"
    return plot


def _title(name: str) -> str:
    return name.replace("_per_second", "/s").replace("_", " ")


def _table(columns: Columns, height: int) -> Any:
    """Bokeh makes text of its cells: no name or message is HTML."""
    from bokeh.models import ColumnDataSource
    from bokeh.models.widgets import DataTable, NumberFormatter, StringFormatter, TableColumn

    shown = [
        TableColumn(
            field=name,
            title=_title(name),
            width=_WIDTHS.get(name, 1) * 80,
            formatter=NumberFormatter(format=_FORMATS[name]) if name in _FORMATS else StringFormatter(),
        )
        for name in columns
    ]
    return DataTable(
        source=ColumnDataSource(columns),
        columns=shown,
        height=height,
        index_position=None,
        reorderable=False,
        sizing_mode="stretch_width",
    )
