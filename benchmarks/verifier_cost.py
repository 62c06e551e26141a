"""What judging a 64-node tree costs, as a share of the target's forward pass over the same nodes on the same machine.

python -m benchmarks.verifier_cost --output build/verifier_cost.json

The target is the embedded LLaMA inflated to about 100 million parameters; its vocabulary is small, so what the
verifiers judge are random logits over the vocabulary asked for. Rounds are interleaved: a forward, then every case.

Legend: N nodes of a tree, V vocabulary.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch: spinning threads fight on a shared machine

import numpy as np
import torch
from torch import Tensor

from treespec.chance import Chance
from treespec.config import Inflation, ModelRef
from treespec.config.sampling import Sampling
from treespec.draft.growth import TreeGrowth
from treespec.draft.selection import SELECTIONS, Leaves
from treespec.metrics.environment import describe_environment
from treespec.model.loader import LoadedModel, load_model
from treespec.ops.draws import DraftDraws, VerifyDraws
from treespec.ops.sampling import TargetRows
from treespec.parallel.mesh import ParallelMesh
from treespec.runner import ForwardRow, ModelRunner
from treespec.tree import Proposals, Topology
from treespec.verify import verifiers

BAR = 0.1
CONTEXT = 128
TREE = Topology.from_expansion((3, 4, 4))  # 63 nodes and the root
CHAIN = Topology.from_expansion((1,) * 63)
LOGIT_SCALE = 4.0  # the likeliest token of such a row has about a quarter of the mass
NOISE = {"unrelated": None, "similar": 1.0, "equal": 0.0}  # what the target's logits add to the draft's
DRAWN, NUCLEUS = Sampling(temperature=1), Sampling(temperature=1, top_p=0.9)
BOOTSTRAP_DRAWS = 2000


@dataclass(frozen=True)
class Case:
    """One verifier on one batch of trees."""

    verifier: str
    selection: str
    topology: Topology
    draft: str
    rule: Sampling = DRAWN


class Batches:
    """Drafted trees and the target's logits at their nodes; what cases have in common is made once."""

    def __init__(self, batch_size: int, vocab_size: int) -> None:
        self.batch_size = batch_size
        self._vocab_size = vocab_size
        self.proposals = cache(self._proposals)
        self.target_BNV = cache(self._target_logits)
        self._draft_BNV = cache(self._draft_logits)

    def _draft_logits(self, topology: Topology) -> Tensor:
        """Logits by node."""
        shape = (self.batch_size, len(topology), self._vocab_size)
        return torch.randn(shape, generator=torch.Generator().manual_seed(0)) * LOGIT_SCALE

    def _target_logits(self, topology: Topology, draft: str) -> Tensor:
        draft_BNV, noise = self._draft_BNV(topology), NOISE[draft]
        other_BNV = torch.randn(draft_BNV.shape, generator=torch.Generator().manual_seed(1))
        return other_BNV * LOGIT_SCALE if noise is None else draft_BNV + noise * other_BNV

    def _proposals(self, topology: Topology, selection: str, rule: Sampling) -> list[Proposals]:
        draws = DraftDraws([Chance(0, item) for item in range(self.batch_size)], [CONTEXT] * self.batch_size)
        return [self._tree(item, topology, selection, rule, draws) for item in range(self.batch_size)]

    def _tree(self, item: int, topology: Topology, selection: str, rule: Sampling, draws: DraftDraws) -> Proposals:
        growth = TreeGrowth(0, topology, topology.depth)
        q: list[Tensor] = []
        num_q = 0
        while n := len(growth.frontier):
            leaves = Leaves([item] * n, growth.widths(), [growth.depth + 1] * n, [rule] * n)
            logits_RV = self._draft_BNV(topology)[item, list(growth.frontier)]
            selected = SELECTIONS[selection].select(logits_RV, leaves, draws)
            growth.expand(selected.tokens, SELECTIONS[selection].contract, range(num_q, num_q + n))
            q += [] if selected.q_RV is None else [selected.q_RV]
            num_q += n
        return growth.build(torch.cat(q) if q else None)


