"""Who may import whom: the contracts in pyproject.toml hold, and they can be broken."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
PACKAGES = ("claims", "cluster", "data_parsing", "figures", "report", "rules", "benchmarks", "model_store")
TORCH_FREE = (
    "treespec.config",
    "treespec.draft.auto_policy",
    "treespec.draft.ngram",
    "treespec.draft.suffix",
    "treespec.kvcache.allocator",
    "treespec.metrics.cost",
    "treespec.metrics.counts",
    "treespec.prompts",
    "treespec.registry",
    "treespec.request",
    "treespec.scheduler",
    "treespec.tree",
    "rules.plan_files",
    "data_parsing",
    "figures",
    "claims",
    "report",
)


def lint(folder: Path) -> subprocess.CompletedProcess[str]:
    """import-linter over the packages below ``folder``, whatever else is installed."""
    return subprocess.run(
        [
            sys.executable,
            "-c",
            "from importlinter.cli import lint_imports_command; lint_imports_command()",
            "--no-cache",
        ],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": os.pathsep.join((str(folder), str(folder / "engine")))},
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """The packages and their contracts, to be spoilt."""
    shutil.copy(REPOSITORY / "pyproject.toml", tmp_path)
    for package in PACKAGES:
        shutil.copytree(REPOSITORY / package, tmp_path / package)
    shutil.copytree(REPOSITORY / "engine/treespec", tmp_path / "engine/treespec")
    return tmp_path


def test_contracts_are_kept() -> None:
    done = lint(REPOSITORY)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(
    ("file", "line", "contract"),
    [
        ("engine/treespec/request.py", "import torch", "Planning is free of torch"),
        ("engine/treespec/ops/__init__.py", "import treespec.runner", "Rooms of the engine"),
        ("engine/treespec/draft/__init__.py", "import treespec.verify", "Rooms of the engine"),
        ("engine/treespec/model/__init__.py", "import treespec.request", "A decoder knows nothing"),
        ("engine/treespec/cli.py", "import pandas", "The engine knows no workflow"),
        ("data_parsing/__init__.py", "import treespec", "do not know each other"),
        ("figures/__init__.py", "import data_parsing", "do not know each other"),
        ("data_parsing/__init__.py", "import matplotlib", "Parsing writes tables"),
        ("rules/plan_files.py", "import treespec.config", "Only the planner"),
    ],
)
def test_a_forbidden_import_is_found(copy: Path, file: str, line: str, contract: str) -> None:
    path = copy / file
    path.write_text(f"{path.read_text()}\n{line}\n")
    done = lint(copy)
    assert done.returncode == 1, done.stdout
    broken = [row for row in done.stdout.splitlines() if row.endswith("BROKEN")]
    assert [row for row in broken if contract in row], f"broken: {broken}"


def test_planning_and_drawing_load_no_torch() -> None:
    code = f"import importlib, json, sys; [importlib.import_module(m) for m in {TORCH_FREE}]"
    code += "; print(json.dumps([m for m in ('torch', 'transformers') if m in sys.modules]))"
    done = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, text=True, capture_output=True)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == []
