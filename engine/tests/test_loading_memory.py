"""Loading a share of a checkpoint: what a rank's memory peaks at, measured by the kernel in a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from engine.tests.checkpoints import TinyLlama, write_checkpoint
from engine.tests.jobs import ENGINE
from treespec.parallel.mesh import ParallelMesh

BIG = TinyLlama(
    hidden_size=1024, ffn_size=4096, num_layers=4, num_heads=8, num_kv_heads=4, head_dim=128, vocab_size=20480
)
FLOAT_BYTES = 4
WORKSPACE = 12 << 20  # bytes that the allocator and the kernels keep, whatever is loaded
# Freed memory goes back to the system at once, where glibc would keep some of it: what is measured is in use.
ENVIRONMENT = {"PYTHONPATH": str(ENGINE), "MALLOC_MMAP_THRESHOLD_": "1000000"}

LOADER = """
import json, sys
from pathlib import Path
import torch
from treespec.config import ModelRef
from treespec.model.loader import open_model
from treespec.ops.linear import best_storage
from treespec.parallel.collectives import Alone
from treespec.parallel.mesh import ParallelMesh

def status(name):
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name + ":")) * 1024

torch.set_num_threads(1)
best_storage(torch.zeros(512, 512))  # first uses of the kernels that pack
opened = open_model(ModelRef(path=Path(sys.argv[1])))
mesh = ParallelMesh(int(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]))
Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here
before = status("VmRSS")
model = opened.load(torch.float32, torch.device("cpu"), mesh, Alone())
print(json.dumps({"peak": status("VmHWM") - before, "after": status("VmRSS") - before}))
"""


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """400 MiB in float32, of which the largest tensors, the two tables, take 80 each."""
    return write_checkpoint(tmp_path_factory.mktemp("big"), BIG)


def share_bytes(mesh: ParallelMesh) -> int:
    """Weights that a rank keeps."""
    m, f, d = BIG.hidden_size, len(mesh.share(BIG.ffn_size)), BIG.head_dim
    heads, kv_heads = len(mesh.heads(BIG.num_heads)), len(mesh.kv_heads(BIG.num_kv_heads))
    layer = m * d * (2 * heads + 2 * kv_heads) + 3 * m * f + 2 * m
    table = m * len(mesh.share(BIG.vocab_size))
    ends = table * mesh.is_first_stage + (table + m) * mesh.is_last_stage
    return FLOAT_BYTES * (layer * len(mesh.layers(BIG.num_layers)) + ends)


def largest_read(mesh: ParallelMesh) -> int:
    """The largest part of a tensor that a rank reads; the tables are larger than any matrix of a layer."""
    return FLOAT_BYTES * BIG.hidden_size * len(mesh.share(BIG.vocab_size))


@pytest.mark.slow
@pytest.mark.parametrize(("tensor", "pipeline"), [(2, 2)])
def test_a_rank_peaks_at_its_share_and_one_tensor(checkpoint: Path, tensor: int, pipeline: int) -> None:
    """Resident memory, mapped pages of the checkpoint included; a tensor that is packed is there twice for a moment."""
    for rank in range(tensor * pipeline):
        mesh = ParallelMesh(tensor, pipeline, rank)
        command = [sys.executable, "-c", LOADER, str(checkpoint), *map(str, (tensor, pipeline, rank))]
        run = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, check=True)
        peak, after = (json.loads(run.stdout)[name] for name in ("peak", "after"))
        share = share_bytes(mesh)
        assert share <= after <= share + WORKSPACE, (rank, after >> 20, share >> 20)
        assert peak <= share + largest_read(mesh) + WORKSPACE, (rank, peak >> 20, share >> 20)
