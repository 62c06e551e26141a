"""Check the embedded models and prompts against their checksums, or make them anew from the standard library's sources.

python download_models.py                       # verify models/embedded, exit status 1 if anything differs
python download_models.py --remake llama        # train the pair again (about an hour on two cores)
"""

from __future__ import annotations

import argparse
import hashlib
import subprocess
import sys
from pathlib import Path

CHECKSUMS = "SHA256SUMS"


def main() -> int:
    """Parse the command line and act."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models-dir", type=Path, default=Path("models/embedded"), help="folder of the model families")
    parser.add_argument("--prompts-dir", type=Path, default=Path("prompts"), help="folder of the held-out prompts")
    parser.add_argument("--output", type=Path, help="write the verified checksums to this file as well")
    parser.add_argument("--remake", choices=["llama", "opt"], help="train this family instead of verifying")
    parser.add_argument("--work-dir", type=Path, default=Path("build/tuning"), help="finished training phases are kept")
    args = parser.parse_args()
    if args.remake:
        return _remake(args.remake, args.models_dir, args.work_dir)
    return _verify(args.models_dir, args.prompts_dir, args.output)


def _verify(models_dir: Path, prompts_dir: Path, output: Path | None) -> int:
    lists = sorted(path for folder in (models_dir, prompts_dir) for path in folder.rglob(CHECKSUMS))
    if not lists:
        print(f"error: no embedded models; where: {models_dir}; fix: restore the folder with git", file=sys.stderr)
        return 1
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


def _problem(path: Path, expected: str) -> str | None:
    if not path.exists():
        return "missing"
    return None if hashlib.sha256(path.read_bytes()).hexdigest() == expected else "differs"


def _remake(family: str, models_dir: Path, work_dir: Path) -> int:
    command = [sys.executable, "-m", "treespec.tuning", "--family", family, "--work-dir", str(work_dir)]
    return subprocess.run([*command, "--publish", str(models_dir)], check=False).returncode


if __name__ == "__main__":
    raise SystemExit(main())
