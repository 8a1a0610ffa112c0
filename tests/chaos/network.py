"""A network namespace that stands for another machine: reached over a cable that can be cut."""

import os
import subprocess


def permitted() -> str:
    """Why this machine cannot have network namespaces; empty where it can."""
    name = f"xinfer-try-{os.getpid()}"
    try:
        made = subprocess.run(["ip", "netns", "add", name], capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return "the command ip is not installed"
    if made.returncode:
        return f"network namespaces are not permitted: {made.stderr.strip()}"
    subprocess.run(["ip", "netns", "del", name], check=True)
    return ""


class Machine:
    """One namespace and its cable. `here` and `there` are the addresses of the cable's ends, in a /30 of `number`."""

    def __init__(self, number: int) -> None:
        self.name = f"xinfer-{os.getpid()}-{number}"
        subnet = f"10.{213 + os.getpid() % 16}.{os.getpid() // 16 % 256}"
        self.here, self.there = f"{subnet}.{4 * number + 1}", f"{subnet}.{4 * number + 2}"
        self._cable = f"xi{os.getpid() % 100000}h{number}"
        self._far = f"xi{os.getpid() % 100000}n{number}"

    @property
    def prefix(self) -> tuple[str, ...]:
        """Runs a command there."""
        return ("ip", "netns", "exec", self.name)

    def create(self) -> None:
        _ip("netns", "add", self.name)
        _ip("link", "add", self._cable, "type", "veth", "peer", "name", self._far, "netns", self.name)
        _ip("addr", "add", f"{self.here}/30", "dev", self._cable)
        _ip("link", "set", self._cable, "up")
        _ip("-n", self.name, "addr", "add", f"{self.there}/30", "dev", self._far)
        _ip("-n", self.name, "link", "set", self._far, "up")
        _ip("-n", self.name, "link", "set", "lo", "up")
        _ip("-n", self.name, "route", "add", "default", "via", self.here)

    def block(self, address: str) -> None:
        """Have nothing on this machine reach `address`, as a firewall does."""
        _ip("-n", self.name, "route", "add", "unreachable", f"{address}/32")

    def cut(self) -> None:
        """From now on packets vanish, both ways, and nobody is told. Routes stay, as with a switch that died."""
        _ip("link", "set", self._cable, "down")
        _ip("route", "add", "blackhole", f"{self.there}/32")

    def mend(self) -> None:
        _ip("route", "del", "blackhole", f"{self.there}/32")
        _ip("link", "set", self._cable, "up")

    def delete(self) -> None:
        subprocess.run(["ip", "route", "del", "blackhole", f"{self.there}/32"], capture_output=True, check=False)
        subprocess.run(["ip", "link", "del", self._cable], capture_output=True, check=False)
        subprocess.run(["ip", "netns", "del", self.name], capture_output=True, check=False)


def _ip(*arguments: str) -> None:
    done = subprocess.run(["ip", *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"ip {' '.join(arguments)}: {done.stderr}"
