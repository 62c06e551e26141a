"""The command line: ``treespec run | check | compare | audit | explain | boost | convert | describe``."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from treespec import __version__
from treespec.audit_command import add_audit
from treespec.boost_command import add_boost
from treespec.compare_command import add_compare
from treespec.convert_command import add_convert
from treespec.errors import TreespecError
from treespec.explain_command import add_explain
from treespec.log import say
from treespec.synthesise_command import add_synthesise


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse and run; a user's mistake is one line on stderr and exit status 2."""
    args = _parser().parse_args(arguments)
    # OpenMP threads that spin between operations fight with everything else on the machine; torch reads this once,
    # when it is first imported, so the commands import it below.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        return int(args.command(args))
    except TreespecError as error:
        say(f"error: {error}")
        return 2
    except KeyboardInterrupt:
        say("interrupted; what was finished is kept, the same command goes on")
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="treespec", description="Lossless tree-based speculative inference.")
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    run = commands.add_parser("run", help="serve the scenarios of a job file and write their records")
    run.add_argument("--config", type=Path, required=True, help="job file: a placement and its scenarios")
    run.add_argument("--output-dir", type=Path, required=True, help="folder of the records")
    run.add_argument("--dry-run", action="store_true", help="check the job, say what is missing, serve nothing")
    run.set_defaults(command=_run)
    check = commands.add_parser("check", help="check job files, with drafters, verifiers and prompts; loads no model")
    check.add_argument("jobs", type=Path, nargs="+", metavar="JOB.yaml", help="job files")
    check.set_defaults(command=_check)
    add_compare(commands)
    add_audit(commands)
    add_explain(commands)
    add_boost(commands)
    add_synthesise(commands)
    add_convert(commands)
    describe = commands.add_parser("describe", help="print this machine's devices as JSON")
    describe.add_argument("--output", type=Path, help="write the JSON to this file instead of stdout")
    describe.set_defaults(command=_describe)
    return parser


def _run(args: argparse.Namespace) -> int:
    from treespec.config import load_run_config
    from treespec.metrics.records import RecordFolder
    from treespec.parallel.rendezvous import adopt_rendezvous
    from treespec.serving.exclusion import exclusive_run
    from treespec.serving.job import Job
    from treespec.serving.ranks import check_ranks, launch_local_ranks, run_as_rank

    config = load_run_config(args.config)
    num_ranks = config.placement.num_ranks
    if num_ranks > 1 and (rank := adopt_rendezvous(os.environ)) is not None:
        return 1 if run_as_rank(config, args.output_dir, rank) else 0
    folder = RecordFolder(args.output_dir).folder
    if args.dry_run:
        check_ranks(config.placement)
        missing = [scenario.name for scenario in Job(config, folder).missing()]
        say(f"{len(missing)} of {len(config.scenarios)} scenarios are missing: {', '.join(missing) or 'none'}")
        return 0
    with exclusive_run(folder):
        job = Job(config, folder)
        if num_ranks == 1 or not job.missing():
            failed = job.run()
        else:
            check_ranks(config.placement)
            arguments = ["run", "--config", str(args.config), "--output-dir", str(folder)]
            failed = launch_local_ranks(num_ranks, arguments) and len(job.missing())
    if failed:
        say(f"{failed} scenarios failed; the same command tries them again")
    return 1 if failed else 0


def _check(args: argparse.Namespace) -> int:
    from treespec.config import load_run_config
    from treespec.serving.build import methods_of
    from treespec.serving.prompts import require_prompts

    wrong = 0
    for path in args.jobs:
        try:
            config = load_run_config(path)
            methods_of(config.placement, config.scenarios)
            require_prompts(config.scenarios)
        except TreespecError as error:
            say(f"error: {path}: {error}")
            wrong += 1
    say(f"{len(args.jobs) - wrong} of {len(args.jobs)} jobs can be run as they are written")
    return 2 if wrong else 0


def _describe(args: argparse.Namespace) -> int:
    import json

    from treespec.files import write_atomically
    from treespec.serving.devices import describe_devices

    text = json.dumps(describe_devices(), indent=1) + "\n"
    if args.output is None:
        sys.stdout.write(text)
    else:
        write_atomically(args.output, text)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
