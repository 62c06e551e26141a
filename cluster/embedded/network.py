"""A switch in a namespace, a link from it to this machine and to each node; it vanishes with the processes."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network

from cluster.embedded.processes import run_program, wait_until
from cluster.errors import ClusterError

WHERE = "embedded network"
THIRD_BYTES = range(256)
NODE_INTERFACE = "eth0"
BRIDGE = "switch0"
UPLINK = "uplink"


@dataclass(frozen=True)
class Network:
    """10.77.<third_byte>.0/24: this machine is .1, the nodes are .11, .12 and so on."""

    third_byte: int
    rack_pid: int  # holds the switch's namespace

    @property
    def interface(self) -> str:
        """This machine's end of its link."""
        return f"treespec{self.third_byte}"

    @property
    def subnet(self) -> IPv4Network:
        """All its addresses."""
        return _subnet(self.third_byte)

    def address(self, node: int) -> IPv4Address:
        """A node's address."""
        return self.subnet[11 + node]

    def plug_in(self, node: int, node_pid: int) -> None:
        """Give the network namespace of a process the link, the address and the loopback of this node."""
        port = _port(node)
        # After a crash, the kernel takes a moment to remove the former link.
        wait_until(lambda: port not in self._ports(), f"port {port} stays occupied", where=WHERE)
        # The same hardware address after every start, as a real machine has: nobody's neighbour table goes stale.
        hardware = f"02:77:4d:{self.third_byte:02x}:00:{11 + node:02x}"
        peer = f"peer name {NODE_INTERFACE} address {hardware} netns {node_pid}"
        self._in_switch(f"link add {port} type veth {peer}", f"link set {port} master {BRIDGE}")
        configured = [
            "link set lo up",
            f"addr add {self.address(node)}/{self.subnet.prefixlen} dev {NODE_INTERFACE}",
            f"link set {NODE_INTERFACE} up",
        ]
        _ip_inside(node_pid, configured)
        self.mend(node)

    def cut(self, node: int) -> None:
        """Take a node's link down, at the switch."""
        self._in_switch(f"link set {_port(node)} down")

    def mend(self, node: int) -> None:
        """Take a node's link up, and wait until it carries."""
        port = _port(node)
        self._in_switch(f"link set {port} up")
        # A packet that comes before would be lost, and its sender waits a second before it tries again.
        wait_until(lambda: {port, UPLINK} <= self._ports("UP"), f"port {port} does not come up", where=WHERE)

    def _ports(self, *states: str) -> set[str]:
        """Interfaces of the switch, all of them or those in one of these operational states."""
        listed = run_program(_entered(self.rack_pid, ["ip", "-json", "link", "show"]), where=WHERE)
        return {link["ifname"] for link in json.loads(listed) if not states or link["operstate"] in states}

    def _in_switch(self, *commands: str) -> None:
        _ip_inside(self.rack_pid, commands)


def create(rack_pid: int) -> Network:
    """Make the switch in the namespace of this process, on a subnet that no route of this machine covers.

    The name of this machine's interface holds the subnet: who succeeds in making it owns both.
    """
    occupied = _routed()
    for third_byte in THIRD_BYTES:
        network = Network(third_byte, rack_pid)
        if any(network.subnet.overlaps(other) for other in occupied) or not _claimed(network):
            continue
        prefix = network.subnet.prefixlen
        made = [f"addr add {network.subnet[1]}/{prefix} dev {network.interface}", f"link set {network.interface} up"]
        run_program(["ip", "-batch", "-"], stdin="\n".join(made) + "\n", where=WHERE)
        network._in_switch(
            f"link add {BRIDGE} type bridge",
            f"link set {BRIDGE} up",
            f"link set {UPLINK} master {BRIDGE}",
            f"link set {UPLINK} up",
        )
        return network
    raise ClusterError("no subnet of 10.77.0.0/16 is free here", where=WHERE, fix="ip route shows who covers it")


def remove(network: Network) -> None:
    """Take this machine's interface away at once; the kernel would do it a moment after the switch is gone."""
    with contextlib.suppress(ClusterError):
        run_program(["ip", "link", "delete", network.interface], where=WHERE)


def limit_rate(node_pid: int, mbit_per_s: float | None) -> None:
    """Let a node send at most this much; None takes the limit away."""
    queue = ["tc", "qdisc", "replace", "dev", NODE_INTERFACE, "root"]
    if mbit_per_s is None:
        words = [*queue, "noqueue"]
    else:
        words = [*queue, "tbf", "rate", f"{mbit_per_s:g}mbit", "burst", "128kb", "latency", "100ms"]
    run_program(_entered(node_pid, words), where=WHERE)


def has_own_network(pid: int) -> bool:
    """This process has left the network namespace that we are in."""
    try:
        return os.readlink(f"/proc/{pid}/ns/net") != os.readlink("/proc/self/ns/net")
    except (FileNotFoundError, ProcessLookupError):
        return False


def _port(node: int) -> str:
    return f"port{node}"


def _subnet(third_byte: int) -> IPv4Network:
    return IPv4Network((f"10.77.{third_byte}.0", 24))


def _claimed(network: Network) -> bool:
    words = f"link add {network.interface} type veth peer name {UPLINK} netns {network.rack_pid}".split()
    try:
        run_program(["ip", *words], where=WHERE)
    except ClusterError as error:
        if "File exists" in str(error):
            return False
        raise
    return True


def _routed() -> list[IPv4Network]:
    """Every destination that has a route here, the default route's everything left out."""
    routes = json.loads(run_program(["ip", "-json", "-4", "route", "show", "table", "all"], where=WHERE))
    return [IPv4Network(route["dst"], strict=False) for route in routes if route["dst"] != "default"]


def _entered(pid: int, words: Sequence[str]) -> list[str]:
    return ["nsenter", f"--net=/proc/{pid}/ns/net", "--", *words]


def _ip_inside(pid: int, commands: Sequence[str]) -> None:
    run_program(_entered(pid, ["ip", "-batch", "-"]), stdin="\n".join(commands) + "\n", where=WHERE)
