"""The registry of rules: from a value with its interval and what was published to whether it holds, and why."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from claims.claim import Part
from claims.statistics import Measured


@dataclass(frozen=True)
class Finding:
    """Whether a rule holds, and the reason in a few words."""

    holds: bool
    why: str
    of_range: str = ""
    """What there is to say of the published range, where the rule has one besides."""


Judge = Callable[[Part, Measured], Finding]
"""From the part and a measurement that has an estimate."""


def finding(part: Part, measured: Measured, *, band_applies: bool) -> Finding:
    """What the part's rule finds, and where a direction has a published range that applies here, that too."""
    found = RULES[part.rule.type](part, measured)
    if part.rule.type == "band" or not part.rule.has_band or not found.holds:
        return found
    if not band_applies:
        return Finding(found.holds, found.why, f"direction only: the published range is for {_band_place(part)}")
    within = band(part, measured)
    return Finding(within.holds, found.why, within.why)


def equal(part: Part, measured: Measured) -> Finding:
    """The value is the published one, to the tolerance."""
    assert measured.estimate is not None
    (published,) = part.published_values
    holds = abs(measured.estimate.value - published) <= part.rule.tolerance
    within = f" within {part.rule.tolerance:g}" if part.rule.tolerance else ""
    return Finding(holds, f"{'equals' if holds else 'differs from'} the published {published:g}{within}")


def direction(part: Part, measured: Measured) -> Finding:
    """The whole interval lies on the claim's side, or at least reaches it where that is the claim."""
    assert measured.estimate is not None
    found, rule = measured.estimate, part.rule
    if rule.not_below is not None:
        holds = found.high >= rule.not_below
        return Finding(holds, f"interval {'reaches' if holds else 'lies below'} {rule.not_below:g}")
    claimed, limit = ("above", rule.above) if rule.above is not None else ("below", rule.below)
    assert limit is not None
    lies = "above" if found.low > limit else "below" if found.high < limit else ""
    return Finding(lies == claimed, f"interval lies {lies} {limit:g}" if lies else f"interval includes {limit:g}")


def band(part: Part, measured: Measured) -> Finding:
    """The interval meets the published range, widened by the tolerance on both ends."""
    assert measured.estimate is not None
    low = min(part.published_values) - part.rule.tolerance
    high = max(part.published_values) + part.rule.tolerance
    judged = measured.sides if part.rule.band_of == "sides" else (measured.estimate,)
    assert judged is not None, "band_of sides without sides"
    holds = all(one.low <= high and one.high >= low for one in judged)
    widened = f" widened by {part.rule.tolerance:g}" if part.rule.tolerance else ""
    return Finding(holds, f"{'meets' if holds else 'misses'} the published range{widened}")


RULES: Mapping[str, Judge] = MappingProxyType({"equal": equal, "direction": direction, "band": band})


def _band_place(part: Part) -> str:
    return " on ".join(filter(None, [part.rule.band_with, part.rule.band_on]))
