"""Which record another is compared with."""

from __future__ import annotations

from collections.abc import Sequence

from data_parsing.plan import PlannedScenario
from data_parsing.records import Measurement, Record


def incremental_baseline(record: Record, records: Sequence[Record], batch_size: int) -> Record | None:
    """The incremental scenario at ``batch_size`` that is otherwise planned like ``record``; None where there is none.

    A scenario with settings beyond the artifact's ("-key_value" in its name) is compared with incremental decoding
    under the same settings, or where that is not planned (a setting of the draft only) under the artifact's.
    """
    planned = record.planned
    candidates = {
        other.planned.variant: other
        for other in records
        if other.planned.mode == "incremental"
        and other.planned.batch_size == batch_size
        and _family(other.planned) == _family(planned)
    }
    return candidates.get(planned.variant) or candidates.get("")


def _family(planned: PlannedScenario) -> tuple[str, str, str]:
    return planned.experiment, planned.size, planned.target


def measured_pair(record: Record, baseline: Record | None) -> tuple[Measurement, Measurement] | None:
    """Both measurements, or None where one is not there."""
    if baseline is None or record.measurement is None or baseline.measurement is None:
        return None
    return record.measurement, baseline.measurement
