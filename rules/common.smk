"""Reads and checks the configuration, plans the experiments and names the files the rules share."""

import tomllib
from pathlib import Path

import yaml
from snakemake.exceptions import WorkflowError

from benchmarks.peer_identity import PEERS
from rules.plan_files import plan_workflow, prefer_own_programs
from rules.plan_writing import write_plan
from treespec.errors import TreespecError

prefer_own_programs()

try:
    PLANNED = plan_workflow(config)
    write_plan(PLANNED)
except TreespecError as error:
    raise WorkflowError(str(error)) from None

RESULTS = str(PLANNED.results)
LOGS = f"{RESULTS}/logs"
PLANS = [PLANNED.plan_file(experiment) for experiment in PLANNED.sweeps]


wildcard_constraints:
    placement="|".join(placement.name for sweep in PLANNED.sweeps.values() for placement in sweep),
    peer="|".join(PEERS),
    fingerprint="[0-9a-f]{12}",


def markers(experiment):
    """The markers of what an experiment, as configured now, still lacks; what has its marker is no part of a call."""
    return PLANNED.missing_markers(experiment)


def no_cluster(wildcards):
    """Stands where a target needs a cluster that the platform has not."""
    cluster = PLANNED.platform.cluster or "no cluster"
    raise WorkflowError(f"platform {PLANNED.platform_name}: launch {PLANNED.platform.launch}, {cluster}: nothing to do")


def sources(folder):
    """The Python files of a folder: what is made by them is made again when they change."""
    return sorted(str(path) for path in Path(folder).rglob("*.py"))


def audit_report(wildcards):
    """The audit's report if it exists now; asking for it starts nothing."""
    return [path for path in [f"{RESULTS}/audit/losslessness.json"] if Path(path).exists()]


def run_command():
    """How to run what is missing: the target, and what the command line changed of the configuration."""
    defaults = yaml.safe_load(Path("config/config.yaml").read_text(encoding="utf-8"))
    changed = [f"{key}={value}" for key, value in config.items() if defaults.get(key) != value]
    return "snakemake {experiment}_experiments" + "".join([" --config ", " ".join(changed)] if changed else [])


def figures_in_words(wildcards):
    """One line: how many figures are there, and which are older than the last record or not drawn yet."""
    last_record = max((meta.stat().st_mtime for meta in Path(RESULTS, "raw").glob("*.meta.json")), default=0)
    figures = [Path(name) for name in FIGURES if name.endswith(".png")]
    drawn = [figure for figure in figures if figure.exists()]
    old = [figure.stem for figure in drawn if figure.stat().st_mtime < last_record]
    absent = [figure.stem for figure in figures if figure not in drawn]
    told = [f"figures: {len(drawn)} of {len(figures)} drawn, in {RESULTS}/figures"]
    told += [f"older than the records: {', '.join(old)}"] if old else []
    told += [f"not drawn: {', '.join(absent)}"] if absent else []
    return "; ".join(told) + ("; to draw them: snakemake figures" if old or absent else "")
