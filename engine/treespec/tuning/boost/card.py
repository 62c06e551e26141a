"""Model cards of a boost-tuning run, written from its records."""

from __future__ import annotations

import json
from typing import Any

from treespec.tuning.boost.report import HeldOutResults, agreement_table, comparison_table
from treespec.tuning.boost.settings import BoostSettings

_METHOD = """Boost-tuning (SpecInfer, section 3): the target continues the training prompts greedily; draft 1 is
fine-tuned on its text; the samples whose first {match} tokens draft 1 then continues as the target does are dropped;
draft 2 is fine-tuned on the rest; and so on. The drafts are made to be used together, their trees merged.
"""

_DRAFT = """# Draft {number} of a boost-tuned set

{method}
Fine-tuned from `{start}` for `{target}` on {trained} of {all} samples, of which it then matches {matched}
({share:.1%}).

    {settings}
"""

_RUN = """# Boost-tuned drafts

{method}
| draft | trained on | of samples | matched of these | steps | seconds (wall) | seconds (CPU) |
|---|---|---|---|---|---|---|
{rows}

Settings:

    {settings}
"""

_HELD_OUT = """
## Held-out prompts ({num_prompts})

Share of the target's greedy tokens among the draft's k likeliest:

{agreement}

Verified tokens per step (accepted and the target's own one), exact on the target's greedy text. The rival is the best
single draft, the starting points included, with the best of all trees that the rule allows, chosen on these very
prompts. Intervals: paired bootstrap over prompts. "Before loop": each text up to its first repeated 8-gram.

{comparisons}
"""


def draft_card(settings: BoostSettings, stage: dict[str, Any], start: str) -> str:
    """README.md of one draft, from its stage as JSON."""
    return _DRAFT.format(
        number=stage["number"],
        method=_METHOD.format(match=settings.match_tokens),
        start=start,
        target=settings.target.name,
        trained=stage["num_trained"],
        all=stage["num_samples"],
        matched=stage["num_matched"],
        share=stage["num_matched"] / stage["num_trained"],
        settings=json.dumps(settings.as_json()),
    )


def run_card(report: dict[str, Any], results: HeldOutResults | None) -> str:
    """README.md of the run."""
    rows = [
        f"| {stage['number']} | {stage['num_trained']} | {stage['num_samples']} | {stage['num_matched']} "
        f"({stage['num_matched'] / stage['num_trained']:.1%}) | {stage['log']['num_steps']} "
        f"| {stage['log']['wall_s']:.0f} | {stage['log']['cpu_s']:.0f} |"
        for stage in report["drafts"]
    ]
    settings = report["settings"]
    card = _RUN.format(
        method=_METHOD.format(match=settings["match_tokens"]), rows="\n".join(rows), settings=json.dumps(settings)
    )
    if results is None:
        return card
    return card + held_out_section(results)


def held_out_section(results: HeldOutResults) -> str:
    """Both tables with what they mean."""
    return _HELD_OUT.format(
        num_prompts=results.num_prompts, agreement=agreement_table(results), comparisons=comparison_table(results)
    )
