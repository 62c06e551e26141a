"""What the workflow writes before any job: the platform as resolved, job files, plans and honest markers."""

from __future__ import annotations

import hashlib
import json
import os
import socket
from pathlib import Path
from typing import Any

import yaml

from rules.plan_files import Workflow
from rules.scenarios import PlannedPeer, PlannedPlacement, PlannedScenario
from rules.table_names import SHARED_TABLES
from treespec.errors import OutputError


def write_plan(workflow: Workflow) -> None:
    """Job files and plans, rewritten only where they changed; markers that no longer hold are taken away."""
    platform = _yaml_text(workflow.platform.model_dump(mode="json"))
    try:
        _write_if_changed(Path(workflow.platform_file), platform)
        workflow.cluster.retire_markers()
        for experiment, placements in workflow.sweeps.items():
            for placement in placements:
                text = _yaml_text(placement.job.model_dump(mode="json"))
                _write_if_changed(workflow.results / "jobs" / f"{placement.name}.yaml", text)
                for marked in placement.jobs:
                    _retire_marker(workflow, marked)
            rows = [
                _plan_row(placement, scenario)
                for placement in placements
                for job in placement.jobs
                for scenario in job.scenarios
            ]
            plan = {"table": workflow.tables[experiment][0], "scenarios": rows}
            _write_if_changed(Path(workflow.plan_file(experiment)), json.dumps(plan, indent=1) + "\n")
        _remove_what_others_planned(workflow)
        _write_if_changed(Path(workflow.records_state), _state_of(workflow.results / "raw"))
    except OSError as error:
        raise OutputError(
            "results folder cannot be written",
            where=str(error.filename or workflow.results),
            received=error.strerror,
            fix="set results_dir in config/config.yaml to a folder you may write to",
        ) from error


def _remove_what_others_planned(workflow: Workflow) -> None:
    """Plans and tables of experiments that are no longer there: claims and report would take them for this plan's.

    Their records stay.
    """
    tables = {*SHARED_TABLES, *(name for names in workflow.tables.values() for name in names)}
    own = {Path(workflow.plan_file(experiment)) for experiment in workflow.sweeps}
    own |= {workflow.results / "csv" / f"{name}.csv" for name in tables}
    made = {*(workflow.results / "plan").glob("*.json"), *(workflow.results / "csv").glob("*.csv")}
    for path in made - own:
        path.unlink(missing_ok=True)


def _state_of(raw_dir: Path) -> str:
    """A digest of names, sizes and times: a record that is copied or put back may be older than the one before."""
    paths = sorted(path for folder in (raw_dir, raw_dir / "superseded") for path in folder.glob("*.json*"))
    states = ((path.relative_to(raw_dir), path.stat()) for path in paths if path.exists())
    told = "".join(f"{name} {state.st_size} {state.st_mtime_ns}\n" for name, state in states)
    return hashlib.sha256(told.encode()).hexdigest() + "\n"


def _yaml_text(data: object) -> str:
    """As yaml.safe_dump; by libyaml where PyYAML has it, which is faster and writes the same."""
    return str(yaml.dump(data, Dumper=getattr(yaml, "CSafeDumper", yaml.SafeDumper), sort_keys=False))


def _plan_row(placement: PlannedPlacement, scenario: PlannedScenario) -> dict[str, Any]:
    config = scenario.config.model_dump(mode="json", exclude={"mode"})
    models = placement.job.placement
    return {
        "scenario": config.pop("name"),
        "experiment": placement.experiment,
        "placement": placement.name,
        "purpose": placement.purpose,
        "size": scenario.point.size,
        "prompt_set": scenario.point.prompts,
        "mode": scenario.mode,
        "mode_name": scenario.mode_name,
        "settings": dict(scenario.settings),
        "batch_size": config.pop("max_requests_per_batch"),
        "fingerprint": scenario.fingerprint,
        "target": models.target.name,
        "draft": models.drafts[0].name if scenario.config.draft_models else None,
        "quantisation": models.target.quantisation.label if models.target.quantisation else None,
        "offload": models.offload,
        "device": models.device,
        "dtype": models.dtype,
        **config,
    }


def _retire_marker(workflow: Workflow, job: PlannedPlacement | PlannedPeer) -> None:
    """Remove a marker that lies: records may have been superseded by another configuration, or deleted by hand."""
    marker = Path(workflow.marker(job))
    if marker.exists() and not all(_is_complete(workflow.results / "raw", item) for item in job.scenarios):
        marker.unlink(missing_ok=True)


def _is_complete(raw_dir: Path, scenario: PlannedScenario) -> bool:
    try:
        meta = json.loads((raw_dir / f"{scenario.config.name}.meta.json").read_text(encoding="utf-8"))
        rows = (raw_dir / f"{scenario.config.name}.jsonl").read_bytes()
    except (OSError, ValueError):
        return False
    expected = {"status": "ok", "fingerprint": scenario.fingerprint, "num_rows": rows.count(b"\n")}
    if not isinstance(meta, dict) or not expected.items() <= meta.items():
        return False
    # As the engine and the parser see it; older records have no digest.
    return "rows_sha256" not in meta or meta["rows_sha256"] == hashlib.sha256(rows).hexdigest()


def _write_if_changed(path: Path, text: str) -> None:
    """Write atomically; an unchanged file keeps its modification time, so that nothing downstream runs again."""
    if path.is_file() and path.read_text(encoding="utf-8") == text:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{socket.gethostname()}.{os.getpid()}.tmp")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)
