"""Which record another is compared with."""

from __future__ import annotations

from collections.abc import Sequence

from data_parsing.plan import PlannedScenario
from data_parsing.records import Measurement, Record

_Conditions = tuple[str, str, str, int]


class Baselines:
    """The incremental scenarios of a plan by what they have in common with others."""

    def __init__(self, records: Sequence[Record]) -> None:
        self._by_conditions: dict[_Conditions, Record] = {}
        for record in records:
            if record.planned.is_incremental:
                key = _conditions(record.planned, record.planned.batch_size)
                self._by_conditions.setdefault(key, record)

    def incremental(self, record: Record, batch_size: int) -> Record | None:
        """The incremental scenario at ``batch_size`` that is otherwise planned like ``record``; None without one.

        Like in everything but how it drafts: models, quantisation, streaming, prompts, lengths and sampling.
        """
        return self._by_conditions.get(_conditions(record.planned, batch_size))


def _conditions(planned: PlannedScenario, batch_size: int) -> _Conditions:
    return planned.experiment, planned.size, planned.conditions, batch_size


def measured_pair(record: Record, baseline: Record | None) -> tuple[Measurement, Measurement] | None:
    """Both measurements, or None where one is not there."""
    if baseline is None or record.measurement is None or baseline.measurement is None:
        return None
    return record.measurement, baseline.measurement
