"""The Makefile's set-up: once, only where it must, and with one clear error where it cannot."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.workflow.project import REPOSITORY

SETUP_FILES = ("requirements.lock", "requirements-torch.txt", "engine/pyproject.toml")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with the Makefile and what its set-up depends on, and no .venv."""
    (tmp_path / "engine").mkdir()
    for name in ("Makefile", *SETUP_FILES):
        shutil.copy(REPOSITORY / name, tmp_path / name)
    return tmp_path


def make(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["make", *arguments], cwd=folder, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


def test_no_python_is_one_clear_error(folder: Path) -> None:
    done = make(folder, "test", "PYTHON=/bin/false")
    assert done.returncode != 0
    assert "Python 3.11 or newer is needed; received: PYTHON=/bin/false" in done.stdout
    assert not (folder / ".venv").exists()


def test_a_second_call_sets_up_nothing_until_the_lock_changes(folder: Path) -> None:
    stamp = folder / ".venv/.ready"
    stamp.parent.mkdir()
    stamp.touch()
    for name in SETUP_FILES:
        os.utime(folder / name, (0, 0))
    assert "Nothing to be done" in make(folder, "setup").stdout
    os.utime(folder / "requirements.lock")
    assert "requirements.lock" in make(folder, "--dry-run", "setup").stdout


def test_a_platform_and_targets_are_kept_apart(folder: Path) -> None:
    """Snakemake takes every word after `--config ` for configuration, targets too."""
    commands = make(folder, "--dry-run", "reproduce", "PLATFORM=g5").stdout
    assert "snakemake --config=platform=g5 all" in commands


def test_clean_keeps_what_was_measured(folder: Path) -> None:
    record = folder / "results/laptop/raw/a.meta.json"
    record.parent.mkdir(parents=True)
    record.touch()
    (folder / "build").mkdir()
    make(folder, "clean")
    assert record.exists()
    assert not (folder / "build").exists()


def test_ci_calls_both_test_targets() -> None:
    script = (REPOSITORY / ".ci/run").read_text()
    assert os.access(REPOSITORY / ".ci/run", os.X_OK)
    assert script.index("make test\n") < script.index("make test-all\n")