@dataclass(frozen=True)
class Judged:
    """One verification of a batch."""

    seconds: float
    accepted: float  # mean per request


@dataclass(frozen=True)
class Row:
    """A case's share of the forward pass: ratio of medians, with its 95 % interval."""

    verifier: str
    selection: str
    tree: str
    draft: str
    sampling: str
    nodes: float  # mean per request, root included; a token drawn twice is one node
    accepted: float  # mean per request and step
    ms: float
    ratio: float
    low: float
    high: float


def main() -> int:
    """Measure, print the table, write the JSON; 1 if a verifier takes more than the bar."""
    args = _arguments()
    torch.set_num_threads(args.threads)
    ref = ModelRef(path=args.target, inflation=Inflation(width_factor=4, num_layers=8))
    model = load_model(ref, torch.float32, torch.device("cpu"), ParallelMesh())
    batches = Batches(args.batch_size, args.vocab_size)
    forward_s, judged = _measure(_forward(model, args.batch_size), batches, args.rounds)
    rows = [_row(case, batches, judged[case], forward_s) for case in judged]
    print(
        f"{model.description}; float32, batch {args.batch_size} x {len(TREE)} nodes, context {CONTEXT}: "
        f"forward {np.median(forward_s) * 1000:.0f} ms (median of {args.rounds}), {args.threads} threads\n"
        f"Judged: random logits over {args.vocab_size} tokens; the target's own vocabulary has "
        f"{model.decoder.spec.vocab_size}\n"
    )
    _print(rows)
    worst = max(rows, key=lambda row: row.ratio)
    holds = worst.ratio < BAR
    print(f"\nlargest share {worst.ratio:.3f} ({worst.verifier}); bar {BAR}: {'holds' if holds else 'MISSED'}")
    if args.output:
        environment = describe_environment(torch.__version__, "cpu", torch.get_num_threads())
        report = {"target": model.description, "environment": environment, "forward_ms": np.median(forward_s) * 1000}
        args.output.parent.mkdir(parents=True, exist_ok=True)
        rows_json = [asdict(row) for row in rows]
        args.output.write_text(json.dumps({**report, "rows": rows_json}, indent=1) + "\n", encoding="utf-8")
    return 0 if holds else 1


def _print(rows: Sequence[Row]) -> None:
    print("| verifier | selection | tree | target and draft | sampling | nodes | accepted | ms | of forward [95 %] |")
    print("|---|---|---|---|---|---|---|---|---|")
    for row in rows:
        print(
            f"| {row.verifier} | {row.selection} | {row.tree} | {row.draft} | {row.sampling} | {row.nodes:.1f} "
            f"| {row.accepted:.2f} | {row.ms:.1f} | {row.ratio:.3f} [{row.low:.3f}, {row.high:.3f}] |"
        )


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--target", type=Path, default=Path("models/embedded/llama/target"))
    parser.add_argument("--vocab-size", type=int, default=32000)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--output", type=Path, help="write everything measured to this JSON file")
    return parser.parse_args()


def _cases() -> list[Case]:
    """Greedy verification ignores the sampling and reads the logits alone."""
    on_trees = [
        ("greedy", "top_k"),
        ("sampler_match", "top_k"),
        ("mss", "iid"),
        ("recursive_rejection", "without_replacement"),
        ("traversal", "iid"),
        ("traversal", "without_replacement"),
    ]
    on_chains = [("token_rejection", "iid"), ("block", "iid"), ("traversal", "iid")]
    return [
        Case(verifier, selection, topology, draft, rule)
        for topology, pairs in ((TREE, on_trees), (CHAIN, on_chains))
        for verifier, selection in pairs
        for draft, rule in (*((draft, DRAWN) for draft in NOISE), ("similar", NUCLEUS))
    ]


