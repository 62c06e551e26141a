"""Which record another is compared with."""

from __future__ import annotations

from collections.abc import Sequence

from data_parsing.plan import PlannedScenario
from data_parsing.records import Measurement, Record


def incremental_baseline(record: Record, records: Sequence[Record], batch_size: int) -> Record | None:
    """The incremental scenario at ``batch_size`` that is otherwise planned like ``record``; None where there is none.

    Like in everything but how it drafts: models, quantisation, streaming, prompts and lengths.
    """
    candidates = (
        other
        for other in records
        if other.planned.mode == "incremental"
        and other.planned.batch_size == batch_size
        and _conditions(other.planned) == _conditions(record.planned)
    )
    return next(candidates, None)


def _conditions(planned: PlannedScenario) -> tuple[str, str, str, dict[str, str]]:
    return planned.experiment, planned.size, planned.target, planned.conditions


def measured_pair(record: Record, baseline: Record | None) -> tuple[Measurement, Measurement] | None:
    """Both measurements, or None where one is not there."""
    if baseline is None or record.measurement is None or baseline.measurement is None:
        return None
    return record.measurement, baseline.measurement
