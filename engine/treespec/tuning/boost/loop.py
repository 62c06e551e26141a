"""Boost-tuning (SpecInfer, section 3): drafts trained one after another on what the earlier ones do not know.

The target continues every training prompt; draft 1 is fine-tuned on these samples; those that it then continues as the
target does are dropped; draft 2 is fine-tuned on the rest; and so on. At serving time their trees are merged.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from treespec.errors import CheckpointError, ConfigError, OutputError
from treespec.files import write_atomically
from treespec.tuning.boost.card import draft_card, run_card
from treespec.tuning.boost.report import HeldOutResults, compare_held_out
from treespec.tuning.boost.samples import Continuations, continue_prompts, matched_samples, real_samples
from treespec.tuning.boost.settings import BoostSettings, digest
from treespec.tuning.boost.training import fine_tune
from treespec.tuning.phases import Log, PhaseLog
from treespec.tuning.publish import write_checksums

STAGE_FILE, REPORT_FILE = "boost.json", "report.json"
_COPIED_FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "generation_config.json")
Prompts = Sequence[Sequence[int]]


@dataclass(frozen=True)
class Stage:
    """What the training of one draft was and left; kept in the draft's folder."""

    identity: str
    number: int
    num_samples: int  # all of them
    num_trained: int  # those this draft was trained on
    num_matched: int  # of the trained ones: it begins them as the target does
    log: PhaseLog

    def as_json(self) -> dict[str, Any]:
        """For reports."""
        return asdict(self)


class BoostTuning:
    """One run in one folder; finished parts are kept there, so that a killed run goes on where it was."""

    def __init__(self, settings: BoostSettings, prompts: Prompts, output_dir: Path, log: Log) -> None:
        self.settings = settings
        self.prompts = prompts
        self.output_dir = output_dir
        self.log = log
        if settings.device == "cuda" and not torch.cuda.is_available():
            raise ConfigError(
                "the device is not there", received="cuda", allowed="cpu (this machine has no CUDA device)"
            )
        self._identity = settings.identity()
        try:
            output_dir.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError("folder cannot be made", where=str(output_dir), received=error.strerror) from error

    @cached_property
    def teacher(self) -> nn.Module | None:
        """The target in bfloat16, as the training computes; none if the loss wants no distributions."""
        if self.settings.loss != "kl":
            return None
        return load_network(self.settings.target, self.settings.device, torch.bfloat16)

    def continuations(self, prompts: Prompts) -> Continuations:
        """The target's text behind ``prompts``, from disk as far as it is there; the target is in memory no longer."""
        settings = self.settings
        load_target = cache(lambda: load_network(settings.target, settings.device, getattr(torch, settings.dtype)))
        target_identity = f"{self._identity['target']} {settings.dtype}"
        eos_token_ids = end_of_text_ids(settings.target)
        return continue_prompts(
            load_target, target_identity, prompts, settings.num_tokens, eos_token_ids, self.output_dir, self.log
        )

    def run(self) -> list[Stage]:
        """Train whatever is not yet trained. Raises ConfigError if nothing is left to train a draft on."""
        settings = self.settings
        continuations = self.continuations(self.prompts)
        kept_RS = real_samples(continuations, settings.sample_tokens)
        stages = []
        for number in range(1, settings.num_drafts + 1):
            self._require_samples(kept_RS, number)
            folder = self.draft_folder(number)
            if not folder.exists():
                self._train(number, continuations, kept_RS)
            stage = self._read_stage(number)
            # The published weights are rounded; what they match is what counts, and a rerun finds the same.
            draft = load_network(folder, settings.device, torch.float32)
            matched_RS = matched_samples(draft, continuations, settings.sample_tokens, settings.match_tokens)
            assert stage.num_matched == int((matched_RS & kept_RS).sum()), "a draft changed after its training"
            if not settings.keep_matched:
                kept_RS = kept_RS & ~matched_RS
            stages.append(stage)
            self.log(f"draft {number}: trained on {stage.num_trained} samples, matches {stage.num_matched} of them")
        return stages

    def evaluate(self, held_out: Prompts) -> HeldOutResults:
        """Merged against single drafts on prompts that were never trained on; starting points take part as singles."""
        names = {f"draft-{number}": self.draft_folder(number) for number in range(1, self.settings.num_drafts + 1)}
        starts = {f"start {index}": folder for index, folder in enumerate(self.settings.drafts, start=1)}
        networks = {
            name: load_network(folder, self.settings.device, torch.float32) for name, folder in (names | starts).items()
        }
        return compare_held_out(networks, list(names), self.continuations(held_out))

    def publish_report(self, stages: Sequence[Stage], results: HeldOutResults | None, facts: dict[str, Any]) -> None:
        """Write report.json and README.md; ``facts`` are what the caller knows of text and machine."""
        report = {
            "settings": self.settings.as_json(),
            "num_prompts": len(self.prompts),
            **facts,
            "drafts": [stage.as_json() for stage in stages],
            "held_out": results.as_json() if results else None,
        }
        write_atomically(self.output_dir / "README.md", run_card(report, results))
        write_atomically(self.output_dir / REPORT_FILE, json.dumps(report, indent=1) + "\n")

    def draft_folder(self, number: int) -> Path:
        """Where a draft is published."""
        return self.output_dir / f"draft-{number}"

    def _train(self, number: int, continuations: Continuations, kept_RS: np.ndarray) -> None:
        settings = self.settings
        start = settings.starting_point(number)
        draft = load_network(start, settings.device, torch.float32)
        torch.manual_seed(settings.seed + number)  # for drafts with dropout
        log = fine_tune(draft.train(), self.teacher, continuations, kept_RS, settings, number, self.log)
        for left_over in self.output_dir.glob(f".draft-{number}.*.tmp"):
            shutil.rmtree(left_over)
        temporary = self.output_dir / f".draft-{number}.{os.getpid()}.tmp"
        write_model(draft, start, temporary)
        # Rounded to what was written, before it is asked what it matches.
        published = load_network(temporary, settings.device, torch.float32)
        matched_RS = matched_samples(published, continuations, settings.sample_tokens, settings.match_tokens)
        num_real, num_kept = int(real_samples(continuations, settings.sample_tokens).sum()), int(kept_RS.sum())
        stage = Stage(self._stage_identity(number), number, num_real, num_kept, int((matched_RS & kept_RS).sum()), log)
        (temporary / STAGE_FILE).write_text(json.dumps(stage.as_json(), indent=1) + "\n", encoding="utf-8")
        (temporary / "README.md").write_text(draft_card(settings, stage.as_json(), start.name), encoding="utf-8")
        write_checksums(temporary)
        temporary.rename(self.draft_folder(number))

    def _read_stage(self, number: int) -> Stage:
        path = self.draft_folder(number) / STAGE_FILE
        try:
            fields = json.loads(path.read_text(encoding="utf-8"))
            stage = Stage(**{**fields, "log": PhaseLog(**fields["log"])})
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise self._foreign_folder(path, "no readable record of its training") from error
        if stage.identity != self._stage_identity(number):
            raise self._foreign_folder(path, "a draft of other settings, models or prompts")
        return stage

    def _stage_identity(self, number: int) -> str:
        """Of everything that this draft rests on: earlier drafts follow from the same settings."""
        settings = {name: value for name, value in self._identity.items() if name not in ("num_drafts", "device")}
        return digest([settings, [list(ids) for ids in self.prompts], number])

    def _foreign_folder(self, path: Path, received: str) -> OutputError:
        return OutputError(
            "the output folder holds something else",
            where=str(path),
            received=received,
            allowed="drafts of this very run, or nothing",
            fix="choose another --output-dir or remove this one",
        )

    def _require_samples(self, kept_RS: np.ndarray, number: int) -> None:
        if not kept_RS.any():
            raise ConfigError(
                f"no sample is left to train draft {number} on",
                where="boost-tuning",
                received=f"match_tokens {self.settings.match_tokens}: the earlier drafts match every sample",
                fix="raise --match-tokens, give more prompts or train fewer drafts",
            )


