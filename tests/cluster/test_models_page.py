"""Where the page is, and where it is not; `tests/browser/test_models_page.py` looks at it."""

import httpx
import pytest
from distributed import Scheduler

from xinfer_runtime.cluster.models_page import ROUTE, add_models_page
from xinfer_runtime.cluster.observed_load import ObservedLoad


@pytest.mark.parametrize(("address", "status"), [("127.0.0.1:0", 200), (":0", 404)])
async def test_only_a_dashboard_on_loopback_gets_the_page(address: str, status: int) -> None:
    async with Scheduler(host="127.0.0.1", port=0, dashboard_address=address) as scheduler:
        add_models_page(scheduler, tuple, ObservedLoad())
        url = f"http://127.0.0.1:{scheduler.services['dashboard'].port}"
        async with httpx.AsyncClient(base_url=url) as http:
            assert (await http.get(ROUTE)).status_code == status
            menu = (await http.get("/status")).text
    assert ('href="xinfer"' in menu) is (status == 200)


async def test_a_scheduler_without_a_dashboard_is_left_alone() -> None:
    async with Scheduler(host="127.0.0.1", port=0, dashboard=False, dashboard_address="127.0.0.1:0") as scheduler:
        before = list(scheduler.http_application.applications)
        add_models_page(scheduler, tuple, ObservedLoad())
        assert scheduler.http_application.applications == before
