"""Verdicts as rows: CSV, Markdown, and a table that fits the terminal."""

from __future__ import annotations

import csv
import os
import socket
import textwrap
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from claims.claim import Claim, Range
from claims.errors import ClaimError
from claims.judge import Judged, Verdict, together

_GAP = "  "
_MIN_WIDTH = 8


@dataclass(frozen=True)
class ClaimRow:
    """A line of ``claims.csv``."""

    id: str
    source: str
    statement: str
    published: str
    measured: str
    interval: str
    n: str
    verdict: str
    why: str


COLUMNS = tuple(field.name for field in fields(ClaimRow))


def claim_row(claim: Claim, parts: Sequence[Judged]) -> ClaimRow:
    """A claim with its verdict; several parts stand beside each other, each after its name."""
    intervals = [_interval(part) for part in parts]
    return ClaimRow(
        id=claim.id,
        source=claim.source,
        statement=claim.statement,
        published=_published(claim),
        measured=_joined(parts, [part.measured.text for part in parts]),
        interval=_joined(parts, intervals),
        n=str(sum(part.measured.n for part in parts) or ""),
        verdict=together(parts).value,
        why=_why(parts),
    )


def summary(rows: Sequence[ClaimRow]) -> str:
    """How many claims have which verdict."""
    counts = ", ".join(f"{sum(row.verdict == verdict for row in rows)} {verdict.value}" for verdict in Verdict)
    return f"{len(rows)} claims: {counts}"


def write_rows(rows: Sequence[ClaimRow], output_dir: Path) -> list[Path]:
    """Write ``claims.csv`` and ``claims.md``, each as a whole; returns their paths."""
    lines = [[getattr(row, column) for column in COLUMNS] for row in rows]
    heads = [list(COLUMNS), ["---"] * len(COLUMNS)]
    escaped = [[cell.replace("|", "\\|").replace("<", "&lt;") for cell in line] for line in lines]
    markdown = "".join(f"| {' | '.join(line)} |\n" for line in (*heads, *escaped))
    paths = [output_dir / f"claims.{suffix}" for suffix in ("csv", "md")]
    try:
        output_dir.mkdir(parents=True, exist_ok=True)
        with _replaced(paths[0]).open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
            writer.writeheader()
            writer.writerows(asdict(row) for row in rows)
        _replaced(paths[1]).write_text(markdown, encoding="utf-8")
        for path in paths:
            _replaced(path).replace(path)
    except OSError as error:
        raise ClaimError(f"{output_dir}: verdicts cannot be written: {error.strerror or error}") from error
    return paths


def read_rows(path: Path) -> list[ClaimRow]:
    """The rows of a ``claims.csv``. Raises ClaimError."""
    try:
        with path.open(encoding="utf-8", newline="") as file:
            return [ClaimRow(**line) for line in csv.DictReader(file)]
    except (OSError, UnicodeDecodeError, TypeError) as error:
        raise ClaimError(f"{path}: verdicts cannot be read: {error}; python -m claims writes them") from error


def text_table(rows: Sequence[ClaimRow], width: int) -> str:
    """Aligned columns, the longest of them wrapped until a line fits ``width`` characters."""
    columns = [column for column in COLUMNS if column != "source"]
    cells = [columns, *([getattr(row, column) for column in columns] for row in rows)]
    widths = _fitted([max(len(line[place]) for line in cells) for place in range(len(columns))], width)
    lines = []
    for row in cells:
        wrapped = [
            textwrap.wrap(cell, of, break_on_hyphens=False) or [""] for cell, of in zip(row, widths, strict=True)
        ]
        for number in range(max(map(len, wrapped))):
            parts = [cell[number] if number < len(cell) else "" for cell in wrapped]
            lines.append(_GAP.join(part.ljust(of) for part, of in zip(parts, widths, strict=True)).rstrip())
        lines.append("")
    return "\n".join(lines[:-1])


def _fitted(widths: list[int], width: int) -> list[int]:
    """The widths with the largest ones cut until their sum fits, or none can be cut further."""
    fitted = list(widths)
    room = width - len(_GAP) * (len(widths) - 1)
    while sum(fitted) > room and max(fitted) > _MIN_WIDTH:
        fitted[fitted.index(max(fitted))] -= 1
    return fitted


def _published(claim: Claim) -> str:
    if isinstance(claim.published, dict):
        return "; ".join(f"{name}: {_range(value)}" for name, value in claim.published.items())
    return _range(claim.published)


def _range(value: Range | str) -> str:
    if isinstance(value, tuple):
        return " to ".join(f"{number:g}" for number in value)
    return value if isinstance(value, str) else f"{value:g}"


def _interval(judged: Judged) -> str:
    found = judged.measured.estimate
    return "" if found is None or judged.measured.is_exact else f"{found.low:.3g} to {found.high:.3g}"


def _why(parts: Sequence[Judged]) -> str:
    """What is so for every part, with the parts' names where each lacks something of its own; then what differs."""
    common = [said for said in parts[0].why if all(said in part.why for part in parts)]
    names = " and of ".join(part.part.name for part in parts)
    of_all = [f"of {names} each: {said}" if len(parts) > 1 and said in parts[0].absent else said for said in common]
    own = _joined(parts, ["; ".join(said for said in part.why if said not in common) for part in parts])
    return "; ".join(filter(None, [*of_all, own]))


def _joined(parts: Sequence[Judged], texts: Sequence[str]) -> str:
    """Texts after the names of their parts; once where all say the same."""
    if len(set(texts)) == 1:
        return texts[0]
    return "; ".join(f"{part.part.name}: {text}" for part, text in zip(parts, texts, strict=True) if text)


def _replaced(path: Path) -> Path:
    """Where a file is written before it takes its name."""
    return path.with_name(f".{path.name}.{socket.gethostname()}.{os.getpid()}.tmp")
