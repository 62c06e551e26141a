"""The models and prompts that the repository holds: compared with their checksums, or made anew."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

from treespec.errors import InputFileError

CHECKSUMS = "SHA256SUMS"


def verify(models_dir: Path, prompts_dir: Path, output: Path | None) -> int:
    """Print a line per file; 1 if any is not as shipped. Raises InputFileError for a folder without checksums."""
    lists = [*_lists(models_dir), *_lists(prompts_dir)]
    report, num_bad = [], 0
    for checksums in lists:
        for line in checksums.read_text(encoding="utf-8").splitlines():
            expected, _, name = line.partition("  ")
            problem = _problem(checksums.parent / name, expected)
            num_bad += problem is not None
            report.append(f"{problem or 'ok'}  {expected}  {checksums.parent / name}")
    print("\n".join(report))
    if num_bad:
        print(
            f"error: {num_bad} files of the embedded models are not as shipped; fix: restore them with git",
            file=sys.stderr,
        )
        return 1
    if output is not None:
        output.parent.mkdir(parents=True, exist_ok=True)
        output.write_text("\n".join(report) + "\n", encoding="utf-8")
    return 0


def remake(family: str, models_dir: Path, work_dir: Path) -> int:
    """Train a family and put it in the place of the shipped one."""
    command = [sys.executable, "-m", "treespec.tuning", "--family", family, "--work-dir", str(work_dir)]
    return subprocess.run([*command, "--publish", str(models_dir)], check=False).returncode


def _lists(folder: Path) -> list[Path]:
    found = sorted(folder.rglob(CHECKSUMS))
    if not found:
        raise InputFileError(
            "nothing to compare",
            where=str(folder),
            received=f"no {CHECKSUMS} in it" if folder.is_dir() else "no such folder",
            fix="check the path, or restore the folder with git",
        )
    return found


def _problem(path: Path, expected: str) -> str | None:
    if not path.exists():
        return "missing"
    return None if hashlib.sha256(path.read_bytes()).hexdigest() == expected else "differs"
