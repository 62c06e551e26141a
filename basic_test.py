"""Serve a few prompts in every mode and really check what comes out; prints "Test passed!" only then.

python basic_test.py --target models/embedded/llama/target --draft models/embedded/llama/draft

One process first; then a pair whose target's weights are streamed from disk; then several ranks: two by two on this
machine, or --degrees of them by the command --launch, which is followed by --config JOB --output-dir RAW.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

# Before torch is imported: spinning OpenMP threads slow everything else on the machine.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

try:
    from treespec.config import ModelRef, Placement, RunConfig, Scenario
    from treespec.errors import ConfigError, TreespecError
    from treespec.files import write_atomically
    from treespec.metrics.counts import RequestProfile
    from treespec.serving.build import load_placement
    from treespec.serving.passes import ServedPass, serve_pass
    from treespec.serving.prompts import load_prompts, read_prompt_file
    from treespec.serving.ranks import check_ranks, end_with_parent
except ModuleNotFoundError as missing:  # this Python has not the packages
    print(
        f"error: {missing}; where: {sys.executable}; fix: run make setup, then .venv/bin/python basic_test.py",
        file=sys.stderr,
    )
    raise SystemExit(2) from None

NUM_PROMPTS, NUM_NEW_TOKENS = 6, 48
SEQUENCE = (1,) * 8
TREE = (1, 1, 3, 1, 1, 1, 1, 1)  # SpecInfer, section 6.1
WIDE = (2, 2, 1)  # SpecInfer, figure 3
BATCH_SIZES = (1, 4)
# Of the ranks' job: few, because more ranks than cores take turns.
RANK_MODES = {"incremental": (), "tree": TREE}
RANK_NUM_PROMPTS, RANK_NUM_NEW_TOKENS, RANK_BATCH_SIZE = 4, 16, 2
# Of the streamed pair: the share that stays. Half, because tables and the maps under way take much of a small model.
STREAMED_MODES = {"incremental": (), "sequence": SEQUENCE, "tree": TREE}
STREAMED_BUDGET, STREAMED_BATCH_SIZE = 0.5, 4
MIB = 1 << 20
FLOAT32_BYTES = 4


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


@dataclass(frozen=True)
class Ranks:
    """Processes that serve the target together, and the command that starts them."""

    tensor_degree: int = 2
    pipeline_degree: int = 2
    launch: tuple[str, ...] = (sys.executable, "-m", "treespec", "run")

    def placement(self, target: Path, draft: Path) -> Placement:
        """The pair on these ranks."""
        degrees = {
            "tensor_parallel_degree": self.tensor_degree,
            "pipeline_parallel_degree": self.pipeline_degree,
        }
        return _placement(target, draft).model_copy(update=degrees)


@dataclass(frozen=True)
class Pair:
    """A target and its draft."""

    target: Path
    draft: Path


def _placement(target: Path, draft: Path) -> Placement:
    return Placement(
        name="basic_test", target=ModelRef(path=target), drafts=(ModelRef(path=draft),), max_sequence_length=256
    )


def _scenario(name: str, prompts: Path, expansion: Sequence[int], batch_size: int) -> Scenario:
    shape = "incremental" if not expansion else "sequence" if set(expansion) == {1} else "tree"
    return Scenario(
        name=name,
        mode=shape,
        expansion=tuple(expansion),
        prompts=prompts,
        num_prompts=NUM_PROMPTS,
        max_requests_per_batch=batch_size,
        max_tokens_per_batch=24,  # shorter than the prompts, so that they are processed in chunks
        max_new_tokens=NUM_NEW_TOKENS,
        ignore_eos=True,
    )


def serve(target: Path, draft: Path, prompts: Path, expansion: Sequence[int], batch_size: int) -> Outcome:
    """Serve the prompts in float32 with a fresh placement."""
    scenario, placement = _scenario("basic_test", prompts, expansion, batch_size), _placement(target, draft)
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


def run_checks(
    target: Path, draft: Path, prompts: Path, streamed: Pair | None = None, ranks: Ranks | None = None
) -> list[dict[str, object]]:
    """Every mode against incremental decoding, that against transformers; then the streamed pair; then the ranks."""
    incremental = serve(target, draft, prompts, (), 1)
    report: list[dict[str, object]] = []
    _check("incremental, batch 1: every request has all its tokens", _lengths(incremental), report)
    reference = reference_token_ids(target, prompts)
    _check("incremental, batch 1: tokens equal transformers", incremental.token_ids == reference, report)
    for batch_size in BATCH_SIZES:
        _check_modes(incremental, target, draft, prompts, batch_size, report)
    _check_own_draft(incremental, target, prompts, report)
    if streamed is not None:
        check_streamed(streamed, prompts, report)
    if ranks is not None:
        _check_ranks(incremental, ranks, ranks.placement(target, draft), prompts, report)
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


def check_streamed(pair: Pair, prompts: Path, report: list[dict[str, object]]) -> None:
    """Weights that come by from disk make the tokens that resident ones make; each pass reads all that do not stay."""
    batch_size = STREAMED_BATCH_SIZE
    scenarios = {name: _scenario(name, prompts, shape, batch_size) for name, shape in STREAMED_MODES.items()}
    resident = load_placement(_placement(pair.target, pair.draft), list(scenarios.values()))
    num_bytes = resident.target.num_parameters * FLOAT32_BYTES
    ids = load_prompts(scenarios["incremental"], resident.target.tokenizer, resident.placement.max_sequence_length)
    expected = _served(serve_pass(resident, scenarios["incremental"], ids))
    with tempfile.TemporaryDirectory(prefix="treespec_basic_test.") as folder:
        settings = {
            "offload": "disk",
            "offload_reserve_mib": math.ceil(num_bytes * STREAMED_BUDGET / MIB),
            "converted_models": Path(folder),
        }
        loaded = load_placement(resident.placement.model_copy(update=settings), list(scenarios.values()))
        plan = loaded.offload_meta(list(scenarios.values()))
        for name, scenario in scenarios.items():
            served = serve_pass(loaded, scenario, ids)
            label = f"streamed from disk, {name}"
            _check(f"{label}: tokens equal the resident model's", _served(served) == expected, report)
            totals = served.totals
            facts = {"bytes_per_step": totals.offload["num_bytes"] // totals.num_target_steps, "model_bytes": num_bytes}
            read = totals.num_target_steps * plan["streamed_bytes"]
            is_whole = totals.offload["num_bytes"] == read > 0
            _check(f"{label}: each step reads all that does not stay", is_whole, report, facts)


def _served(served: ServedPass) -> list[list[int]]:
    return [request.output_token_ids for request in served.requests]


def _check_ranks(
    incremental: Outcome, ranks: Ranks, placement: Placement, prompts: Path, report: list[dict[str, object]]
) -> None:
    """Several ranks write what one process writes, in a job that is started as the experiments' jobs are."""
    label = f"{ranks.tensor_degree} x {ranks.pipeline_degree} ranks"
    try:
        check_ranks(placement)
    except ConfigError as error:  # a model of the user's own
        print(f"skipped {label}: {error}", flush=True)
        return
    sizes = {"num_prompts": RANK_NUM_PROMPTS, "max_new_tokens": RANK_NUM_NEW_TOKENS}
    scenarios = [
        _scenario(name, prompts, expansion, RANK_BATCH_SIZE).model_copy(update=sizes)
        for name, expansion in RANK_MODES.items()
    ]
    expected = [token_ids[:RANK_NUM_NEW_TOKENS] for token_ids in incremental.token_ids[:RANK_NUM_PROMPTS]]
    with tempfile.TemporaryDirectory(prefix="treespec_basic_test.") as folder:
        job, raw = Path(folder, "job.yaml"), Path(folder, "raw")
        job.write_text(RunConfig(placement=placement, scenarios=tuple(scenarios)).model_dump_json(), encoding="utf-8")
        raw.mkdir()
        _check(f"{label}: the job is done", _launched(ranks.launch, job, raw), report)
        for name in RANK_MODES:
            rows = [json.loads(line) for line in (raw / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()]
            written = [row["output_token_ids"] for row in sorted(rows, key=lambda row: row["prompt_index"])]
            _check(f"{label}, {name}: tokens equal one process", written == expected, report)


def _launched(launch: Sequence[str], job: Path, raw: Path) -> bool:
    """Whether the job ended well; what it said is passed on where it did not."""
    command = [*launch, "--config", str(job), "--output-dir", str(raw)]
    try:
        done = subprocess.run(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
            preexec_fn=end_with_parent,
        )
    except OSError as error:
        print(f"{command[0]}: {error.strerror}", file=sys.stderr)
        return False
    if done.returncode != 0:
        print(done.stdout, file=sys.stderr, end="")
    return done.returncode == 0


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
    for text in read_prompt_file(prompts)[:NUM_PROMPTS]:
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
    parser.add_argument(
        "--streamed",
        nargs=2,
        type=Path,
        metavar=("TARGET", "DRAFT"),
        help="of the part with weights streamed from disk; default: the pair above",
    )
    parser.add_argument("--output-dir", type=Path, help="write report.json here")
    parser.add_argument("--degrees", nargs=2, type=int, default=(2, 2), metavar=("TENSOR", "PIPELINE"), help="of ranks")
    parser.add_argument(
        "--launch",
        nargs=argparse.REMAINDER,
        default=Ranks.launch,
        metavar="WORDS",
        help="all that follows starts ranks",
    )
    args = parser.parse_args()
    try:
        ranks = Ranks(args.degrees[0], args.degrees[1], tuple(args.launch))
        streamed = Pair(*(args.streamed or (args.target, args.draft)))
        report = run_checks(args.target, args.draft, args.prompts, streamed, ranks)
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
