"""The wheel that hosts install: whole, and saying which commit it was built from."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

ENGINE = Path(__file__).parents[1]


def test_a_wheel_says_which_commit_it_was_built_from(tmp_path: Path) -> None:
    words = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(tmp_path)]
    subprocess.run(words, cwd=ENGINE, check=True, capture_output=True)
    describe = ["git", "describe", "--always", "--dirty", "--abbrev=12"]
    commit = subprocess.run(describe, cwd=ENGINE, text=True, capture_output=True, check=True).stdout
    (wheel,) = tmp_path.iterdir()  # nothing is left beside it
    with zipfile.ZipFile(wheel) as file:
        assert file.read("treespec/commit.txt").decode() == commit
        shipped = {name for name in file.namelist() if name.endswith(".py")}
    assert shipped == {str(path.relative_to(ENGINE)) for path in (ENGINE / "treespec").rglob("*.py")}
    assert not (ENGINE / "treespec" / "commit.txt").exists()
    unpacked = tmp_path / "unpacked"
    with zipfile.ZipFile(wheel) as file:
        file.extractall(unpacked)
    say = "from treespec.metrics.environment import code_commit; print(code_commit())"
    environment = {"PYTHONPATH": str(unpacked), "PATH": ""}
    done = subprocess.run([sys.executable, "-c", say], env=environment, text=True, capture_output=True, check=True)
    assert done.stdout == commit
