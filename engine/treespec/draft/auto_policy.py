"""Trees chosen by expected tokens over measured cost, "do not speculate" included. Torch-free.

Legend: B requests of the step, N nodes of a tree, root included.
"""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median

import numpy as np

from treespec.draft.policy import ALONE, MAX_WIDTH, MEMORY, Schedule
from treespec.metrics.acceptance import RankAcceptance, StepOutcome
from treespec.metrics.cost import CostModel
from treespec.tree import Topology
from treespec.tree.search import best_topologies

MARGIN = 0.05  # predicted gain from which speculation is switched on; it goes off when there is none
STEADY_STEPS = 8  # the last ones of the chosen way, whose times are remembered
COMPARISONS = 9  # of the two ways' times that are remembered

DETOUR_SHARE = 0.01  # of the time
DETOUR_STEPS = 2  # the first lets the draft catch up, the second shows what such a step takes
FREE_DETOURS = 3  # so that no single disturbed step decides
DETOUR_WEIGHT = 4.0  # of an outcome; it stands for the many steps in which nothing was offered


@dataclass(frozen=True)
class Choice:
    """A topology and what the models say of it."""

    topology: Topology
    model_ms: float  # by the cost model alone
    expected_tokens: float  # per request and step

    @property
    def speculates(self) -> bool:
        """Whether anything is drafted."""
        return len(self.topology) > 1


class Candidates:
    """The best trees of every size and depth for one state of acceptance."""

    def __init__(self, acceptance: RankAcceptance, max_nodes: int, max_depth: int) -> None:
        table = acceptance.table()
        self._nested = [best_topologies(table, max_nodes, depth) for depth in range(1, max_depth + 1)]
        self._tokens = np.concatenate([nested.expected_tokens[1:] for nested in self._nested])
        self._num_nodes = np.concatenate([np.arange(2, len(nested) + 1) for nested in self._nested])
        self._level_rows = np.concatenate([_widened(nested.level_rows[1:], max_depth) for nested in self._nested])
        self._depths = np.repeat(np.arange(max_depth), [len(nested) - 1 for nested in self._nested])

    def best(self, cost: CostModel, batch_size: int) -> Choice:
        """The speculating tree of most expected tokens over expected time."""
        ms = cost.step_ms(batch_size, self._num_nodes, self._level_rows)
        index = int(np.argmax(self._tokens / ms))
        topology = self._nested[self._depths[index]].topology(int(self._num_nodes[index]))
        return Choice(topology, float(ms[index]), float(self._tokens[index]))


class StepTimes:
    """What steps really take: the cost model knows neither the engine around the passes nor the rest of the machine.

    A step of a detour is compared with the steps just before it, of the other kind. A machine that slows down and
    recovers then favours neither kind.
    """

    def __init__(self) -> None:
        self._steady: deque[float] = deque(maxlen=STEADY_STEPS)  # measured over modelled, of the chosen way
        self._steady_speculates = False
        self._drags: deque[float] = deque(maxlen=COMPARISONS)

    @property
    def drag(self) -> float:
        """Real over modelled time of speculating steps, where that of plain steps is 1."""
        return median(self._drags) if self._drags else 1.0

    @property
    def num_compared(self) -> int:
        """Detours that were compared, as far as remembered."""
        return len(self._drags)

    def is_steady(self, choice: Choice) -> bool:
        """Whether enough of the last steps were of the kind of ``choice`` to compare another with."""
        return choice.speculates is self._steady_speculates and len(self._steady) >= STEADY_STEPS // 2

    def ms(self, choice: Choice) -> float:
        """Expected milliseconds of a step at the machine's present pace."""
        pace = median(self._steady) if self._steady else 1.0
        if choice.speculates is not self._steady_speculates:
            pace *= self.drag if choice.speculates else 1 / self.drag
        return pace * choice.model_ms

    def add(self, choice: Choice, measured_ms: float) -> None:
        """A step of the chosen way ended."""
        if choice.speculates is not self._steady_speculates:
            self._steady.clear()
            self._steady_speculates = choice.speculates
        self._steady.append(measured_ms / choice.model_ms)

    def compare(self, choice: Choice, measured_ms: float) -> None:
        """The last step of a detour ended. What the next is compared with comes after this one."""
        if choice.speculates is not self._steady_speculates:
            ratio = measured_ms / choice.model_ms / median(self._steady)
            self._drags.append(ratio if choice.speculates else 1 / ratio)
        self._steady.clear()


