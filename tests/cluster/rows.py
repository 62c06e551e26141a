"""Finding one's way in the rows of a check."""

from __future__ import annotations

from cluster.checks import Row


def row(rows: list[Row], name: str, host: str = "node1") -> Row:
    """The check of that name."""
    (found,) = [item for item in rows if (item.host, item.name) == (host, name)]
    return found


def failures(rows: list[Row]) -> set[tuple[str, str]]:
    """What failed, where."""
    return {(item.host, item.name) for item in rows if item.ok is False}
