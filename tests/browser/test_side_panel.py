"""JupyterLab in headless Chromium, as a user drives it: launch in the panel, ask in a cell, stop.

The screenshots that the README and the docs show are taken here, when `XINFER_SCREENSHOTS` names a folder.
"""

import json
import os
import re
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, expect, sync_playwright
from tests.conftest import XinferServer, start_server

pytestmark = pytest.mark.browser

NOTEBOOK = "ask.ipynb"
CELLS = [
    "%load_ext jupyter_xinfer",
    "%%xinfer\nWhat is the capital of France?",
    "%%xinfer\nTell me a story.",
    "from jupyter_xinfer import Client\n\nprint(Client().get_model('xinfer-demo').chat('What is 12 + 7?'))",
]
# JupyterLab asks every new user about news, in a corner of every screenshot.
NO_NEWS = "@jupyterlab/apputils-extension/notification.jupyterlab-settings"
LOADED = 60_000
READY = 30_000


def write_notebook(path: Path) -> None:
    cells = [
        {
            "cell_type": "code",
            "id": f"cell-{i}",
            "metadata": {},
            "source": source,
            "outputs": [],
            "execution_count": None,
        }
        for i, source in enumerate(CELLS)
    ]
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    notebook = {"cells": cells, "metadata": {"kernelspec": kernel}, "nbformat": 4, "nbformat_minor": 5}
    path.write_text(json.dumps(notebook))


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[XinferServer]:
    """A JupyterLab without a model, as a user finds it."""
    folder = tmp_path_factory.mktemp("browser")
    settings = folder / "config" / "lab" / "user-settings" / NO_NEWS
    settings.parent.mkdir(parents=True)
    settings.write_text('{"fetchNews": "false", "checkForUpdates": false}')
    # The exposed app lets a test switch the theme without walking through menus.
    server = start_server(folder, "--LabApp.expose_app_in_browser=True")
    write_notebook(folder / "work" / NOTEBOOK)
    try:
        yield server
    finally:
        server.stop()


@pytest.fixture
def page(server: XinferServer) -> Iterator[Page]:
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    assert chromium, "the browser tests need Chromium: apt-get install chromium"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=chromium,
            args=[
                "--no-sandbox",
                "--disable-gpu",
                "--disable-quic",
                "--disable-background-networking",
                "--disable-sync",
            ],
        )
        page = browser.new_page(viewport={"width": 1280, "height": 800})
        page.goto(f"{server.url}lab/tree/{NOTEBOOK}?token={server.token}&reset")
        expect(page.locator(".jp-Notebook")).to_be_visible(timeout=LOADED)
        yield page
        browser.close()


def open_panel(page: Page) -> Any:
    page.evaluate("() => window.jupyterapp.shell.activateById('jupyter-xinfer-panel')")
    panel = page.locator('[data-xinfer="panel"]')
    expect(panel).to_be_visible()
    return panel


def set_theme(page: Page, theme: str) -> None:
    page.evaluate(
        "theme => window.jupyterapp.commands.execute('apputils:change-theme', { theme })", f"JupyterLab {theme}"
    )
    expect(page.locator(f'body[data-jp-theme-name="JupyterLab {theme}"]')).to_be_attached()


def screenshot(page: Page, name: str, settle: float = 400) -> None:
    folder = os.environ.get("XINFER_SCREENSHOTS")
    if folder:
        page.wait_for_timeout(settle)
        page.screenshot(path=Path(folder) / name)


