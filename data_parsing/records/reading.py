"""Reader of the engine's records (``.meta.json`` and ``.jsonl``): what a record holds and whether it may count."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd

from data_parsing.errors import ParsingError
from data_parsing.intervals import Estimate, per_token_grid, rate_intervals, sums_grid
from data_parsing.plans.plan import PlannedScenario
from data_parsing.records.rank_counts import RankCounts
from data_parsing.records.record_costs import StepCosts, read_costs
from data_parsing.records.record_fields import DamagedRecordError, object_of, read_json_object, text_of
from data_parsing.records.record_parts import (
    OffloadPlan,
    Provenance,
    RepeatTotals,
    read_offload_plan,
    read_provenance,
    read_repeat_totals,
)
from data_parsing.records.request_rows import read_request_rows

RECORD_FORMAT = 1
_ASIDE = re.compile(r"\.([0-9a-f]{8}|damaged)(\.\d+)?\.meta\.json")


class Status(StrEnum):
    """Whether a planned scenario has a record that counts; only OK does."""

    OK = "ok"
    FAILED = "failed"
    SUPERSEDED = "superseded"
    INCOMPLETE = "incomplete"
    MISSING = "missing"


@dataclass(frozen=True)
class Measurement:
    """The content of a complete record."""

    requests: pd.DataFrame
    """One row per request and repeat, columns of ``request_rows.COLUMNS``."""
    repeats: tuple[RepeatTotals, ...]
    provenance: Provenance
    costs: dict[str, StepCosts]
    """By number of the draft model; empty where they were not measured."""
    offload: OffloadPlan | None = None

    @cached_property
    def num_repeats(self) -> int:
        """Measured passes over the prompts."""
        return int(self.requests["repeat"].nunique())

    @cached_property
    def per_token_ms(self) -> pd.DataFrame:
        """``intervals.per_token_grid`` of the requests."""
        return per_token_grid(self.requests)

    @cached_property
    def tokens_per_step(self) -> Estimate:
        """What a decoding step emits, over all requests."""
        counts = self.requests[["num_step_tokens", "num_decoding_steps"]].to_numpy(dtype=np.float64)
        counts_RPC = sums_grid(self.requests, counts)
        (estimate,) = rate_intervals(counts_RPC[:, :, :1], counts_RPC[:, :, 1:])
        return estimate

    @cached_property
    def outputs(self) -> dict[int, set[tuple[int, ...]]]:
        """Prompt -> the different outputs of all its requests."""
        outputs: dict[int, set[tuple[int, ...]]] = {}
        for prompt, token_ids in zip(self.requests["prompt_index"], self.requests["output_token_ids"], strict=True):
            outputs.setdefault(int(prompt), set()).add(token_ids)
        return outputs

    @cached_property
    def rank_counts(self) -> RankCounts:
        """What was offered and accepted, by depth and rank."""
        return RankCounts.of(self.requests)


@dataclass(frozen=True)
class Record:
    """A planned scenario and what the raw folder holds of it; ``measurement`` is there exactly if status is OK."""

    planned: PlannedScenario
    status: Status
    detail: str = ""
    measurement: Measurement | None = None


def read_records(raw_dir: Path, plan: Sequence[PlannedScenario]) -> tuple[Record, ...]:
    """One record per planned scenario; a folder that does not exist holds none. Damage is a status, never an error."""
    if raw_dir.exists() and not raw_dir.is_dir():
        raise ParsingError(f"{raw_dir}: the raw folder is not a folder")
    return tuple(read_record(raw_dir, planned) for planned in plan)


def read_record(raw_dir: Path, planned: PlannedScenario) -> Record:
    """The record of one scenario as it stands now."""
    meta_path = raw_dir / f"{planned.scenario}.meta.json"
    try:
        meta = read_json_object(meta_path)
    except FileNotFoundError:
        return _uncommitted(raw_dir, planned)
    except DamagedRecordError as damage:
        return Record(planned, Status.INCOMPLETE, str(damage))
    try:
        fingerprint = text_of(meta, "fingerprint")
        if fingerprint != planned.fingerprint:
            detail = f"record has fingerprint {fingerprint[:8]}, planned is {planned.fingerprint[:8]}"
            return Record(planned, Status.SUPERSEDED, detail)
        status = text_of(meta, "status")
        if status == "failed":
            return Record(planned, Status.FAILED, " ".join(str(meta.get("error") or "no message").split()))
        if status != "ok" or meta.get("format") != RECORD_FORMAT:
            raise DamagedRecordError(f"status {status!r} or format {meta.get('format')!r} is unknown")
        return Record(planned, Status.OK, measurement=_measurement(raw_dir, planned, meta))
    except DamagedRecordError as damage:
        return Record(planned, Status.INCOMPLETE, str(damage))


def _measurement(raw_dir: Path, planned: PlannedScenario, meta: dict[str, object]) -> Measurement:
    num_rows, rows_path = meta.get("num_rows"), raw_dir / f"{planned.scenario}.jsonl"
    requests = read_request_rows(rows_path)
    if type(num_rows) is not int or len(requests) != num_rows or num_rows < 1:
        raise DamagedRecordError(f".jsonl holds {len(requests)} rows of {num_rows}")
    # Older records have no digest.
    if "rows_sha256" in meta and meta["rows_sha256"] != hashlib.sha256(rows_path.read_bytes()).hexdigest():
        raise DamagedRecordError(".jsonl is not as it was written: its sha256 is another")
    return Measurement(
        requests=requests,
        repeats=read_repeat_totals(meta.get("repeats")),
        provenance=read_provenance(
            config=object_of(meta, "config"),
            models=object_of(meta, "models"),
            environment=object_of(meta, "environment"),
        ),
        costs=read_costs(meta),
        offload=read_offload_plan(meta),
    )


def _uncommitted(raw_dir: Path, planned: PlannedScenario) -> Record:
    # The engine renames .meta.json last; rows without it are what a killed run left.
    if (raw_dir / f"{planned.scenario}.jsonl").exists():
        return Record(planned, Status.INCOMPLETE, "rows without .meta.json: the run did not finish")
    # Aside, a name is followed by its fingerprint's first digits, and by a number where that was taken.
    aside = (path.name for path in (raw_dir / "superseded").glob(f"{planned.scenario}.*.meta.json"))
    if any(_ASIDE.fullmatch(name.removeprefix(planned.scenario)) for name in aside):
        return Record(planned, Status.SUPERSEDED, "only records of other configurations lie in superseded/")
    return Record(planned, Status.MISSING)
