"""Explanations as text with small bars for the terminal, and as JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from treespec.draft.auto_policy import MARGIN
from treespec.explain.explanation import DepthAcceptance, Explanation, Speedup
from treespec.explain.measurement import Measured
from treespec.explain.observed import Observed
from treespec.explain.prediction import Outlook
from treespec.explain.recommendation import described_tree, recommendation
from treespec.files import write_atomically
from treespec.metrics.cost import CostModel

BAR_WIDTH = 30
LABEL_WIDTH = 20


def bar(share: float) -> str:
    """A share of the whole as a bar; what is there at all shows."""
    return "#" * max(1 if share > 0 else 0, min(BAR_WIDTH, round(share * BAR_WIDTH)))


def explanation_text(explanation: Explanation) -> str:
    """A block of lines."""
    observed = explanation.observed
    lines = [f"{observed.name}: {_drafting_words(observed)}, batch size {observed.batch_size}"]
    lines.append(_line("verdict", explanation.verdict))
    lines += [_line(label, value) for label, value in _numbers(explanation)]
    lines += [_line(f"time: {part}", f"{share:6.1%}  {bar(share)}") for part, share in _large_parts(observed.shares)]
    for depth in explanation.depths:
        lines.append(_line(f"accepted, depth {depth.depth}", _depth_words(depth)))
    return "\n".join(line.rstrip() for line in lines)


def speedup_words(speedup: Speedup) -> str:
    """Median and, where there is one, its 95 % interval."""
    if speedup.low is None:
        return f"{speedup.median:.2f}"
    return f"{speedup.median:.2f} [{speedup.low:.2f}, {speedup.high:.2f}]"


def _large_parts(shares: Mapping[str, float]) -> list[tuple[str, float]]:
    """Largest first; those that no bar could show together as the rest."""
    large = sorted(((part, share) for part, share in shares.items() if share >= 0.01), key=lambda item: -item[1])
    rest = sum(shares.values()) - sum(share for _, share in large)
    return [*large, *([("rest", rest)] if rest > 0 else [])]


def _numbers(explanation: Explanation) -> list[tuple[str, str]]:
    observed, prediction, speedup = explanation.observed, explanation.prediction, explanation.speedup
    found: list[tuple[str, str]] = []
    if speedup is not None:
        predicted = "" if prediction is None or prediction.speedup is None else f"; predicted {prediction.speedup:.2f}"
        found.append(("speed-up", f"{speedup_words(speedup)} over {speedup.baseline}{predicted}"))
    if observed.speculates:
        tokens = f"{observed.tokens_per_step:.2f}"
        if prediction is not None:
            tokens += f"; predicted {prediction.tokens_per_step:.2f}"
        if explanation.break_even_tokens is not None:
            tokens += f"; break-even {explanation.break_even_tokens:.2f}"
        found.append(("tokens per step", f"{tokens}; {observed.nodes_per_step - 1:.1f} nodes drafted"))
    if explanation.acceptance is not None:
        value = f"{explanation.acceptance:.2f} per level"
        if explanation.break_even_acceptance is not None:
            value += f"; break-even {_acceptance(explanation.break_even_acceptance)}"
        found.append(("acceptance", value))
    return found


def cost_text(cost: CostModel) -> str:
    """t(n) and the draft's level, with a bar per number of rows."""
    longest = max(*cost.target.ms, cost.draft_level.at(cost.target.rows).max())
    lines = ["what a pass costs, by rows:", "  rows   target ms  t(n)/t(1)   draft ms"]
    for rows, ms in zip(cost.target.rows, cost.target.ms, strict=True):
        draft_ms = float(cost.draft_level.at(rows))
        ratio = ms / cost.target.ms[0]
        lines.append(f"  {rows:4d}  {ms:10.2f}  {ratio:9.2f}  {draft_ms:9.2f}  {bar(ms / longest)}")
    return "\n".join(lines)


