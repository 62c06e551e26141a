"""A step of provisioning."""

from __future__ import annotations

from typing import Protocol

from cluster.ssh import Connection

SHORT_S = 30.0  # for commands that only look


class Step(Protocol):
    """One thing that a host must have. Both methods raise ClusterError naming the host and the cause.

    ``apply`` leaves the step done, or as not done as it was: what is made in between is never taken for the whole.
    """

    name: str

    def is_done(self, connection: Connection) -> bool:
        """Whether the host has it; changes nothing."""

    def apply(self, connection: Connection) -> None:
        """Bring it."""
