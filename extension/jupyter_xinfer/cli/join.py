"""`jupyter xinfer join-token`: let one new node into the cluster of this home; or take that back."""

import argparse
import time

_EXAMPLES = """\
examples:
  jupyter xinfer join-token                 a line to paste on the new node, good for one node and an hour
  jupyter xinfer join-token --minutes 10
  jupyter xinfer join-token --list
  jupyter xinfer join-token --revoke 1a2b3c4d
"""


def add_commands(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = commands.add_parser(
        "join-token",
        help="let a new node into the cluster",
        description="Print the command that lets one new node into the cluster whose supervisor runs in this home.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--minutes", type=float, default=60.0, help="how long the token is good (default: %(default)g)")
    parser.add_argument("--list", action="store_true", help="show the tokens and what became of them")
    parser.add_argument("--revoke", metavar="ID", help="make a token that was not used yet worthless")
    parser.set_defaults(run=run, passes_options_on=False)


def run(arguments: argparse.Namespace, rest: list[str]) -> int:
    del rest
    from xinfer_runtime.cluster.authority import Authority, find_addresses, home_folder
    from xinfer_runtime.cluster.certificates import fingerprint
    from xinfer_runtime.cluster.join_tokens import JoinToken, JoinTokens
    from xinfer_runtime.errors import InvalidRequest

    home = home_folder()
    addresses = find_addresses(home)
    if addresses is None or not (home / "tls" / "ca-key.pem").exists():
        raise InvalidRequest(f"{home} is not a supervisor's home: start `jupyter xinfer supervisor` with it first")
    tokens, now = JoinTokens(home), time.time()
    if arguments.list:
        for row in tokens.rows():
            expires = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(row.expires))
            print(f"{row.id}  {row.state(now):8}  expires {expires}")
    elif arguments.revoke:
        tokens.revoke(arguments.revoke)
        print(f"The token {arguments.revoke} lets nobody in any more.")
    else:
        if arguments.minutes <= 0:
            raise InvalidRequest(f"--minutes must be more than 0, not {arguments.minutes:g}")
        _, secret = tokens.create(arguments.minutes * 60, now)
        ca = Authority.open(home).ca
        token = JoinToken(address=addresses.join, fingerprint=fingerprint(ca), secret=secret)
        print(f"jupyter xinfer worker --join {token.encode()}")
    return 0