@dataclass(frozen=True)
class _Plan:
    """At one batch size: what to do, and the other way of decoding (plain if that speculates, else the best tree)."""

    chosen: Choice
    other: Choice


class AutoPolicy:
    """The tree of most expected tokens over expected time at the current batch size, or none where none pays.

    Detours of two steps decode the other way, so that the times of both ways stay compared and speculation that is
    off comes back when it begins to pay. A budget pays for them: a share of the time that passes is its credit, a
    detour starts when the credit covers the predicted loss, and is charged the time it really took beyond what the
    chosen way takes for one token. Detours therefore cost at most ``DETOUR_SHARE`` of the time, plus the last of
    them, plus the first few, which start on credit.
    """

    def __init__(
        self,
        cost: CostModel,
        max_nodes: int,
        max_depth: int,
        acceptance: RankAcceptance | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        assert max_nodes >= 2 and max_depth >= 1, "max_nodes counts the root"
        self._cost = cost
        self._max_nodes = max_nodes
        self._max_depth = max_depth
        self._acceptance = acceptance or RankAcceptance(max_depth, MAX_WIDTH, MEMORY)
        self._clock = clock
        self._schedule = Schedule()
        self._candidates = Candidates(self._acceptance, max_nodes, max_depth)
        self._plans: dict[int, _Plan] = {}  # by batch size, until planned anew
        self._is_on: dict[int, bool] = {}  # by batch size, at the last plan
        self._times = StepTimes()
        self._credit_ms = 0.0
        self._detour_steps_left = 0
        self._step: tuple[_Plan, Choice, float] | None = None  # the one that runs and when it began
        self.steps_by_nodes: Counter[int] = Counter()

    def topology(self, batch_size: int) -> Topology:
        if self._detour_steps_left == 0 and self._schedule.due():
            self._candidates = Candidates(self._acceptance, self._max_nodes, self._max_depth)
            self._plans.clear()
        if batch_size not in self._plans:
            self._plans[batch_size] = self._plan(batch_size)
        plan = self._plans[batch_size]
        if self._detour_steps_left == 0 and self._affords_detour(plan):
            self._detour_steps_left = DETOUR_STEPS
        choice = plan.other if self._detour_steps_left else plan.chosen
        self._step = plan, choice, self._clock()
        self.steps_by_nodes[len(choice.topology)] += 1
        return choice.topology

    def observe(self, outcomes: Sequence[StepOutcome]) -> None:
        assert self._step is not None, "a step ends that never began"
        plan, choice, started = self._step
        elapsed_ms = (self._clock() - started) * 1000
        self._schedule.step()
        if self._detour_steps_left:
            self._detour_steps_left -= 1
            self._credit_ms -= elapsed_ms - self._times.ms(plan.chosen) / plan.chosen.expected_tokens
            self._acceptance.update(outcomes, DETOUR_WEIGHT)
            if self._detour_steps_left == 0:
                self._times.compare(choice, elapsed_ms)
        else:
            self._times.add(choice, elapsed_ms)
            self._credit_ms = min(self._credit_ms + DETOUR_SHARE * elapsed_ms, self._detour_ms(plan))
            self._acceptance.update(outcomes)
        self._step = None

    def _plan(self, batch_size: int) -> _Plan:
        tree = self._candidates.best(self._cost, batch_size)
        plain = Choice(ALONE, float(self._cost.step_ms(batch_size, 1, [0])), 1.0)
        gain = tree.expected_tokens * plain.model_ms / (tree.model_ms * self._times.drag)
        is_on = gain > (1.0 if self._is_on.get(batch_size, False) else 1.0 + MARGIN)
        self._is_on[batch_size] = is_on
        return _Plan(tree, plain) if is_on else _Plan(plain, tree)

    def _affords_detour(self, plan: _Plan) -> bool:
        is_free = self._times.num_compared < FREE_DETOURS
        return self._times.is_steady(plan.chosen) and (is_free or self._credit_ms >= self._detour_ms(plan))

    def _detour_ms(self, plan: _Plan) -> float:
        """Predicted loss of a detour in which no proposal is accepted; at least nothing."""
        chosen_ms = self._times.ms(plan.chosen) / plan.chosen.expected_tokens
        return max(0.0, DETOUR_STEPS * (self._times.ms(plan.other) - chosen_ms))


def _widened(rows: np.ndarray, width: int) -> np.ndarray:
    return np.pad(rows, ((0, 0), (0, width - rows.shape[1])))
