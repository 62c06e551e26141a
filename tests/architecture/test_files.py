"""What no tracked file may hold, and what the house must have."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
MAX_LINES = 400
MAX_MODEL_BYTES = 24 * 1000 * 1000
# Spelt in two parts, so that this file does not hold them itself.
MACHINE_PATHS = re.compile(r"(^|[^A-Za-z0-9_.])/(" + "|".join(("wo" + "rk", "ro" + "ot", "fa" + "rm")) + r")/")
UNFINISHED = re.compile("|".join(("NotImplemented" + "Error", "TO" + "DO", "FIX" + "ME", "X" + "XX")))
SYS_PATH = re.compile(r"sys" + r"\.path\b")


def tracked(*patterns: str) -> list[Path]:
    """Files of the repository: tracked ones and new ones that git does not ignore."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "--", *patterns]
    done = subprocess.run(command, cwd=REPOSITORY, text=True, capture_output=True, check=True)
    return [path for name in done.stdout.splitlines() if (path := REPOSITORY / name).is_file()]


def holding(pattern: re.Pattern[str], files: list[Path]) -> list[str]:
    """``file:line`` of every line that matches."""
    found = []
    for path in files:
        try:
            lines = path.read_text(encoding="utf-8").splitlines()
        except UnicodeDecodeError:
            continue
        found += [f"{path.relative_to(REPOSITORY)}:{i}" for i, line in enumerate(lines, 1) if pattern.search(line)]
    return found


def test_no_paths_of_one_machine() -> None:
    assert holding(MACHINE_PATHS, tracked()) == []


def test_nothing_is_left_unfinished() -> None:
    assert holding(UNFINISHED, tracked("*.py", "*.smk", "Snakefile")) == []


def test_no_edits_of_the_import_path() -> None:
    assert holding(SYS_PATH, tracked("*.py", "*.smk", "Snakefile")) == []


def test_files_stay_readable() -> None:
    crowded = {
        str(path.relative_to(REPOSITORY)): count
        for path in tracked("*.py", "*.smk")
        if (count := len(path.read_text(encoding="utf-8").splitlines())) > MAX_LINES
    }
    assert crowded == {}


def test_embedded_models_stay_small() -> None:
    assert sum(path.stat().st_size for path in tracked("models")) <= MAX_MODEL_BYTES


def test_licence_is_named_and_whole() -> None:
    text = (REPOSITORY / "LICENSE").read_text()
    assert "Apache License" in text
    assert "END OF TERMS AND CONDITIONS" in text
    assert "license: Apache-2.0" in (REPOSITORY / "CITATION.cff").read_text()


@pytest.mark.parametrize(
    "name", ["Makefile", "requirements.in", "requirements.lock", "requirements-torch.txt", "pyproject.toml"]
)
def test_no_names_of_package_hosts(name: str) -> None:
    assert not re.search(r"https?://|file://+[a-z]", (REPOSITORY / name).read_text())
