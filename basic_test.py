"""Serve a few prompts in every mode and really check what comes out; prints "Test passed!" only then.

python basic_test.py --target models/embedded/llama/target --draft models/embedded/llama/draft
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

# Before torch is imported: spinning OpenMP threads slow everything else on the machine.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

from treespec.config import ModelRef, Placement, Scenario
from treespec.errors import TreespecError
from treespec.files import write_atomically
from treespec.metrics.counts import RequestProfile
from treespec.serving.build import load_placement
from treespec.serving.prompts import load_prompts

NUM_PROMPTS, NUM_NEW_TOKENS = 6, 48
SEQUENCE = (1,) * 8
TREE = (1, 1, 3, 1, 1, 1, 1, 1)  # SpecInfer, section 6.1
WIDE = (2, 2, 1)  # SpecInfer, figure 3
BATCH_SIZES = (1, 4)


class CheckFailedError(Exception):
    """An output is not what it must be."""


@dataclass(frozen=True)
class Outcome:
    """What one mode generated, prompt by prompt."""

    token_ids: list[list[int]]
    texts: list[str]
    profiles: list[RequestProfile]

    @property
    def num_accepted(self) -> int:
        """Speculated tokens that were emitted."""
        return sum(profile.num_accepted_tokens for profile in self.profiles)

    @property
    def num_target_steps(self) -> int:
        """Target passes, summed over requests."""
        return sum(profile.num_target_steps for profile in self.profiles)


def serve(target: Path, draft: Path, prompts: Path, expansion: Sequence[int], batch_size: int) -> Outcome:
    """Serve the prompts in float32 with a fresh placement."""
    shape = "incremental" if not expansion else "sequence" if set(expansion) == {1} else "tree"
    scenario = Scenario(
        name="basic_test",
        mode=shape,
        expansion=tuple(expansion),
        prompts=prompts,
        num_prompts=NUM_PROMPTS,
        max_requests_per_batch=batch_size,
        max_tokens_per_batch=24,  # shorter than the prompts, so that they are processed in chunks
        max_new_tokens=NUM_NEW_TOKENS,
        ignore_eos=True,
    )
    placement = Placement(
        name="basic_test", target=ModelRef(path=target), drafts=(ModelRef(path=draft),), max_sequence_length=256
    )
    loaded = load_placement(placement, [scenario])
    ids = load_prompts(scenario, loaded.target.tokenizer, placement.max_sequence_length)
    requests = [loaded.request(scenario, index, prompt) for index, prompt in enumerate(ids)]
    engine = loaded.engine(scenario)
    engine.add(requests)
    engine.run()
    decode = loaded.target.tokenizer.decode
    return Outcome(
        [request.output_token_ids for request in requests],
        [request.text(decode) for request in requests],
        [engine.profiles[request.request_id] for request in requests],
    )


def run_checks(target: Path, draft: Path, prompts: Path) -> list[dict[str, object]]:
    """Every mode against incremental decoding, and incremental decoding against transformers."""
    incremental = serve(target, draft, prompts, (), 1)
    report: list[dict[str, object]] = []
    _check("incremental, batch 1: every request has all its tokens", _lengths(incremental), report)
    reference = reference_token_ids(target, prompts)
    _check("incremental, batch 1: tokens equal transformers", incremental.token_ids == reference, report)
    for batch_size in BATCH_SIZES:
        _check_modes(incremental, target, draft, prompts, batch_size, report)
    _check_own_draft(incremental, target, prompts, report)
    return report


def _check_modes(
    incremental: Outcome, target: Path, draft: Path, prompts: Path, batch_size: int, report: list[dict[str, object]]
) -> None:
    for name, expansion in {"incremental": (), "sequence": SEQUENCE, "tree": TREE, "wide tree": WIDE}.items():
        if not expansion and batch_size == 1:
            continue
        outcome = serve(target, draft, prompts, expansion, batch_size)
        label = f"{name}, batch {batch_size}"
        _check(f"{label}: tokens equal incremental", outcome.token_ids == incremental.token_ids, report)
        if expansion:
            facts = {"accepted": outcome.num_accepted, "target_steps": outcome.num_target_steps}
            fewer = outcome.num_target_steps < incremental.num_target_steps
            _check(
                f"{label}: drafts are accepted and steps are saved", outcome.num_accepted > 0 and fewer, report, facts
            )


def _check_own_draft(incremental: Outcome, target: Path, prompts: Path, report: list[dict[str, object]]) -> None:
    """A draft that is the target must be accepted whole, at every step that had room for it."""
    for name, expansion in {"sequence": SEQUENCE, "tree": TREE, "wide tree": WIDE}.items():
        outcome = serve(target, target, prompts, expansion, BATCH_SIZES[-1])
        _check(f"{name}, draft = target: tokens equal incremental", outcome.token_ids == incremental.token_ids, report)
        whole = all(_fully_accepted(profile, len(expansion)) for profile in outcome.profiles)
        _check(f"{name}, draft = target: accepted to full depth", whole, report)


def _fully_accepted(profile: RequestProfile, depth: int) -> bool:
    """The first step ends the prompt without a draft; the last has room for what is left of the length."""
    first, *middle, _last = profile.accepted_per_step
    return first == 0 and bool(middle) and all(accepted == depth for accepted in middle)


def _lengths(outcome: Outcome) -> bool:
    return all(len(ids) == NUM_NEW_TOKENS for ids in outcome.token_ids)


def reference_token_ids(target: Path, prompts: Path) -> list[list[int]]:
    """Greedy continuations by transformers, one prompt at a time, in float32."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(target, dtype=torch.float32, local_files_only=True)
    model.generation_config.eos_token_id = None  # EOS is ignored here too
    tokenizer = AutoTokenizer.from_pretrained(target, local_files_only=True)
    rows = []
    for text in json.loads(prompts.read_text(encoding="utf-8"))[:NUM_PROMPTS]:
        ids = tokenizer(text, return_tensors="pt").input_ids
        new = {"max_new_tokens": NUM_NEW_TOKENS, "do_sample": False}
        out = model.generate(ids, attention_mask=torch.ones_like(ids), **new)
        rows.append(out[0, ids.shape[1] :].tolist())
    return rows


def _check(what: str, holds: bool, report: list[dict[str, object]], facts: dict[str, int] | None = None) -> None:
    report.append({"check": what, "holds": holds} | (facts or {}))
    shown = "".join(f", {name} {value}" for name, value in (facts or {}).items())
    print(f"{'ok    ' if holds else 'FAILED'}  {what}{shown}", flush=True)
    if not holds:
        raise CheckFailedError(what)


def main() -> int:
    """Run the checks; exit status 1 if one fails, 2 for a user's mistake."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--target", type=Path, default=Path("models/embedded/llama/target"))
    parser.add_argument("--draft", type=Path, default=Path("models/embedded/llama/draft"))
    parser.add_argument("--prompts", type=Path, default=Path("prompts/mixed.json"))
    parser.add_argument("--output-dir", type=Path, help="write report.json here")
    args = parser.parse_args()
    try:
        report = run_checks(args.target, args.draft, args.prompts)
    except CheckFailedError as failure:
        print(f"Test failed: {failure}", file=sys.stderr)
        return 1
    except TreespecError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    if args.output_dir is not None:
        args.output_dir.mkdir(parents=True, exist_ok=True)
        write_atomically(args.output_dir / "report.json", json.dumps(report, indent=1) + "\n")
    print("Test passed!")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
