"""A comparison as a table for the terminal, as JSON and as a picture."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

from treespec.errors import ConfigError
from treespec.files import write_atomically
from treespec.serving.comparison import Comparison, ComparisonRow

_COLUMNS = ("batch", "mode", "expansion", "ms/token", "speed-up [95 %]", "tokens/step", "tokens equal")
_COLOURS = {"incremental": "#999999", "sequence": "#56B4E9", "tree": "#0072B2"}


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
        f"{settings['max_new_tokens']} new tokens each, EOS ignored; medians; a speed-up is incremental over this mode",
    ]
    return "\n".join(lines)


def _cells(row: ComparisonRow) -> tuple[str, ...]:
    return (
        str(row.batch_size),
        row.mode,
        "<" + ",".join(map(str, row.expansion)) + ">" if row.expansion else "",
        f"{row.ms_per_token:.2f}",
        f"{row.speedup:.2f} [{row.speedup_low:.2f}, {row.speedup_high:.2f}]",
        f"{row.tokens_per_step:.2f}",
        _equality(row),
    )


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


def write_comparison_png(comparison: Comparison, path: Path) -> None:
    """Speed-up by batch size with intervals. Raises ConfigError without matplotlib."""
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ConfigError("--png needs matplotlib", fix="install matplotlib, or leave --png out") from error
    figure = Figure(figsize=(6.4, 4.0), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    batch_sizes = sorted({row.batch_size for row in comparison.rows})
    modes = list(dict.fromkeys(row.mode for row in comparison.rows))
    width = 0.8 / len(modes)
    for offset, mode in enumerate(modes):
        for row in (row for row in comparison.rows if row.mode == mode):
            x = batch_sizes.index(row.batch_size) + (offset - (len(modes) - 1) / 2) * width
            errors = [[row.speedup - row.speedup_low], [row.speedup_high - row.speedup]]
            label = mode if row.batch_size == batch_sizes[0] else None
            axes.bar(
                x, row.speedup, width, yerr=errors, capsize=3, color=_COLOURS[mode], edgecolor="black", label=label
            )
            axes.annotate(f"{row.speedup:.2f}x", (x, row.speedup_high), ha="center", va="bottom", fontsize=8)
    axes.axhline(1.0, color="black", linewidth=0.8, linestyle="--")
    axes.set_xticks(range(len(batch_sizes)), [str(size) for size in batch_sizes])
    axes.set_xlabel("requests per batch")
    axes.set_ylabel("speed-up over incremental (median, 95 % interval)")
    axes.margins(y=0.15)
    title = f"{comparison.target}, draft {comparison.draft}"
    axes.set_title(title if comparison.is_equal else f"{title}\nOUTPUTS DIFFER, see the table", fontsize=9)
    axes.legend(fontsize=8)
    figure.savefig(path, metadata={"Software": None})
