"""Whether a host can be reached and asked, and knows the time."""

from __future__ import annotations

from cluster.facts import Situation
from cluster.hosts import Host
from cluster.verdicts.verdict import Verdict, failed, passed

MAX_CLOCK_S = 2.0


def reachable(_: Situation, host: Host) -> Verdict:
    """It speaks SSH at its port."""
    return passed(f"speaks SSH at port {host.port}")


def host_key(situation: Situation, _: Host) -> Verdict:
    """It shows the pinned key."""
    return passed(f"as pinned in {situation.cluster.known_hosts}")


def login(situation: Situation, _: Host) -> Verdict:
    """It accepts our key."""
    return passed(f"as {situation.cluster.user}")


def answers(_: Situation, __: Host) -> Verdict:
    """It runs commands."""
    return passed("runs commands")


def clock(situation: Situation, host: Host) -> Verdict:
    """Its clock is in step with ours, as far as a round trip lets one tell."""
    found = situation.hosts[host].clock
    assert found is not None, "the check needs answers"
    detail = (
        f"{abs(found.ahead_s):.2f} s {'ahead' if found.ahead_s > 0 else 'behind'}, give or take {found.within_s:.2f} s"
    )
    if abs(found.ahead_s) - found.within_s < MAX_CLOCK_S:
        return passed(detail)
    return failed(f"{detail}; allowed: {MAX_CLOCK_S:g} s", "set the clocks by NTP: timedatectl set-ntp true")
