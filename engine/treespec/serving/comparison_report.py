"""A comparison as a table for the terminal and as JSON."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

from treespec.files import write_atomically
from treespec.serving.comparison import Comparison, ComparisonRow

_COLUMNS = ("batch", "mode", "expansion", "ms/token", "speed-up [95 %]", "tokens/step", "tokens equal")


def comparison_table(comparison: Comparison) -> str:
    """Aligned columns and the facts they rest on."""
    cells = [_COLUMNS, *(_cells(row) for row in comparison.rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(_COLUMNS))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in cells]
    settings, environment = comparison.settings, comparison.environment
    device = f"{environment['device']} ({environment['cpu']}), {environment['num_threads']} threads"
    lines += [
        "",
        f"target: {comparison.target}; draft: {comparison.draft}; {settings['dtype']} on {device}",
        f"{comparison.num_prompts} prompts of {settings['prompts_from']}, {settings['num_repeats']} rounds",
        f"{settings['max_new_tokens']} new tokens each, EOS ignored",
        "ms/token: median; speed-up: median of incremental over this mode, prompt by prompt and round by round,",
        "so it need not be the ratio of the two ms/token",
    ]
    return "\n".join(lines)


def _cells(row: ComparisonRow) -> tuple[str, ...]:
    return (
        str(row.batch_size),
        row.mode,
        "<" + ",".join(map(str, row.expansion)) + ">" if row.expansion else "",
        f"{row.ms_per_token:.2f}",
        _speedup(row),
        f"{row.tokens_per_step:.2f}",
        _equality(row),
    )


def _speedup(row: ComparisonRow) -> str:
    if row.speedup_low is None:
        return f"{row.speedup:.2f}"
    return f"{row.speedup:.2f} [{row.speedup_low:.2f}, {row.speedup_high:.2f}]"


def _equality(row: ComparisonRow) -> str:
    where = row.divergence
    if where is None:
        return "yes"
    return (
        f"NO: prompt {where.prompt_index}, token {where.token_index}: "
        f"incremental {where.incremental_token_id}, here {where.token_id}"
    )


def write_comparison_json(comparison: Comparison, path: Path) -> None:
    """Everything that was measured."""
    write_atomically(path, json.dumps(asdict(comparison), indent=1) + "\n")
