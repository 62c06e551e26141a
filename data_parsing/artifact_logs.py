"""Tables from a folder of the original artifact's own ``.out`` files, without a plan or records."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from data_parsing.artifact_server import SCHEMA
from data_parsing.errors import ParsingError
from data_parsing.frames import frame
from data_parsing.plan import ARTIFACT_MODES, SIZES
from data_parsing.profile_lines import ProfileLog, read_profile_log
from data_parsing.server import artifact_per_token_latency_ms

_FILE_NAME = re.compile(rf"server_({'|'.join(SIZES)})-(\d+)_batchsize-({'|'.join(ARTIFACT_MODES.values())})\.out")


@dataclass(frozen=True)
class ArtifactLog:
    """One ``.out`` file of the artifact's server experiment."""

    file_name: str
    size: str
    batch_size: int
    artifact_mode: str
    profile: ProfileLog


def read_artifact_logs(raw_dir: Path) -> tuple[ArtifactLog, ...]:
    """Every ``server_<size>-<n>_batchsize-<mode>.out`` in a folder, by name."""
    try:
        paths = sorted(raw_dir.iterdir())
        return tuple(
            # Tokenizers cut inside characters, so that generated text in a log need not be UTF-8.
            ArtifactLog(
                path.name, match[1], int(match[2]), match[3], read_profile_log(path.read_text("utf-8", "replace"))
            )
            for path in paths
            if (match := _FILE_NAME.fullmatch(path.name))
        )
    except OSError as error:
        raise ParsingError(f"{error.filename}: the artifact's logs cannot be read: {error.strerror}") from error


def artifact_log_tables(logs: tuple[ArtifactLog, ...]) -> dict[str, pd.DataFrame]:
    """``server_<size>`` for each size that has a log; blank where a log is not there or holds no whole entry."""
    rows: dict[str, dict[int, dict[str, float]]] = {}
    for log in sorted(logs, key=lambda log: (SIZES.index(log.size), log.batch_size)):
        row = rows.setdefault(log.size, {}).setdefault(log.batch_size, {"batch_size": log.batch_size})
        latencies_us = pd.Series([entry.latency_us for entry in log.profile.entries], dtype="float64")
        if len(latencies_us):
            row[f"{log.artifact_mode}_per_token_latency_ms"] = artifact_per_token_latency_ms(latencies_us)
    return {f"server_{size}": frame(by_batch_size.values(), SCHEMA) for size, by_batch_size in rows.items()}


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
