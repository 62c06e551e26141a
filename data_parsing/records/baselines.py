"""Which record another is compared with."""

from __future__ import annotations

from collections.abc import Sequence

from data_parsing.plans.plan import PlannedScenario
from data_parsing.records.reading import Measurement, Record

_Conditions = tuple[str, str, str]


class Baselines:
    """The incremental scenarios of a plan by what they have in common with others."""

    def __init__(self, records: Sequence[Record]) -> None:
        self._by_conditions: dict[_Conditions, dict[int, Record]] = {}
        for record in records:
            if record.planned.is_incremental:
                of_batch_size = self._by_conditions.setdefault(_conditions(record.planned), {})
                of_batch_size.setdefault(record.planned.batch_size, record)

    def incremental(self, record: Record, batch_size: int) -> Record | None:
        """The incremental scenario at ``batch_size`` that is otherwise planned like ``record``; None without one.

        Like in everything but how it drafts: models, quantisation, streaming, prompts, lengths and sampling.
        """
        return self._by_conditions.get(_conditions(record.planned), {}).get(batch_size)

    def plainest(self, record: Record) -> Record | None:
        """The same at the smallest batch size that is planned: 1, where that is."""
        by_batch_size = self._by_conditions.get(_conditions(record.planned), {})
        return by_batch_size[min(by_batch_size)] if by_batch_size else None


def _conditions(planned: PlannedScenario) -> _Conditions:
    return planned.experiment, planned.size, planned.conditions


def measured_pair(record: Record, baseline: Record | None) -> tuple[Measurement, Measurement] | None:
    """Both measurements, or None where one is not there."""
    if baseline is None or record.measurement is None or baseline.measurement is None:
        return None
    return record.measurement, baseline.measurement
