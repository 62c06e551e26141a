"""The scripts at the top, with a Python that has none of the packages: one line says how to come by them."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.models.conftest import REPOSITORY


@pytest.mark.parametrize("script", ["download_models.py", "download_prompts.py", "basic_test.py"])
def test_a_python_without_the_packages_is_told_where_they_are(script: str) -> None:
    command = [sys.executable, "-E", "-S", script]  # neither PYTHONPATH nor installed packages
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: No module named ")
    assert line.endswith(f"; fix: run make setup, then .venv/bin/python {script}")
