"""Write a trained pair as ordinary model folders: float16 weights, tokenizer, model card, checksums, prompts."""

from __future__ import annotations

import hashlib
import json
import platform
import shutil
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer
from torch import nn

from treespec.tuning.corpus import SourceFile, TokenStreams
from treespec.tuning.evaluate import Agreement, Repetition, agreement, draft_ranks, tokens_before_loop, trajectories
from treespec.tuning.model_card import model_card
from treespec.tuning.phases import Log, held_out_loss
from treespec.tuning.prompt_sets import held_out_prompts
from treespec.tuning.recipes import Recipe

ROLES = {"target": "target", "draft": "draft", "draft_undistilled": "draft-undistilled"}
CHECKSUMS = "SHA256SUMS"
Measurements = dict[str, Any]


def publish_prompts(prompts: dict[str, list[tuple[str, str]]], folder: Path) -> None:
    """One JSON list of strings per set."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, pairs in prompts.items():
        texts = [prompt for prompt, _ in pairs]
        (folder / f"{name}.json").write_text(json.dumps(texts, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    write_checksums(folder)


def publish_pair(
    networks: dict[str, nn.Module],
    recipe: Recipe,
    phase_logs: dict[str, Measurements],
    tokenizer_file: Path,
    sources: list[SourceFile],
    streams: TokenStreams,
    folder: Path,
    log: Log,
) -> Measurements:
    """Write the folders of a family and return its measurements."""
    for role, name in ROLES.items():
        _write_model(networks[role], tokenizer_file, folder / name)
    tokenizer = Tokenizer.from_file(str(tokenizer_file))
    # Measure what is shipped: weights rounded to float16, computed in float32.
    shipped = {role: networks[role].half().float().eval() for role in ROLES}
    report = {
        "family": recipe.family,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "recipe": asdict(recipe),
        "phases": phase_logs,
        "held_out_loss": {role: held_out_loss(network, streams) for role, network in shipped.items()},
        "prompt_sets": _measure_sets(shipped, tokenizer, held_out_prompts(sources, tokenizer), log),
    }
    (folder / "report.json").write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    (folder / "README.md").write_text(model_card(report), encoding="utf-8")
    return report


def _write_model(network: nn.Module, tokenizer_file: Path, folder: Path) -> None:
    half = type(network)(network.config)
    half.load_state_dict(network.state_dict())
    half.half().save_pretrained(folder)  # type: ignore[operator]
    (folder / "model.safetensors").chmod(0o644)  # written for the owner alone otherwise
    shutil.copyfile(tokenizer_file, folder / "tokenizer.json")
    special = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": "<s>",
        "eos_token": "</s>",
        "pad_token": "<pad>",
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(special, indent=1) + "\n", encoding="utf-8")
    write_checksums(folder)


def _measure_sets(
    networks: dict[str, nn.Module], tokenizer: Tokenizer, prompts: dict[str, list[tuple[str, str]]], log: Log
) -> Measurements:
    measured: dict[str, Measurements] = {}
    everything: list[tuple[list[int], list[int], list[int]]] = []
    for name, pairs in prompts.items():
        ids = [tokenizer.encode(prompt, add_special_tokens=False).ids for prompt, _ in pairs]
        real = [tokenizer.encode(text, add_special_tokens=False).ids for _, text in pairs]
        greedy = trajectories(networks["target"], ids)
        rows = list(zip(ids, real, greedy, strict=True))
        everything += rows
        measured[name] = _measure(networks, rows)
        log(f"{name}: d4 {measured[name]['greedy']['distinct_mean']:.3f}")
    measured["all"] = _measure(networks, everything)
    return measured


def _measure(networks: dict[str, nn.Module], rows: Sequence[tuple[list[int], list[int], list[int]]]) -> Measurements:
    result: Measurements = {
        "num_prompts": len(rows),
        "real": asdict(Repetition.of([real for _, real, _ in rows])),
        "greedy": asdict(Repetition.of([greedy for _, _, greedy in rows])),
        "drafts": {},
    }
    for role in ("draft_undistilled", "draft"):
        ranks = [draft_ranks(networks[role], prompt, greedy) for prompt, _, greedy in rows]
        before = [r[: tokens_before_loop(greedy)] for r, (_, _, greedy) in zip(ranks, rows, strict=True)]
        result["drafts"][role] = {"whole": _agreement(ranks), "before loop": _agreement(before)}
    return result


def _agreement(ranks: Sequence[np.ndarray]) -> Measurements:
    measured: Agreement = agreement(ranks)
    return asdict(measured)


def write_checksums(folder: Path) -> None:
    """SHA256SUMS over the weights and JSON files of ``folder``, in the form that ``sha256sum -c`` reads."""
    files = sorted(p for p in folder.iterdir() if p.suffix in (".json", ".safetensors"))
    lines = [f"{hashlib.sha256(p.read_bytes()).hexdigest()}  {p.name}\n" for p in files]
    (folder / CHECKSUMS).write_text("".join(lines), encoding="utf-8")