@contextmanager
def busy(server: XinferServer, model: str = "xinfer-demo") -> Iterator[None]:
    """Keep a few streams going."""
    stop = threading.Event()

    def stream() -> None:
        question = {"model": model, "messages": [{"role": "user", "content": "Tell me a long story."}]}
        with server.client() as http:
            while not stop.is_set():
                http.post("v1/chat/completions", json=question)

    threads = [threading.Thread(target=stream) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def test_a_model_is_launched_asked_and_stopped(page: Page, server: XinferServer) -> None:
    panel = open_panel(page)
    card = panel.locator('[data-xinfer="model-card"][data-model-uid="xinfer-demo"]')
    expect(card).to_have_count(0)
    screenshot(page, "panel-empty-light.png")

    panel.locator('[data-xinfer="model-select"]').select_option("xinfer-demo")
    expect(panel.locator('[data-xinfer="quantization-select"]')).to_contain_text("q8_0")
    panel.locator('[data-xinfer="launch-button"]').click()
    expect(card).to_have_attribute("data-state", "ready", timeout=READY)

    page.evaluate("() => window.jupyterapp.commands.execute('notebook:run-all-cells')")
    outputs = page.locator(".jp-Notebook .jp-Cell .jp-OutputArea-output")
    expect(outputs.nth(0)).to_contain_text("Paris", timeout=READY)
    expect(outputs.nth(2)).to_contain_text("19", timeout=READY)

    with busy(server):
        expect(card.locator('[data-xinfer="tokens-per-second"]')).not_to_have_text("0", timeout=READY)
        expect(card.locator('[data-xinfer="step"]')).to_contain_text("ms", timeout=READY)
        expect(card.locator('[data-xinfer="prefix-hits"]')).to_contain_text("%", timeout=READY)
        # A few polls later the rate's curve has something to show.
        page.wait_for_timeout(9000 if "XINFER_SCREENSHOTS" in os.environ else 0)
        screenshot(page, "panel-light.png")
        set_theme(page, "Dark")
        screenshot(page, "panel-dark.png")
        set_theme(page, "Light")
    expect(card.locator('[data-xinfer="running"]')).to_have_text("0", timeout=READY)

    card.locator('[data-xinfer="stop-button"]').click()
    expect(card).to_have_count(0, timeout=READY)


def test_a_launch_that_fails_says_why_in_the_panel(page: Page) -> None:
    panel = open_panel(page)
    panel.locator('[data-xinfer="model-select"]').select_option(label="Local GGUF file…")
    panel.locator('[data-xinfer="path-input"]').fill("/nowhere/model.gguf")
    panel.locator(".jp-xinfer-Advanced summary").click()
    panel.locator('[data-xinfer="speculation-select"]').select_option("draft-model")
    panel.locator('[data-xinfer="draft-model-input"]').fill("xinfer-demo")
    panel.locator('[data-xinfer="launch-button"]').click()

    expect(panel.locator('[data-xinfer="error"]')).to_contain_text("/nowhere/model.gguf", timeout=READY)


def test_a_model_launched_elsewhere_appears_and_goes_without_a_refresh(page: Page, server: XinferServer) -> None:
    panel = open_panel(page)
    card = panel.locator('[data-xinfer="model-card"][data-model-uid="elsewhere"]')

    server.launch(model_name="xinfer-demo", model_uid="elsewhere")
    expect(card).to_have_attribute("data-state", "ready", timeout=5000)
    with server.client() as http:
        http.delete("v1/models/elsewhere").raise_for_status()
    expect(card).to_have_count(0, timeout=5000)


def test_the_dask_dashboard_opens_through_the_jupyter_server(page: Page, server: XinferServer) -> None:
    server.launch(model_name="xinfer-demo", model_uid="for-the-dashboard")
    panel = open_panel(page)
    with page.expect_popup() as popup:
        panel.locator('[data-xinfer="dashboard-link"]').click()
    dashboard = popup.value

    assert dashboard.url.startswith(f"{server.url}xinfer/dask/")
    # Bokeh draws its figures only after its websocket, proxied too, has sent the document.
    expect(dashboard.locator(".bk-Figure").first).to_be_visible(timeout=LOADED)

    with busy(server, "for-the-dashboard"):
        dashboard.get_by_role("link", name="Xinfer").click()
        row = dashboard.locator(".slick-row", has_text="for-the-dashboard").first
        expect(row).to_contain_text("1 of 1", timeout=LOADED)
        prefix_hits = row.locator(".slick-cell").last
        expect(prefix_hits).to_have_text(re.compile(r"^[1-9]\d? %$"), timeout=LOADED)
        screenshot(dashboard, "dashboard.png", settle=15_000)
    assert dashboard.url == f"{server.url}xinfer/dask/xinfer"
    with server.client() as http:
        http.delete("v1/models/for-the-dashboard").raise_for_status()
