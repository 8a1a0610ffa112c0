from collections.abc import Iterator

import pytest
from IPython.core.interactiveshell import InteractiveShell
from tests.client.recorded_server import model, recorded, sse
from tests.client.slow_server import slow
from traitlets.config import Config

__all__ = ["model", "recorded", "shell", "slow", "sse"]


@pytest.fixture
def shell(monkeypatch: pytest.MonkeyPatch) -> Iterator[InteractiveShell]:
    """An IPython shell in this process, without history on disk."""
    # IPython warns when the caller's shell has another environment activated than the one that runs the tests.
    monkeypatch.delenv("VIRTUAL_ENV", raising=False)
    config = Config()
    config.HistoryManager.enabled = False
    shell = InteractiveShell.instance(config=config)
    yield shell
    shell.restore_sys_module_state()
    InteractiveShell.clear_instance()
