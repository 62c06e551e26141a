"""The registry of statistics: from the rows of a claim to a value with its interval."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
import pandas as pd

from claims.bootstrap import Array, Estimate, estimate
from claims.measures import Best, Count, Maximum, Ratio, RatioOfColumn, Share, Trend
from claims.pairs import Averaged, Pair, averaged, keys, pairs
from claims.tables import Tables


@dataclass(frozen=True)
class Measured:
    """What the rows say; no estimate where they do not suffice."""

    text: str = ""
    estimate: Estimate | None = None
    n: int = 0
    """What the estimate is over: prompts of all pairs, trials, outcomes or rows."""
    lacking: tuple[str, ...] = ()
    """Scenarios with a record that lack the value."""
    sides: tuple[Estimate, Estimate] | None = None
    """Denominator and numerator by themselves."""
    num_prompts: int | None = None
    """Different prompts that the interval was drawn from; None for what is no sample of prompts."""
    is_exact: bool = False
    """A count: it has no interval."""


Statistic = Callable[[Tables, Any, pd.DataFrame], Measured]
"""From the tables, the measure, and those of its rows that have records."""


def ratio(tables: Tables, measure: Ratio, rows: pd.DataFrame) -> Measured:
    """Geometric mean of the ratios of all pairs."""
    compared, values = _compared(tables, measure, rows)
    if not compared:
        return Measured(lacking=values.lacking if values else ())
    assert values is not None
    logs_C, logs_DC, num = _log_ratios(rows, compared, values)
    value = float(np.exp(logs_C.mean()))
    text = f"{value:.3g}"
    if len(compared) > 1:
        text += f" ({np.exp(logs_C.min()):.3g} to {np.exp(logs_C.max()):.3g} in {len(compared)} pairs)"
    result = estimate(value, np.exp(logs_DC.mean(axis=1)))
    return Measured(text, result, num, values.lacking, num_prompts=values.averages.num_prompts)


def trend(tables: Tables, measure: Trend, rows: pd.DataFrame) -> Measured:
    """Factor per doubling of the axis: least squares on logarithms, one line per group of pairs, one slope for all."""
    compared, values = _compared(tables, measure, rows)
    place = measure.pair_by.index(measure.axis)
    x_C = np.log2([float(pair.key[place]) for pair in compared])
    groups = pd.Series(["|".join((*pair.key[:place], *pair.key[place + 1 :])) for pair in compared], dtype=str)
    centred_C = x_C - pd.Series(x_C).groupby(groups).transform("mean").to_numpy() if compared else x_C
    spread = float((centred_C**2).sum())
    if values is None or spread == 0:
        return Measured(lacking=values.lacking if values else ())
    logs_C, logs_DC, num = _log_ratios(rows, compared, values)
    slope, slopes_D = logs_C @ centred_C / spread, logs_DC @ centred_C / spread
    factor = float(np.exp(slope))
    result = estimate(factor, np.exp(slopes_D))
    text = f"x {factor:.3g} per doubling"
    return Measured(text, result, num, values.lacking, num_prompts=values.averages.num_prompts)


def best(tables: Tables, measure: Best, rows: pd.DataFrame) -> Measured:
    """The worst group's ratio of the lowest value at a published place of the axis to the lowest elsewhere."""
    if rows.empty:
        return Measured()
    values = averaged(tables, measure, rows)
    rows = rows[rows["scenario"].isin(values.places)]
    axis = tables.numbers(measure.table, rows, measure.axis)
    ratios, draws, told, num = [], [], [], 0
    for key, group in rows.groupby(pd.Series(keys(rows, measure.pair_by), index=rows.index), sort=False):
        names, is_published = list(group["scenario"]), axis[group.index].isin(measure.places).to_numpy()
        if is_published.all() or not is_published.any():
            continue
        values_S, draws_DS = values.values(names), values.draws(names)
        ratios.append(values_S[is_published].min() / values_S[~is_published].min())
        draws.append(draws_DS[:, is_published].min(axis=1) / draws_DS[:, ~is_published].min(axis=1))
        told.append((key, f"{axis[group.index].iloc[int(values_S.argmin())]:g}"))
        num += values.num_prompts(names)
    if not ratios:
        return Measured(lacking=values.lacking)
    result = estimate(float(max(ratios)), np.max(draws, axis=0))
    return Measured(_best_text(told), result, num, values.lacking, num_prompts=values.averages.num_prompts)


