"""A model four times the budget: what the process peaks at, measured by the kernel in a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from engine.tests.checkpoints import TinyLlama, write_checkpoint
from engine.tests.test_loading_memory import ENVIRONMENT

BIG = TinyLlama(
    hidden_size=1024, ffn_size=4096, num_layers=8, num_heads=8, num_kv_heads=4, head_dim=128, vocab_size=2048
)
SLACK = 24 << 20  # bytes that allocator, kernels and text processing keep, whatever is served
MIB = 1 << 20

SERVE = """
import json, sys
from pathlib import Path
import torch
from treespec.config import ModelRef, Placement, Scenario
from treespec.ops.linear import best_storage
from treespec.serving.build import load_placement
from treespec.serving.passes import serve_pass, warm_up
from treespec.serving.prompts import load_prompts

def status(name):
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name + ":")) * 1024

folder, settings = Path(sys.argv[1]), json.loads(sys.argv[2])
torch.set_num_threads(1)
best_storage(torch.zeros(512, 512))  # first uses of the kernels
sizes = {"max_requests_per_batch": 2, "max_new_tokens": 4, "prompts": folder.parent / "prompts.json"}
scenario = Scenario(name="s", mode="tree", expansion=(2, 2), **sizes)
ref = ModelRef(path=folder)
placement = Placement(name="p", target=ref, drafts=(ModelRef(path=folder.parent / "draft"),), num_threads=1, **settings)
Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here
before = status("VmRSS")
loaded = load_placement(placement, [scenario])
ids = load_prompts(scenario, loaded.target.tokenizer, placement.max_sequence_length)
serve_pass(loaded, scenario, ids)
print(json.dumps({"peak": status("VmHWM") - before, "offload": loaded.offload_meta([scenario])}))
"""


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """480 MiB in float32."""
    root = tmp_path_factory.mktemp("four_times")
    small = TinyLlama(hidden_size=64, ffn_size=64, num_layers=1, num_heads=2, num_kv_heads=2, vocab_size=2048)
    write_checkpoint(root / "draft", small)
    (root / "prompts.json").write_text('["abc", "abcabc", "b"]')
    return write_checkpoint(root / "target", BIG)


def measured(folder: Path, **settings: Any) -> dict[str, Any]:
    command = [sys.executable, "-c", SERVE, str(folder), json.dumps(settings)]
    run = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr[-3000:]
    return json.loads(run.stdout)


@pytest.mark.slow
def test_a_model_four_times_the_budget_peaks_at_budget_and_workspace(checkpoint: Path) -> None:
    num_bytes = (checkpoint / "model.safetensors").stat().st_size
    reserve_mib = num_bytes / 4 / MIB
    offloaded = measured(checkpoint, offload="disk", offload_reserve_mib=reserve_mib)
    plan = offloaded["offload"]
    allowed = reserve_mib * MIB + plan["workspace_bytes"] + SLACK
    assert plan["resident_bytes"] + plan["streamed_bytes"] == pytest.approx(num_bytes, rel=0.01)
    assert offloaded["peak"] <= allowed, (offloaded["peak"] >> 20, plan)
    assert measured(checkpoint)["peak"] > max(num_bytes, allowed), "a resident model would have been noticed"
