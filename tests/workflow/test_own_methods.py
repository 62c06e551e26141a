"""Drafters and verifiers of one's own in an experiment: planned, asked about before anything runs, run, audited."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from rules.plan_files import plan_workflow
from tests.workflow.project import REPOSITORY, Project
from treespec.errors import TreespecError

EXPERIMENT = {
    "description": "those of docs/adding.md",
    "budget_minutes": 1,
    "prefix": "own",
    "name_form": "{mode}",
    "sizes": ["small"],
    "plugins": ["own/repeat.py", "own/patient.py"],
    "modes": {
        "plain": {"mode": "incremental"},
        "repeat": {
            "mode": "tree",
            "drafters": [{"kind": "plugin", "name": "repeat", "max_nodes": 4, "options": {"num_tokens": 4}}],
        },
        "patient": {"mode": "tree", "expansion": [2, 1], "verifier": "patient"},
    },
    "batch_sizes": [2],
    "prompts": "chatgpt",
    "num_prompts": 2,
    "num_repeats": 1,
    "max_new_tokens": 12,
    "ignore_eos": True,
    "max_tokens_per_batch": 64,
}


def documented(name: str) -> str:
    """The example in docs/adding.md that offers something of this name."""
    blocks = re.findall(r"```python\n(.*?)```", (REPOSITORY / "docs/adding.md").read_text(), re.DOTALL)
    (text,) = (block for block in blocks if f'{{"{name}": ' in block)
    return str(text)


def put(project: Project, **changes: Any) -> None:
    """The two files and the experiment into the project."""
    for name in ("repeat", "patient"):
        path = project.folder / "own" / f"{name}.py"
        path.parent.mkdir(exist_ok=True)
        path.write_text(documented(name))
    text = json.dumps(EXPERIMENT | changes)
    (project.folder / "config/experiments/own.yaml").write_text(text)


def marker() -> str:
    (placement,) = plan_workflow({"platform": "tiny"}).sweeps["own"]
    return placement.fingerprint


def test_what_a_file_says_is_part_of_what_is_measured(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(project.folder)
    put(project)
    before = marker()
    (placement,) = plan_workflow({"platform": "tiny"}).sweeps["own"]
    assert placement.job.placement.plugins == (Path("own/repeat.py"), Path("own/patient.py"))
    with open(project.folder / "own/patient.py", "a") as file:
        file.write("# another word\n")
    assert marker() != before
    (project.folder / "own/patient.py").unlink()
    with pytest.raises(TreespecError, match=r"where: own/patient.py; received: No such file"):
        marker()


@pytest.mark.slow
def test_a_name_that_nobody_offers_stops_everything_before_it_starts(project: Project) -> None:
    put(project, plugins=["own/repeat.py"])
    done = project.snakemake("server_gpu_experiments", timeout=120)
    assert done.returncode == 1
    assert not list(project.folder.glob("results/tiny/logs/server_gpu*")), "a placement was started"
    assert "unknown verifier; where: scenario 'own_patient'; received: 'patient'; allowed: block, greedy" in done.stdout
    assert not project.raw.exists()


@pytest.mark.slow
def test_they_run_and_are_audited(real: Project) -> None:
    put(real)
    done = real.snakemake("own_experiments", timeout=200)
    assert done.returncode == 0, done.stdout
    token_ids = {
        mode: [json.loads(line)["output_token_ids"] for line in (real.raw / f"own_{mode}.jsonl").open()]
        for mode in EXPERIMENT["modes"]
    }
    assert token_ids["repeat"] == token_ids["patient"] == token_ids["plain"]
    done = real.snakemake("-n", "-p", "audit_losslessness")
    assert "--plugin own/patient.py --plugin own/repeat.py --output" in done.stdout