def ratio_of_column(tables: Tables, measure: RatioOfColumn, rows: pd.DataFrame) -> Measured:
    """Means of both sides; the ratio's interval takes the ends that are furthest apart, never too narrow."""
    columns = (measure.column, measure.low, measure.high)
    cells = pd.DataFrame({column: tables.numbers(measure.table, rows, column) for column in columns})
    known = rows[cells.notna().all(axis=1)]
    lacking = tuple(sorted(set(rows["scenario"]) - set(known["scenario"])))
    compared = pairs(tables, measure.table, known, measure.pair_by, measure.numerator, measure.denominator)
    if not compared:
        return Measured(lacking=lacking)
    top, bottom = ([getattr(pair, side) for pair in compared] for side in ("top", "bottom"))
    sides = [Estimate(*(float(cells.loc[side, column].mean()) for column in columns)) for side in (bottom, top)]
    below, above = sides
    with np.errstate(divide="ignore"):
        ratio_of = np.divide([above.value, above.low, above.high], [below.value, below.high, below.low])
    text = f"{below.value:.3g} and {above.value:.3g}"
    num = int(tables.numbers(measure.table, known.loc[[*top, *bottom]], measure.count).sum())
    return Measured(text, Estimate(*map(float, ratio_of)), num, lacking, (below, above))


def share(tables: Tables, measure: Share, rows: pd.DataFrame) -> Measured:
    """Sum of the parts over the sum of the wholes."""
    part, whole = (tables.numbers(measure.table, rows, column) for column in (measure.part, measure.whole))
    known = part.notna() & whole.notna()
    lacking = tuple(rows.loc[~known, "scenario"])
    total = int(whole[known].sum())
    if not total:
        return Measured(lacking=lacking)
    num = int(part[known].sum())
    return Measured(f"{num / total:.4g} ({num} of {total})", _exactly(num / total), total, lacking, is_exact=True)


def maximum(tables: Tables, measure: Maximum, rows: pd.DataFrame) -> Measured:
    """The largest value there is."""
    values = tables.numbers(measure.table, rows, measure.column).dropna()
    if values.empty:
        return Measured()
    num = int(tables.numbers(measure.table, rows.loc[values.index], measure.count).sum())
    return Measured(f"at most {values.max():.2g}", _exactly(float(values.max())), num, is_exact=True)


def count(tables: Tables, measure: Count, rows: pd.DataFrame) -> Measured:
    """How many rows match what is counted."""
    if rows.empty:
        return Measured()
    num = len(tables.selected(measure.table, rows, measure.counted))
    return Measured(f"{num} of {len(rows)}", _exactly(num), len(rows), is_exact=True)


STATISTICS: Mapping[str, Statistic] = MappingProxyType(
    {
        "ratio": ratio,
        "trend": trend,
        "best": best,
        "ratio_of_column": ratio_of_column,
        "share": share,
        "maximum": maximum,
        "count": count,
    }
)


def _exactly(value: float) -> Estimate:
    return Estimate(value, value, value)


def _compared(tables: Tables, measure: Ratio | Trend, rows: pd.DataFrame) -> tuple[list[Pair], Averaged | None]:
    """The pairs of which both have an average."""
    found = pairs(tables, measure.table, rows, measure.pair_by, measure.numerator, measure.denominator)
    if not found:
        return [], None
    involved = rows.loc[[index for pair in found for index in (pair.top, pair.bottom)]]
    values = averaged(tables, measure, involved.drop_duplicates("scenario"))
    names = rows["scenario"]
    return [pair for pair in found if {names[pair.top], names[pair.bottom]} <= values.places.keys()], values


def _log_ratios(rows: pd.DataFrame, compared: Sequence[Pair], values: Averaged) -> tuple[Array, Array, int]:
    """Logarithms of the pairs' ratios [C], of their draws [D, C], and the prompts of all pairs."""
    tops, bottoms = ([rows.loc[getattr(pair, side), "scenario"] for pair in compared] for side in ("top", "bottom"))
    logs_C = np.log(values.values(tops) / values.values(bottoms))
    return logs_C, np.log(values.draws(tops) / values.draws(bottoms)), values.num_prompts(tops)


def _best_text(told: Sequence[tuple[tuple[str, ...], str]]) -> str:
    """``5 at 1, 3 at 2``: only what differs between the groups is named."""
    differing = [place for place in range(len(told[0][0])) if len({key[place] for key, _ in told}) > 1]
    return ", ".join(" at ".join([best, *(key[place] for place in differing)]) for key, best in told)
