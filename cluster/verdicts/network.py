"""Whether hosts find and reach each other where ranks talk, and how fast."""

from __future__ import annotations

from ipaddress import ip_address, ip_interface

from cluster.facts import Situation
from cluster.hosts import Host
from cluster.verdicts.verdict import Verdict, failed, machine_of, passed


def name_resolution(situation: Situation, host: Host) -> Verdict:
    """The hostname stands for an address that other hosts can reach: gloo and MPI fall back to it."""
    machine = machine_of(situation, host)
    name, addresses = machine["hostname"], machine["resolves_to"]
    if host.address.is_loopback:
        return passed(f"not needed: {host.address} is this machine only")
    fix = f"in its /etc/hosts: {host.address} {name}"
    if not addresses:
        return failed(f"{name} resolves to nothing", fix)
    if wrong := [item for item in addresses if ip_address(item.partition("%")[0]).is_loopback]:
        return failed(f"{name} resolves to {', '.join(wrong)}", f"{fix} (instead of {wrong[0]})")
    return passed(f"{name} resolves to {', '.join(addresses)}")


def interface(situation: Situation, host: Host) -> Verdict:
    """The interface that ranks talk over is there and has the host's address."""
    there = machine_of(situation, host)["interfaces"]
    name, fix = situation.cluster.interface, "set interface and address in cluster.yaml as `ip address` shows them"
    if there is None:
        return failed("`ip -json address` fails", "apt-get install iproute2")
    if name not in there:
        return failed(f"no interface {name}; there: {', '.join(sorted(there))}", fix)
    own = [ip_interface(item) for item in there[name]]
    # All of 127.0.0.0/8 is this machine, whichever of its addresses the interface lists.
    if any(item.ip == host.address or (item.is_loopback and host.address in item.network) for item in own):
        return passed(f"{name} has {host.address}")
    return failed(f"{name} has {', '.join(map(str, own)) or 'no address'}, not {host.address}", fix)


def reaches_others(situation: Situation, host: Host) -> Verdict:
    """It opens connections from its data address to every other's."""
    others = [other for other in situation.cluster.hosts if other != host]
    if not others:
        return passed("there are no others")
    tried = {other: situation.links[host, other] for other in others if (host, other) in situation.links}
    if errors := [f"{other.address}: {link.error}" for other, link in tried.items() if link.error]:
        return failed(
            "; ".join(errors), f"let the hosts open TCP connections to each other over {situation.cluster.interface}"
        )
    if unknown := [other.host for other in others if other not in tried]:
        return Verdict(None, f"{', '.join(unknown)} could not be looked at")
    return passed(", ".join(f"{other.address}" for other in others))


def speed(situation: Situation, host: Host) -> Verdict:
    """Measured latency and bandwidth to every other host, and at least the wanted bandwidth."""
    links = {other: link for (source, other), link in situation.links.items() if source == host}
    if not links:
        return passed("there are no others")
    detail = ", ".join(
        f"to {other.host} {link.round_trip_us:.0f} us round trip, {link.mb_per_s:.0f} MB/s"
        for other, link in links.items()
    )
    slowest = min(link.mb_per_s or 0.0 for link in links.values())
    if slowest < situation.min_mb_per_s:
        return failed(
            f"{detail}; allowed: {situation.min_mb_per_s:g} MB/s", "use the faster network, or --min-mb-per-s"
        )
    return passed(detail)
