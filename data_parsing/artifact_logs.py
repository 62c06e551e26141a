"""Tables from a folder of the original artifact's own ``.out`` files, without a plan or records."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from data_parsing.artifact_tables import COLUMNS, SCHEMAS
from data_parsing.errors import ParsingError
from data_parsing.experiments import artifact_per_token_latency_ms
from data_parsing.frames import frame
from data_parsing.plan import ARTIFACT_MODES, SIZES
from data_parsing.profile_lines import ProfileLog, read_profile_log

_MODES = {name: mode for mode, name in ARTIFACT_MODES.items()}
_SIZE = "|".join(SIZES)
_FILE_NAMES = {
    "server": re.compile(rf"server_({_SIZE})-(\d+)_batchsize-({'|'.join(_MODES)})\.out"),
    # One mode only, which its names do not tell.
    "offloading": re.compile(rf"offloading_({_SIZE})_(\d+)()\.out"),
}


@dataclass(frozen=True)
class ArtifactLog:
    """One ``.out`` file of the artifact's experiments."""

    file_name: str
    family: str
    size: str
    batch_size: int
    mode: str
    profile: ProfileLog


def read_artifact_logs(raw_dir: Path) -> tuple[ArtifactLog, ...]:
    """Every log in a folder that is named as the artifact's scripts name theirs, by name."""
    try:
        return tuple(
            _read_log(path, family, match)
            for path in sorted(raw_dir.iterdir())
            for family, file_name in _FILE_NAMES.items()
            if (match := file_name.fullmatch(path.name))
        )
    except OSError as error:
        raise ParsingError(f"{error.filename}: the artifact's logs cannot be read: {error.strerror}") from error


def _read_log(path: Path, family: str, match: re.Match[str]) -> ArtifactLog:
    # Tokenizers cut inside characters, so that generated text in a log need not be UTF-8.
    profile = read_profile_log(path.read_text("utf-8", "replace"))
    return ArtifactLog(path.name, family, match[1], int(match[2]), _MODES.get(match[3], "sequence"), profile)


def artifact_log_tables(logs: tuple[ArtifactLog, ...]) -> dict[str, pd.DataFrame]:
    """One table per family and size that has a log; blank where a log is not there or holds no whole entry."""
    rows: dict[tuple[str, str], dict[int, dict[str, float]]] = {}
    for log in sorted(logs, key=lambda log: (log.family, SIZES.index(log.size), log.batch_size)):
        of_table = rows.setdefault((log.family, log.size), {})
        row = of_table.setdefault(log.batch_size, {"batch_size": log.batch_size})
        latencies_us = pd.Series([entry.latency_us for entry in log.profile.entries], dtype="float64")
        if len(latencies_us):
            row[COLUMNS[log.family][log.mode]] = artifact_per_token_latency_ms(latencies_us)
    return {f"{family}_{size}": frame(of.values(), SCHEMAS[family]) for (family, size), of in rows.items()}


def remarks(log: ArtifactLog) -> str:
    """What a reader of the tables must know about a log, empty where there is nothing to say."""
    profile = log.profile
    counts = {
        "entries": None if profile.entries else 0,
        "damaged entries left out": profile.num_damaged or None,
        "repeated guids left out": profile.num_duplicates or None,
        "warm-up or fine-tuning entries left out": profile.num_unmeasured or None,
    }
    return ", ".join(f"{count} {what}" for what, count in counts.items() if count is not None)
