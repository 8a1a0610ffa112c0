"""The page of models in the Dask dashboard, drawn by a browser. `test_side_panel` opens it through the server."""

import re
import shutil
from collections.abc import AsyncIterator

import pytest
from distributed import Scheduler
from playwright.async_api import Page, async_playwright, expect

from xinfer_runtime.cluster.models_page import ROUTE, add_models_page
from xinfer_runtime.cluster.observed_load import ObservedLoad
from xinfer_runtime.cluster.protocol import LoadReport
from xinfer_runtime.errors import ErrorInfo
from xinfer_runtime.models import EngineStats, ModelSpec, ModelStatus, Replica, ReplicaState

pytestmark = pytest.mark.browser

DRAWN = 30_000
HOSTILE = "<img src=x onerror=\"document.title='owned'\">"


def model(uid: str, *states: ReplicaState, error: str = "") -> ModelStatus:
    reason = ErrorInfo("engine_error", error) if error else None
    replicas = [
        Replica(id=f"{uid}-{i}", uid=uid, node="gpu-1", state=state, error=reason) for i, state in enumerate(states)
    ]
    return ModelStatus(spec=ModelSpec(uid=uid, name=uid), replicas=tuple(replicas))


class Table:
    """What the page is about."""

    def __init__(self) -> None:
        self.models = [model("chat", ReplicaState.READY)]
        self.load = ObservedLoad()

    def statuses(self) -> tuple[ModelStatus, ...]:
        return tuple(self.models)


@pytest.fixture
def table() -> Table:
    return Table()


@pytest.fixture
async def page(table: Table) -> AsyncIterator[Page]:
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    assert chromium, "the browser tests need Chromium: apt-get install chromium"
    async with Scheduler(host="127.0.0.1", port=0, dashboard_address="127.0.0.1:0") as scheduler:
        add_models_page(scheduler, table.statuses, table.load)
        async with async_playwright() as playwright:
            browser = await playwright.chromium.launch(
                executable_path=chromium, args=["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
            )
            page = await browser.new_page()
            await page.goto(f"http://127.0.0.1:{scheduler.services['dashboard'].port}{ROUTE}")
            yield page
            await browser.close()


async def test_rows_follow_what_happens(page: Page, table: Table) -> None:
    rows = page.locator(".slick-row")
    await expect(rows).to_have_count(2, timeout=DRAWN)
    await expect(rows.first).to_contain_text(re.compile("chat.*ready.*1 of 1"))
    assert table.load.watched
    # As many rows as before.
    stats = EngineStats(running=7, kv_used=1, kv_total=4, tokens_per_second=321.5)
    table.load.note(LoadReport(gateway="a", replicas={"chat-0": stats}, queued={"chat": 13}))
    await expect(rows.first).to_contain_text(re.compile("7.*13.*321.5"), timeout=DRAWN)
    await expect(rows.last).to_contain_text("25 %", timeout=DRAWN)
    # More, and fewer.
    table.models.append(model("other", ReplicaState.LOADING, ReplicaState.LOADING))
    await expect(rows).to_have_count(5, timeout=DRAWN)
    table.models.clear()
    await expect(rows).to_have_count(0, timeout=DRAWN)


async def test_what_strangers_wrote_is_shown_as_text(page: Page, table: Table) -> None:
    table.models[0] = model("chat", ReplicaState.FAILED, error=HOSTILE)
    await expect(page.locator(".slick-row").last).to_contain_text(HOSTILE, timeout=DRAWN)
    await expect(page.locator(".slick-row img")).to_have_count(0)
    assert await page.title() == "Xinfer: Models"
