"""All records of a plan, with what several tables compute from them; each of it is computed once."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from data_parsing.intervals import Estimate, median_ratio_interval
from data_parsing.records.baselines import Baselines, measured_pair
from data_parsing.records.reading import Record
from data_parsing.records.record_costs import StepCosts


@dataclass(frozen=True)
class RecordSet:
    """The records of all planned scenarios and the names of the plan's long tables."""

    tables: tuple[str, ...]
    records: tuple[Record, ...]

    @cached_property
    def baselines(self) -> Baselines:
        """The incremental scenarios."""
        return Baselines(self.records)

    @cached_property
    def speedups(self) -> dict[str, Estimate]:
        """Scenario -> speed-up over incremental decoding at the same batch size, where that can be told."""
        found = ((record.planned.scenario, self._speedup(record)) for record in self.records)
        return {scenario: speedup for scenario, speedup in found if speedup is not None}

    @cached_property
    def placements(self) -> dict[str, Record]:
        """Placement -> the first of its records that tells what passes cost."""
        found: dict[str, Record] = {}
        for record in self.records:
            if record.measurement is not None and record.measurement.costs:
                found.setdefault(record.planned.placement, record)
        return found

    def step_costs(self, placement: str, draft_model: int | None) -> StepCosts | None:
        """What passes of a placement cost with one of its draft models; None where it was not measured."""
        record = self.placements.get(placement)
        if record is None or record.measurement is None:
            return None
        return record.measurement.costs.get(str(draft_model))

    def _speedup(self, record: Record) -> Estimate | None:
        pair = measured_pair(record, self.baselines.incremental(record, record.planned.batch_size))
        if pair is None or not pair[0].provenance.same_conditions(pair[1].provenance):
            return None
        measured, incremental = pair
        return median_ratio_interval(numerator=incremental.per_token_ms, denominator=measured.per_token_ms)
