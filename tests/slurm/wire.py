"""A network of its own for one node of the test cluster, behind a switch that can fall silent.

Two nodes on one machine see at once when the other's processes die: the kernel closes their connections. A machine that
loses its power, or a switch that does, says nothing: packets vanish. Here the node lives in a network namespace, and a
bridge in a second one stands between it and the others: while that is down, nobody is told anything.
"""

import os
import secrets
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Wire:
    """``here`` is this machine's address as the node sees it, ``there`` the node's; ``name`` that of its namespace."""

    name: str
    switch: str
    here: str
    there: str

    @property
    def inside(self) -> list[str]:
        """What is put before a command to run it in the node's network."""
        return ["nsenter", f"--net=/run/netns/{self.name}"]

    def cut(self) -> None:
        """From now on packets vanish."""
        _do("ip", "-n", self.switch, "link", "set", "dev", "sw", "down")

    def mend(self) -> None:
        """Packets arrive again."""
        _do("ip", "-n", self.switch, "link", "set", "dev", "sw", "up")


def why_not() -> str:
    """Why there can be no such network here; empty if there can."""
    if os.geteuid() != 0:
        return "network namespaces need root"
    missing = [name for name in ("ip", "nsenter") if shutil.which(name) is None]
    if missing:
        return f"{', '.join(missing)} not installed (Debian: iproute2, util-linux)"
    tried = subprocess.run(["unshare", "-n", "true"], capture_output=True, check=False)
    return "" if tried.returncode == 0 else "this machine allows no network namespaces"


@contextmanager
def new_wire() -> Iterator[Wire]:
    """A wire while this lasts."""
    tag, net = f"t{secrets.token_hex(3)}", f"10.213.{secrets.randbelow(256)}"
    wire = Wire(f"{tag}n", f"{tag}s", f"{net}.1", f"{net}.2")
    node, switch = ["-n", wire.name], ["-n", wire.switch]
    try:
        for name in (wire.name, wire.switch):
            _do("ip", "netns", "add", name)
        _do("ip", *switch, "link", "add", "sw", "type", "bridge")
        _do("ip", "link", "add", f"{tag}a", "type", "veth", "peer", "name", "a", "netns", wire.switch)
        _do("ip", *node, "link", "add", f"{tag}b", "type", "veth", "peer", "name", "b", "netns", wire.switch)
        for port in ("a", "b"):
            _do("ip", *switch, "link", "set", "dev", port, "master", "sw", "up")
        for namespace, device, address in (([], f"{tag}a", wire.here), (node, f"{tag}b", wire.there)):
            _do("ip", *namespace, "address", "add", f"{address}/24", "dev", device)
            _do("ip", *namespace, "link", "set", "dev", device, "up")
        _do("ip", *node, "link", "set", "dev", "lo", "up")
        wire.mend()
        yield wire
    finally:
        # with the namespaces go their ends of the wires, and with those the other ends
        for name in (wire.name, wire.switch):
            subprocess.run(["ip", "netns", "delete", name], capture_output=True, check=False)


def _do(*argv: str) -> None:
    subprocess.run(argv, check=True, capture_output=True)
