"""`%load_ext jupyter_xinfer`."""

from IPython.core.interactiveshell import InteractiveShell

from xinfer_runtime.notebook.completion import CachedNames, XinferMatcher
from xinfer_runtime.notebook.magics import XinferMagics


def load_ipython_extension(shell: InteractiveShell) -> None:
    """Registers the magics and their completion. Loading it again replaces both."""
    magics = XinferMagics(shell)
    shell.register_magics(magics)
    session = magics.session

    def catalog() -> list[str]:
        return [model.model_name for model in session.client.list_model_registrations()]

    matcher = XinferMatcher(CachedNames(lambda: list(session.client.list_models())), CachedNames(catalog, 60.0))
    matchers = shell.Completer.custom_matchers
    matchers[:] = [known for known in matchers if getattr(known, "matcher_identifier", "") != "xinfer"]
    matchers.append(matcher.matcher())
