"""What a user is told: what is wrong, on which host, what was received, what is allowed, what to do."""

from __future__ import annotations


class ClusterError(Exception):
    """A cluster or its description is not what it has to be; the message is one line for the user."""

    def __init__(
        self, what: str, *, where: str, received: object = None, allowed: object = None, fix: str | None = None
    ) -> None:
        self.where = where
        details = {"received": received, "allowed": allowed, "fix": fix}
        told = "".join(f"; {name}: {value}" for name, value in details.items() if value is not None)
        super().__init__(f"{where}: {what}{told}")


class UnreachableError(ClusterError):
    """No connection could be made, or it was lost."""


class HostKeyError(UnreachableError):
    """The host is not known, or shows another key than the pinned one."""
