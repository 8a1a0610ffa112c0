"""`jupyter xinfer ...`: start a server, manage models, chat."""

from jupyter_xinfer.cli.main import main

__all__ = ["main"]
