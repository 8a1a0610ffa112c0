"""`jupyter xinfer local`: JupyterLab with our extension, in this process."""

import argparse
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

_EXAMPLES = """\
examples:
  jupyter xinfer local
  jupyter xinfer local --host 0.0.0.0 --port 9997 --launch xinfer-demo
  JUPYTER_TOKEN=... jupyter xinfer local --ServerApp.root_dir=notebooks
  jupyter xinfer local --scheduler tls://10.0.0.1:8786 --XinferApp.tls_ca_file=ca.pem \\
    --XinferApp.tls_cert_file=cert.pem --XinferApp.tls_key_file=key.pem

Every other option goes to Jupyter as it is; `jupyter server --help-all` lists them. State is kept in XINFER_HOME.
"""


def add_commands(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = commands.add_parser(
        "local",
        help="start JupyterLab with models beside it",
        description="Start JupyterLab with jupyter-xinfer. Models run on this machine, or on the cluster given.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--host", "-H", help="address to listen on (Jupyter's default: localhost)")
    parser.add_argument("--port", "-p", type=int, help="port to listen on (Jupyter's default: 8888)")
    parser.add_argument(
        "--launch", action="append", default=[], metavar="NAME", help="launch this model at the start; may be repeated"
    )
    parser.add_argument("--scheduler", metavar="ADDRESS", help="Dask scheduler of a cluster, such as tls://host:8786")
    parser.add_argument("--auth-config", metavar="FILE", help="JSON file of users with passwords and API keys")
    parser.add_argument("--browser", action="store_true", help="open a browser")
    parser.set_defaults(run=run, passes_options_on=True)


def jupyter_arguments(arguments: argparse.Namespace, rest: list[str]) -> list[str]:
    """The command line of the Jupyter server. `rest` comes last: what the user says to Jupyter itself wins."""
    found = ['--ServerApp.jpserver_extensions={"jupyter_xinfer": True}']
    if arguments.host:
        found.append(f"--ServerApp.ip={arguments.host}")
    if arguments.port is not None:
        found.append(f"--ServerApp.port={arguments.port}")
    if not arguments.browser:
        found.append("--no-browser")
    found += [f"--XinferApp.launch={name}" for name in arguments.launch]
    if arguments.scheduler:
        found.append(f"--XinferApp.scheduler_address={arguments.scheduler}")
    if arguments.auth_config:
        found.append(f"--XinferApp.auth_config={Path(arguments.auth_config).expanduser().absolute()}")
    return found + rest


def application() -> Any:
    """JupyterLab's application, or the bare Jupyter server where JupyterLab is not installed."""
    if find_spec("jupyterlab") is None:
        print("JupyterLab is not installed: starting the server alone. pip install jupyterlab", file=sys.stderr)
        from jupyter_server.serverapp import ServerApp

        return ServerApp
    from jupyterlab.labapp import LabApp  # type: ignore[import-untyped]

    return LabApp


def run(arguments: argparse.Namespace, rest: list[str]) -> int:
    application().launch_instance(argv=jupyter_arguments(arguments, rest))
    return 0
