"""Tables from a folder of the original artifact's own ``.out`` and ``.txt`` files, without a plan or records."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from data_parsing.errors import ParsingError
from data_parsing.original.artifact_texts import read_text_log
from data_parsing.original.profile_lines import ProfileLog, read_profile_log
from data_parsing.plans.plan import ARTIFACT_MODES, SIZES
from data_parsing.tables.artifact_tables import COLUMNS, SCHEMAS
from data_parsing.tables.experiments import artifact_per_token_latency_ms
from data_parsing.tables.frames import COUNT, NUMBER, TEXT, frame

_MODES = {name: mode for mode, name in ARTIFACT_MODES.items()}
_SIZE = "|".join(SIZES)
_BATCH_SIZE = "[1-9][0-9]*"
_STEMS = {
    "server": re.compile(rf"server_({_SIZE})-({_BATCH_SIZE})_batchsize-({'|'.join(_MODES)})"),
    # One mode only, which its names do not tell.
    "offloading": re.compile(rf"offloading_({_SIZE})_({_BATCH_SIZE})()"),
}
_READERS = {".out": read_profile_log, ".txt": read_text_log}
"""By suffix, in the order in which they are preferred: a .txt tells neither ids nor when a request began."""

LOGS = "logs"
"""The table with a row per file."""

UNKNOWN_NAME = (
    "not drawn: the name is none of server_<size>-<n>_batchsize-<mode> and offloading_<size>_<n>, n = 1, 2, ..."
)

_LOGS_SCHEMA = {
    "file": TEXT,
    "family": TEXT,
    "size": TEXT,
    "mode": TEXT,
    "batch_size": COUNT,
    "num_requests": COUNT,
    "num_target_steps": COUNT,
    "per_token_latency_ms": NUMBER,
    "remarks": TEXT,
}


@dataclass(frozen=True)
class ArtifactLog:
    """What one run of the artifact's experiments left: its ``.out`` file, or the ``.txt`` where that tells nothing."""

    file_name: str
    family: str
    size: str
    batch_size: int
    mode: str
    profile: ProfileLog

    @property
    def latencies_us(self) -> pd.Series:
        """Of its requests."""
        return pd.Series([entry.latency_us for entry in self.profile.entries], dtype="float64")


@dataclass(frozen=True)
class ArtifactFolder:
    """The runs in a folder, by name, and the files of the same kinds whose names tell no experiment."""

    logs: tuple[ArtifactLog, ...]
    unknown: tuple[str, ...]


def read_artifact_logs(raw_dir: Path) -> ArtifactFolder:
    """Every run that is named as the artifact's scripts name theirs. Raises ParsingError."""
    try:
        files = sorted(path for path in raw_dir.iterdir() if path.suffix in _READERS)
        runs: dict[str, list[Path]] = {}
        for path in sorted(files, key=lambda path: [*_READERS].index(path.suffix)):
            runs.setdefault(path.stem, []).append(path)
        logs = tuple(
            _read_log(runs[stem], family, match)
            for stem in sorted(runs)
            for family, form in _STEMS.items()
            if (match := form.fullmatch(stem))
        )
    except OSError as error:
        raise ParsingError(f"{error.filename}: the artifact's logs cannot be read: {error.strerror}") from error
    known = {Path(log.file_name).stem for log in logs}
    return ArtifactFolder(logs, tuple(path.name for path in files if path.stem not in known))


def _read_log(paths: list[Path], family: str, match: re.Match[str]) -> ArtifactLog:
    # Tokenizers cut inside characters, so that generated text in a log need not be UTF-8.
    profiles = {path: _READERS[path.suffix](path.read_text("utf-8", "replace")) for path in paths}
    path = next((path for path, profile in profiles.items() if profile.entries), paths[0])
    mode = _MODES.get(match[3], "sequence")
    return ArtifactLog(path.name, family, match[1], int(match[2]), mode, profiles[path])


def artifact_log_tables(folder: ArtifactFolder) -> dict[str, pd.DataFrame]:
    """One table per family and size that has a run, and one with a row per run; blank where no whole entry is.

    A file of another name is a row, too, that says no more than that.
    """
    rows: dict[tuple[str, str], dict[int, dict[str, float]]] = {}
    ordered = sorted(folder.logs, key=lambda log: (log.family, SIZES.index(log.size), log.batch_size))
    for log in ordered:
        of_table = rows.setdefault((log.family, log.size), {})
        row = of_table.setdefault(log.batch_size, {"batch_size": log.batch_size})
        if log.profile.entries:
            row[COLUMNS[log.family][log.mode]] = artifact_per_token_latency_ms(log.latencies_us)
    tables = {f"{family}_{size}": frame(of.values(), SCHEMAS[family]) for (family, size), of in rows.items()}
    unknown = ({"file": name, "remarks": UNKNOWN_NAME} for name in folder.unknown)
    return tables | {LOGS: frame([*map(_log_row, ordered), *unknown], _LOGS_SCHEMA)}


def _log_row(log: ArtifactLog) -> dict[str, Any]:
    row: dict[str, Any] = {
        "file": log.file_name,
        "family": log.family,
        "size": log.size,
        "mode": log.mode,
        "batch_size": log.batch_size,
        "num_requests": len(log.profile.entries),
        "remarks": remarks(log) or None,
    }
    if log.profile.entries:
        steps = [entry.num_target_steps for entry in log.profile.entries]
        row["per_token_latency_ms"] = artifact_per_token_latency_ms(log.latencies_us)
        row["num_target_steps"] = sum(told) if len(told := [s for s in steps if s is not None]) == len(steps) else None
    return row


def remarks(log: ArtifactLog) -> str:
    """What a reader of the tables must know about a log, empty where there is nothing to say."""
    profile = log.profile
    told = [] if profile.entries else ["0 entries"]
    left_out = (
        (profile.num_damaged, "damaged entry", "damaged entries"),
        (profile.num_duplicates, "repeated guid", "repeated guids"),
        (profile.num_unmeasured, "warm-up or fine-tuning entry", "warm-up or fine-tuning entries"),
        (profile.num_in_text, "entry-like line of a prompt or answer", "entry-like lines of prompts or answers"),
    )
    told += [f"{count} {one if count == 1 else several} left out" for count, one, several in left_out if count]
    if log.file_name.endswith(".txt") and profile.num_damaged and not profile.entries:
        told.append("the running sum falls, or the file is cut inside: a second run was appended")
    return ", ".join(told)
