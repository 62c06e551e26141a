"""The names of the tables that parsing writes: the experiments' own, and those of scenarios of all of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from rules.scenarios import PlannedPlacement
from rules.sweeps import Sweep
from treespec.errors import ConfigError

SHARED_TABLES = (
    *("time_split", "token_equality", "requests", "acceptance", "success_rates"),
    *("accepted_lengths", "verify_costs", "predictions", "losslessness"),
)


def tables_of(sweep: Sweep, placements: Iterable[PlannedPlacement]) -> tuple[str, ...]:
    """An experiment's own, the one of all its scenarios first."""
    sizes = dict.fromkeys(item.point.size for placement in placements for item in placement.scenarios)
    return (sweep.prefix, *(f"{sweep.prefix}_{size}" for size in sizes if sweep.has_size_tables))


def refuse_doubled_tables(tables: Mapping[str, tuple[str, ...]], where: str) -> None:
    """Two tables would be one file. Raises ConfigError; ``tables`` by the experiment's name, ``where`` its folder."""
    owners = dict.fromkeys(SHARED_TABLES, "")
    for experiment, names in tables.items():
        for name in names:
            if name in owners:
                other = f"that of {owners[name]}.yaml" if owners[name] else "the one of all experiments"
                raise ConfigError(
                    f"prefix {names[0]!r} makes a table of a name that is taken",
                    where=f"{where}/{experiment}.yaml",
                    received=f"{name}, as {other}",
                    fix="choose another prefix: it names the experiment's table",
                )
            owners[name] = experiment
