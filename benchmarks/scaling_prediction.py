"""Predicts per-token latency of LLaMA-65B on 2 x g5.12xlarge from the bytes between ranks and published hardware.

python -m benchmarks.scaling_prediction

Messages and bytes come from the formula that tests hold against counted runs; the rest are assumptions,
each with a low and a high value (docs/scaling.md tells where they come from).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from treespec.config.run import MICRO_BATCH_TOKENS
from treespec.parallel.mesh import ParallelMesh
from treespec.parallel.traffic_model import ModelSizes, PassShape, pass_traffic

LLAMA_65B = ModelSizes(num_layers=80, hidden_size=8192, vocab_size=32000, dtype_bytes=2)
NUM_PARAMETERS = 65.2e9
DEGREES = (4, 2)  # tensor inside a node, pipeline across
CONTEXT = 192  # the middle of 128 prompt and 128 new tokens
TREE_NODES = 21  # <1,1,3,1,1,1,1,1> with its root
TREE_DEPTH = 8
TOKENS_PER_STEP = 3.21  # paper/table2_verified_tokens_per_step.csv: greedy, Alpaca, width 3, LLaMA-7B with LLaMA-68M
BATCH_SIZES = (1, 2, 4, 8, 16)
LINKS_GBIT_S = (40, 100)


@dataclass(frozen=True)
class Hardware:
    """One set of assumptions; times in seconds, rates per second."""

    memory_bytes_s: float  # a GPU reading its weights
    flops_s: float  # a GPU in half precision
    sum_latency_s: float  # an all-reduce of a few kB between the four GPUs of a node
    sum_bytes_s: float  # the same for large ones, payload per rank
    net_latency_s: float  # a small message between the nodes
    net_fraction: float  # of the link's rate that payload gets
    draft_pass_s: float  # one pass of LLaMA-68M
    step_overhead_s: float  # the driver's own work in a step


FAST = Hardware(540e9, 60e12, 20e-6, 12e9, 25e-6, 0.9, 0.6e-3, 1e-3)
SLOW = Hardware(420e9, 30e12, 60e-6, 4e9, 80e-6, 0.5, 2.0e-3, 4e-3)


@dataclass(frozen=True)
class Prediction:
    """One step of the whole batch, in seconds, by part."""

    weights_s: float
    sums_s: float
    network_s: float
    draft_s: float
    other_s: float

    @property
    def step_s(self) -> float:
        """All parts."""
        return self.weights_s + self.sums_s + self.network_s + self.draft_s + self.other_s


def predict(batch_size: int, num_nodes: int, depth: int, link_gbit_s: float, hardware: Hardware) -> Prediction:
    """A step in which every request verifies a tree of so many nodes, drafted in ``depth`` passes."""
    tensor, pipeline = DEGREES
    mesh = ParallelMesh(tensor, pipeline)
    num_parts = min(batch_size, mesh.num_micro_batches(batch_size * num_nodes, MICRO_BATCH_TOKENS["cuda"]))
    rows = -(-batch_size // num_parts)
    shape = PassShape(
        num_requests=rows,
        num_tokens=num_nodes,
        num_keys=CONTEXT + num_nodes,
        num_rows=rows * num_nodes,
        names_rows=False,
        has_mask=num_nodes > 1,
        only_likeliest=True,
    )
    first, last = (ParallelMesh(tensor, pipeline, rank) for rank in (0, tensor))
    sent, summed = pass_traffic(shape, LLAMA_65B, first), pass_traffic(shape, LLAMA_65B, last)
    share = NUM_PARAMETERS / (tensor * pipeline)
    weights_s = max(
        share * LLAMA_65B.dtype_bytes / hardware.memory_bytes_s, 2 * share * rows * num_nodes / hardware.flops_s
    )
    num_sums = sent.messages["sum"]
    sums_s = num_sums * hardware.sum_latency_s + sent.bytes["sum"] / hardware.sum_bytes_s
    gather_s = hardware.sum_latency_s + summed.bytes["gather"] / hardware.sum_bytes_s
    # All tensor ranks of a stage send over the node's one link.
    link_bytes_s = link_gbit_s * 1e9 / 8 * hardware.net_fraction
    send_s = hardware.net_latency_s + tensor * sent.bytes["send"] / link_bytes_s
    # A pass of m micro-batches through p stages takes the time of m + p - 1 stages.
    num_slots = num_parts + pipeline - 1
    commands_s = 2 * 2 * hardware.net_latency_s  # before a pass and before a commit, two messages each
    return Prediction(
        weights_s=num_slots * weights_s,
        sums_s=num_slots * sums_s + gather_s,
        network_s=num_slots / 2 * send_s + commands_s,
        draft_s=depth * hardware.draft_pass_s,
        other_s=hardware.step_overhead_s,
    )


def rows() -> Iterator[str]:
    """The table as markdown."""
    latencies = ("incremental, ms per token", "tree, ms per token", "speed-up")
    columns = ("batch", "link", *latencies, "of a slow tree step: weights, sums, network, draft")
    yield f"| {' | '.join(columns)} |"
    yield "|---|---|---|---|---|---|"
    for batch_size in BATCH_SIZES:
        for link in LINKS_GBIT_S:
            incremental = [predict(batch_size, 1, 0, link, hardware) for hardware in (FAST, SLOW)]
            tree = [predict(batch_size, TREE_NODES, TREE_DEPTH, link, hardware) for hardware in (FAST, SLOW)]
            plain_ms = [1e3 * item.step_s for item in incremental]
            tree_ms = [1e3 * item.step_s / TOKENS_PER_STEP for item in tree]
            ratios = sorted(plain / speculative for plain, speculative in zip(plain_ms, tree_ms, strict=True))
            slow = tree[1]
            parts = [slow.weights_s, slow.sums_s, slow.network_s, slow.draft_s]
            shares = ", ".join(f"{100 * part / slow.step_s:.0f} %" for part in parts)
            yield (
                f"| {batch_size} | {link} Gbit/s | {plain_ms[0]:.0f} to {plain_ms[1]:.0f} "
                f"| {tree_ms[0]:.0f} to {tree_ms[1]:.0f} | {ratios[0]:.1f} to {ratios[1]:.1f} | {shares} |"
            )


def main() -> None:
    """Print the table."""
    for row in rows():
        print(row)


if __name__ == "__main__":
    main()