def load_network(folder: Path, device: str, dtype: torch.dtype) -> nn.Module:
    """A trainable network in evaluation mode whose greedy text is its own. Raises CheckpointError."""
    from transformers import AutoModelForCausalLM, GenerationConfig

    try:
        network = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype, local_files_only=True)
    except (OSError, ValueError) as error:
        raise CheckpointError("model cannot be loaded", where=str(folder), received=error) from error
    # A model's own generation settings may hold penalties, which would make its text not its greedy one.
    network.generation_config = GenerationConfig(pad_token_id=0)
    loaded: nn.Module = network.to(device).eval()
    return loaded


def write_model(network: Any, start: Path, folder: Path) -> None:
    """A whole model folder in the precision of the starting point, with its tokenizer."""
    from transformers import AutoConfig

    stored = AutoConfig.from_pretrained(start, local_files_only=True).dtype or torch.float32
    network.to(stored).save_pretrained(folder)
    for name in _COPIED_FILES:
        if (start / name).exists():
            shutil.copyfile(start / name, folder / name)
        else:
            (folder / name).unlink(missing_ok=True)
    for file in folder.glob("*.safetensors"):
        file.chmod(0o644)  # written for the owner alone otherwise


def end_of_text_ids(folder: Path) -> list[int]:
    """The tokens that end a text, by the model's generation settings or else its configuration."""
    for name in ("generation_config.json", "config.json"):
        path = folder / name
        ids = json.loads(path.read_text(encoding="utf-8")).get("eos_token_id") if path.exists() else None
        if ids is not None:
            return list(ids) if isinstance(ids, list) else [ids]
    return []
