"""Agreements to imitate: a number, or the success rates of SpecInfer's table 1; torch-free."""

from __future__ import annotations

from dataclasses import dataclass

from treespec.errors import ConfigError
from treespec.model.synthetic.card import Knobs
from treespec.registry import Registry


@dataclass(frozen=True)
class Wanted:
    """What is asked of a draft, and the knobs to begin with.

    One share is met with the noise alone; of five, the first two lead the noise and the last the misses.
    """

    shares: tuple[float, ...]  # of the target's tokens among the draft's k likeliest, k = 1, or 1..5
    start: Knobs
    is_sampled: bool = False  # the target's tokens are drawn at temperature 1 and not its likeliest

    @property
    def close_enough(self) -> float:
        """Distance at which a calibration ends: two knobs meet one number, but five only nearly."""
        return 0.005 if len(self.shares) == 1 else 0.022


def wanted_agreement(agreement: float) -> Wanted:
    """A share of the target's greedy tokens that are the draft's likeliest. Raises ConfigError."""
    if not 0.05 <= agreement <= 0.98:
        raise ConfigError("agreement is out of range", received=agreement, allowed="0.05 to 0.98")
    return Wanted((agreement,), Knobs(noise=round(1.2 * (1 - agreement), 4)))


def _row(decoding: str, *percent: int) -> Wanted:
    shares = tuple(share / 100 for share in percent)
    if decoding == "stochastic":
        return Wanted(shares, Knobs(noise=0.77, miss_share=0.022, branching=5, sharpness=4.0), is_sampled=True)
    return Wanted(shares, Knobs(noise=0.12, miss_share=0.105, branching=16))


PRESETS: Registry[Wanted] = Registry(
    "preset of an agreement",
    {
        "table1/greedy/alpaca": _row("greedy", 68, 77, 81, 84, 85),
        "table1/greedy/cp": _row("greedy", 69, 79, 83, 86, 87),
        "table1/greedy/webqa": _row("greedy", 62, 72, 77, 80, 82),
        "table1/greedy/cip": _row("greedy", 70, 81, 85, 88, 89),
        "table1/greedy/piqa": _row("greedy", 63, 75, 79, 83, 85),
        "table1/stochastic/alpaca": _row("stochastic", 54, 81, 91, 95, 97),
        "table1/stochastic/cp": _row("stochastic", 56, 82, 92, 95, 97),
        "table1/stochastic/webqa": _row("stochastic", 52, 80, 90, 94, 96),
        "table1/stochastic/cip": _row("stochastic", 57, 84, 92, 95, 97),
        "table1/stochastic/piqa": _row("stochastic", 55, 82, 91, 95, 97),
    },
)
"""SpecInfer (ASPLOS'24), table 1: how often the target's token is among the draft's k likeliest, k = 1..5."""