def outlook_text(outlooks: Sequence[Outlook], drag: float) -> str:
    """The best speculation by batch size."""
    head = f"  {'batch':>5}  {'best speculation':<28}  tokens  step  speed-up  break-even"
    title = f"predicted, by batch size (measured steps with speculation: {drag:.2f} of the model's):"
    lines = [title, head]
    for item in outlooks:
        numbers = f"{item.tokens_per_step:6.2f}  {item.step_ratio:4.2f}  {item.speedup:8.2f}"
        needed = _acceptance(item.break_even_acceptance)
        lines.append(f"  {item.batch_size:5d}  {described_tree(item):<28}  {numbers}  {needed:>10}  {_worth(item)}")
    return "\n".join(lines)


def _worth(outlook: Outlook) -> str:
    if outlook.pays:
        return bar(outlook.speedup / 4)
    little = f"; a gain below {MARGIN * 100:g} % counts as none" if outlook.speedup > 1 else ""
    return f"{outlook.obstacle}{little}"


def measured_text(measured: Measured) -> str:
    """Everything of a measurement, the recommendation first."""
    environment = measured.environment
    about = (
        f"target: {measured.target}; draft: {measured.draft}; {measured.num_prompts} prompts on "
        f"{environment['device']} ({environment['cpu']}), {environment['num_threads']} threads"
    )
    blocks = [recommendation(measured.outlooks, measured.cost), outlook_text(measured.outlooks, measured.drag)]
    blocks += [cost_text(measured.cost), *(explanation_text(check) for check in measured.checks), about]
    return "\n\n".join(blocks)


def measured_data(measured: Measured) -> dict[str, Any]:
    """The same for machines."""
    return {
        "recommendation": recommendation(measured.outlooks, measured.cost),
        "target": measured.target,
        "draft": measured.draft,
        "environment": measured.environment,
        "num_prompts": measured.num_prompts,
        "costs": measured.cost.to_dict(),
        "drag": measured.drag,
        "outlook": [outlook_data(item) for item in measured.outlooks],
        "scenarios": [explanation_data(check) for check in measured.checks],
    }


def outlook_data(outlook: Outlook) -> dict[str, Any]:
    """One batch size, for machines."""
    return asdict(outlook) | {"speedup": outlook.speedup, "break_even_acceptance": outlook.break_even_acceptance}


def explanation_data(explanation: Explanation) -> dict[str, Any]:
    """One scenario, for machines."""
    observed = explanation.observed
    return {
        "scenario": observed.name,
        "batch_size": observed.batch_size,
        "verdict": explanation.verdict,
        "tokens_per_step": observed.tokens_per_step,
        "nodes_per_step": observed.nodes_per_step,
        "time_shares": observed.shares,
        "acceptance_by_depth": [asdict(depth) for depth in explanation.depths],
        "acceptance": explanation.acceptance,
        "speedup": None if explanation.speedup is None else asdict(explanation.speedup),
        "predicted": None if explanation.prediction is None else asdict(explanation.prediction),
        "break_even_tokens": explanation.break_even_tokens,
        "break_even_acceptance": explanation.break_even_acceptance,
    }


def write_json(data: Mapping[str, Any], path: Path) -> None:
    """Whole or not at all."""
    write_atomically(path, json.dumps(data, indent=1) + "\n")


def _line(label: str, value: str) -> str:
    return f"  {label:<{LABEL_WIDTH}}{value}"


def _depth_words(depth: DepthAcceptance) -> str:
    return (
        f"{depth.rate:6.2f}  {bar(depth.rate):<{BAR_WIDTH}}  of {depth.num_reached}; first child {depth.first_rate:.2f}"
    )


def _acceptance(value: float) -> str:
    return "never" if value > 1 else f"{value:.2f}"


def _drafting_words(observed: Observed) -> str:
    if not observed.speculates:
        return "incremental"
    return " and ".join(_drafter_words(drafter) for drafter in observed.drafting)


def _drafter_words(drafter: Mapping[str, Any]) -> str:
    if drafter["kind"] != "ssm":
        return str(drafter["kind"])
    if drafter["tree"] == "expansion":
        return f"<{','.join(map(str, drafter['expansion']))}>"
    return f"{drafter['tree']} tree of up to {drafter['num_nodes']} nodes"