def _forward(model: LoadedModel, batch_size: int) -> Callable[[], None]:
    """One pass of the target over a tree per request after a cached context, argmax on the host included."""
    runner = ModelRunner(model.decoder, batch_size, CONTEXT + len(TREE))
    regions = [runner.allocator.admit() for _ in range(batch_size)]
    chain = Topology.from_expansion((1,) * (CONTEXT - 1))
    runner.submit([_forward_row(runner, region, 0, chain) for region in regions])
    runner.commit([(region, range(CONTEXT)) for region in regions])

    def forward() -> None:
        rows = [_forward_row(runner, region, CONTEXT, TREE) for region in regions]
        runner.result(runner.submit(rows)).logits_RV.argmax(dim=-1).tolist()
        runner.commit([(region, []) for region in regions])

    return forward


def _forward_row(runner: ModelRunner, region: int, start: int, topology: Topology) -> ForwardRow:
    n = len(topology)
    visible = np.eye(n, dtype=bool)
    for node, parent in enumerate(topology.parents[1:], start=1):
        visible[node] |= visible[parent]
    ids = np.arange(10, 10 + n)
    return ForwardRow(runner.allocator.lease(region, n), ids, start + topology.depths, visible, num_logits=n)


def _measure(
    forward: Callable[[], None], batches: Batches, rounds: int
) -> tuple[list[float], dict[Case, list[Judged]]]:
    """Seconds of the forward passes, and every case's verifications."""
    forward_s: list[float] = []
    judged: dict[Case, list[Judged]] = {case: [] for case in _cases()}
    for turn in range(rounds + 1):
        started = time.monotonic()
        forward()
        taken = time.monotonic() - started
        verdicts = {case: _judge(case, batches, turn) for case in judged}
        if turn:  # the first round warms up
            forward_s.append(taken)
            for case, verdict in verdicts.items():
                judged[case].append(verdict)
    return forward_s, judged


def _judge(case: Case, batches: Batches, turn: int) -> Judged:
    """One verification, from the logits to the results."""
    proposals = batches.proposals(case.topology, case.selection, case.rule)
    logits_BNV = batches.target_BNV(case.topology, case.draft)
    logits_TV = torch.cat([logits_NV[: len(item.tree)] for logits_NV, item in zip(logits_BNV, proposals, strict=True)])
    chances = [Chance(turn, item) for item in range(len(proposals))]
    verifier = verifiers().get(case.verifier)
    started = time.monotonic()
    target = TargetRows(logits_TV, [case.rule] * len(logits_TV))
    results = verifier.verify(proposals, target, VerifyDraws(chances, [CONTEXT] * len(proposals)))
    seconds = time.monotonic() - started
    return Judged(seconds, float(np.mean([len(result.accepted_nodes) for result in results])))


def _row(case: Case, batches: Batches, judged: Sequence[Judged], forward_s: Sequence[float]) -> Row:
    seconds = np.array([verdict.seconds for verdict in judged])
    # Medians over medians: a pass is disturbed or not on its own, so rounds are resampled, not paired.
    picks = np.random.default_rng(0).integers(0, len(seconds), size=(2, BOOTSTRAP_DRAWS, len(seconds)))
    ratios = np.median(seconds[picks[0]], axis=1) / np.median(np.array(forward_s)[picks[1]], axis=1)
    low, high = np.quantile(ratios, [0.025, 0.975])
    return Row(
        verifier=case.verifier,
        selection=case.selection,
        tree="<3,4,4>" if case.topology is TREE else f"chain of {len(case.topology)}",
        draft=case.draft,
        sampling=f"top_p {case.rule.top_p}" if case.rule is NUCLEUS else "temperature 1",
        nodes=float(np.mean([len(p.tree) for p in batches.proposals(case.topology, case.selection, case.rule)])),
        accepted=float(np.mean([verdict.accepted for verdict in judged])),
        ms=float(np.median(seconds) * 1000),
        ratio=float(np.median(seconds) / np.median(forward_s)),
        low=float(low),
        high=float(high),
    )


if __name__ == "__main__":
    raise SystemExit(main())
