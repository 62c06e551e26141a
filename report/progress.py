"""What is done, failed and missing, as the tables say it, and the command that runs the rest."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from report.tables import Table

OK = "ok"
META = ".meta.json"
_NEEDED = {"scenario", "experiment", "status"}


@dataclass(frozen=True)
class Outcome:
    """A planned scenario and how far it has come."""

    scenario: str
    experiment: str
    status: str
    detail: str


@dataclass(frozen=True)
class ExperimentProgress:
    """The scenarios of one experiment by status, and the command for those that are not done; "" where all are."""

    experiment: str
    counts: Mapping[str, int]
    open: tuple[Outcome, ...]
    command: str

    @property
    def num_planned(self) -> int:
        """Scenarios of the plan."""
        return sum(self.counts.values())

    @property
    def num_done(self) -> int:
        """Scenarios with a record that counts."""
        return self.counts.get(OK, 0)


def read_outcomes(tables: Sequence[Table]) -> tuple[Outcome, ...]:
    """Every scenario that some table knows the status of, once, in the order of the tables."""
    outcomes: dict[str, Outcome] = {}
    for table in tables:
        if set(table.columns) >= _NEEDED:
            for row in table.records():
                found = Outcome(row["scenario"], row["experiment"], row["status"], row.get("detail", ""))
                known = outcomes.setdefault(found.scenario, found)
                if found.detail and not known.detail:
                    outcomes[found.scenario] = found
    return tuple(outcomes.values())


def unplanned(raw_dir: Path, outcomes: Sequence[Outcome]) -> tuple[str, ...]:
    """Names of the records that lie beside those of the plan: of another configuration, in no table."""
    planned = {outcome.scenario for outcome in outcomes}
    return tuple(sorted({path.name.removesuffix(META) for path in raw_dir.glob(f"*{META}")} - planned))


def progress(outcomes: Sequence[Outcome], command: str) -> tuple[ExperimentProgress, ...]:
    """By experiment; ``command`` holds ``{target}`` where the target stands."""
    by_experiment: dict[str, list[Outcome]] = {}
    for outcome in outcomes:
        by_experiment.setdefault(outcome.experiment, []).append(outcome)
    made = []
    for experiment, own in sorted(by_experiment.items()):
        undone = tuple(outcome for outcome in own if outcome.status != OK)
        rest = command.replace("{target}", f"{experiment}_experiments") if undone else ""
        made.append(ExperimentProgress(experiment, Counter(outcome.status for outcome in own), undone, rest))
    return tuple(made)
