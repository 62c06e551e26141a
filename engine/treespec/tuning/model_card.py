"""The model card of an embedded pair, written from its measurements."""

from __future__ import annotations

from typing import Any

from treespec.tuning.evaluate import EXPANSIONS

_HEADER = """# Embedded {family} pair

A small target and its draft models, so that everything in this repository runs on real trained models without any
download. They write plausible Python syntax, not meaningful programs; use them to run, test and time, not to judge
models.

| folder | role |
|---|---|
| `target` | {target} |
| `draft-undistilled` | {draft}, cross-entropy on the corpus only |
| `draft` | the same draft, then distilled on the target's own greedy text |

**Text**: sources of the standard library of Python {python}, licensed under the PSF License Agreement; one file in 25
is held out (by a hash of its name) and every prompt in `prompts/` is cut from held-out files. Weights: Apache-2.0.

**Recipe**: byte-level BPE of {vocab} entries; target: cross-entropy, then an anti-repetition phase (sequence-level
unlikelihood, Welleck et al. 2020: tokens of its own greedy text that complete a {ngram}-gram seen before are pushed
down); draft: cross-entropy, then KL to the target, half of the rows its own greedy text. It is training and not
decoding that was changed: the target is an ordinary checkpoint.

    python -m treespec.tuning --family {family} --work-dir build/tuning --publish models/embedded --prompts prompts

Another Python version has another text, so the weights are shipped and the command is the fallback. Made with torch
{torch} on two shared cores. Positions beyond 512 are untrained.
"""


def model_card(report: dict[str, Any]) -> str:
    """Markdown."""
    recipe = report["recipe"]
    header = _HEADER.format(
        family=report["family"],
        target=_shape(recipe["target"]),
        draft=_shape(recipe["draft"]),
        python=report["python"],
        torch=report["torch"],
        vocab=2048,
        ngram=recipe["repeated_ngram"],
    )
    return "\n".join([header, _phases(report), _repetition(report), _agreement(report)])


def _shape(shape: dict[str, int]) -> str:
    return (
        f"{shape['num_layers']} layers, hidden {shape['hidden_size']}, FFN {shape['ffn_size']}, "
        f"{shape['num_heads']} heads"
    )


def _phases(report: dict[str, Any]) -> str:
    lines = ["## Training", "", "| phase | steps | minutes (wall) | minutes (CPU, both cores) |", "|---|---|---|---|"]
    for phase in report["phases"].values():
        lines.append(
            f"| {phase['phase']} | {phase['num_steps']} | {phase['wall_s'] / 60:.1f} | {phase['cpu_s'] / 60:.1f} |"
        )
    wall, cpu = (sum(phase[key] for phase in report["phases"].values()) / 60 for key in ("wall_s", "cpu_s"))
    losses = ", ".join(f"{role} {loss:.3f}" for role, loss in report["held_out_loss"].items())
    return "\n".join(
        [
            *lines,
            "",
            f"In all {cpu:.0f} minutes of CPU time; {wall:.0f} on the wall, as the cores were shared with other work.",
            f"Held-out loss (nats per token): {losses}.",
            "",
        ]
    )


def _repetition(report: dict[str, Any]) -> str:
    lines = [
        "## Repetition of greedy text",
        "",
        "d4: distinct 4-grams over all 4-grams of 128 tokens after each prompt; loops: share of continuations with a",
        "repeated 8-gram; before: tokens before it, on average. Greedy text of a model this small repeats itself; the",
        "real text behind the same prompts stands beside it.",
        "",
        "| prompts | n | d4 greedy (min) | d4 real (min) | loops greedy / real | before greedy / real |",
        "|---|---|---|---|---|---|",
    ]
    for name, row in report["prompt_sets"].items():
        greedy, real = row["greedy"], row["real"]
        lines.append(
            f"| {name} | {row['num_prompts']} | {greedy['distinct_mean']:.3f} ({greedy['distinct_min']:.3f}) "
            f"| {real['distinct_mean']:.3f} ({real['distinct_min']:.3f}) "
            f"| {greedy['loop_share']:.2f} / {real['loop_share']:.2f} "
            f"| {greedy['before_loop_mean']:.0f} / {real['before_loop_mean']:.0f} |"
        )
    return "\n".join([*lines, ""])


def _agreement(report: dict[str, Any]) -> str:
    names = list(EXPANSIONS)
    lines = [
        "## Agreement of the drafts with the target's greedy text, all prompts",
        "",
        "Top-k: share of tokens among the draft's k likeliest. The other columns: tokens per target step, exact on",
        "the target's own trajectory (accepted + 1).",
        "",
        "| draft | part | tokens | top1 | top2 | top3 | top4 | top5 | " + " | ".join(names) + " |",
        "|---" * (8 + len(names)) + "|",
    ]
    for role, parts in report["prompt_sets"]["all"]["drafts"].items():
        for part, row in parts.items():
            shares = " | ".join(f"{share:.3f}" for share in row["top_k"])
            rates = " | ".join(f"{row['tokens_per_step'][name]:.2f}" for name in names)
            lines.append(f"| {role.replace('_', '-')} | {part} | {row['num_tokens']} | {shares} | {rates} |")
    return "\n".join([*lines, ""])
