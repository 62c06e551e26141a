"""The conda environments hold what their jobs import, in the versions of the lock."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.workflow.project import REPOSITORY

CODE = {
    "cluster": ("cluster", "rules/tied.py"),
    "engine": ("engine/treespec", "rules", "benchmarks", "model_store", "basic_test.py", "download_models.py"),
    "parsing": ("data_parsing",),
    "figures": ("figures",),
    "claims": ("claims",),
    "report": ("report",),
}
OWN = {"treespec", "cluster", "rules", "benchmarks", "data_parsing", "figures", "claims", "report", "model_store"}
NOT_IN_JOBS = {"matplotlib", "PIL"}  # the pictures of treespec compare and of the README, which are no rule's programs
DISTRIBUTIONS = {"yaml": "pyyaml", "huggingface_hub": "huggingface-hub"}


def pins(environment: str) -> dict[str, str]:
    """Distribution -> version of an environment's pip section."""
    dependencies = yaml.safe_load((REPOSITORY / f"envs/{environment}.yaml").read_text())["dependencies"]
    pip = next(item["pip"] for item in dependencies if isinstance(item, dict))
    return dict(requirement.split("==") for requirement in pip)


def imported(path: Path) -> Iterator[str]:
    """Distributions that a file imports anywhere in it, the standard library and our own left out."""
    for node in ast.walk(ast.parse(path.read_text())):
        modules = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        modules += [node.module or ""] if isinstance(node, ast.ImportFrom) and not node.level else []
        for name in {module.split(".")[0] for module in modules} - OWN - sys.stdlib_module_names:
            yield DISTRIBUTIONS.get(name, name)


def test_every_environment_is_looked_at() -> None:
    assert {path.stem for path in (REPOSITORY / "envs").glob("*.yaml")} == CODE.keys()
    used = {
        match
        for file in (REPOSITORY / "rules").glob("*.smk")
        for match in re.findall(r"envs/(\w+)\.yaml", file.read_text())
    }
    assert used == CODE.keys()


@pytest.mark.parametrize("environment", CODE)
def test_an_environment_holds_what_its_jobs_import(environment: str) -> None:
    places = [REPOSITORY / place for place in CODE[environment]]
    files = [file for place in places for file in (place.rglob("*.py") if place.is_dir() else [place])]
    needed = {name for file in files for name in imported(file)} - NOT_IN_JOBS
    assert needed - pins(environment).keys() == set()


@pytest.mark.parametrize("environment", CODE)
def test_an_environment_pins_what_the_lock_pins(environment: str) -> None:
    locked: dict[str, set[str]] = {}
    for file in ("requirements.lock", "requirements-torch.txt"):
        for name, version in re.findall(r"^([\w-]+)==([^\s;]+)", (REPOSITORY / file).read_text(), re.MULTILINE):
            locked.setdefault(name, set()).add(version)
    assert {name: version for name, version in pins(environment).items() if version not in locked.get(name, ())} == {}


def test_every_rule_that_runs_a_program_names_its_environment() -> None:
    for file in (REPOSITORY / "rules").glob("*.smk"):
        text = file.read_text()
        assert text.count("    shell:") == text.count("    conda:"), file.name
