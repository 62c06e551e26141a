"""Command line of the embedded models' training."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path


def main() -> int:
    """Parse the command line and train."""
    parser = argparse.ArgumentParser(prog="python -m treespec.tuning", description=__doc__)
    parser.add_argument("--family", choices=["llama", "opt"], action="append", required=True)
    parser.add_argument("--work-dir", type=Path, required=True, help="phases are kept here; a rerun goes on")
    parser.add_argument("--publish", type=Path, help="write the trained pair to this folder of models")
    parser.add_argument("--prompts", type=Path, default=Path("prompts"), help="folder of the held-out prompts")
    args = parser.parse_args()
    # Spinning OpenMP threads ruin throughput on a shared machine; must be set before torch starts them.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    from treespec.tuning.embedded import PairTraining

    for family in args.family:
        training = PairTraining(family, args.work_dir, lambda line: print(line, file=sys.stderr, flush=True))
        training.run()
        if args.publish:
            training.publish(args.publish, args.prompts)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
