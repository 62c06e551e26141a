"""What the workflow reads before any job, and what the rules need to know of it: where things lie, how jobs start."""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rules.cluster_plan import PlannedCluster
from rules.launching import Start
from rules.platforms import CONFIG_DIR, load_platform, platform_file, read_yaml
from rules.roles import prompts_of, roles_of
from rules.scenarios import PlannedPeer, PlannedPlacement, plan_sweep
from rules.settings import BasicTest, Platform, SizeRoles, WorkflowConfig, validated
from rules.sweeps import Sweep
from rules.table_names import refuse_doubled_tables, tables_of
from treespec.errors import ConfigError

CHECKSUMS = "SHA256SUMS"


@dataclass(frozen=True)
class Workflow:
    """Everything the rules need to know: where results go, what is planned, what the basic test takes."""

    platform_name: str
    platform: Platform
    results: Path
    sweeps: Mapping[str, tuple[PlannedPlacement, ...]]
    tables: Mapping[str, tuple[str, ...]]
    """By experiment, the names of the tables that hold nothing else, the long one first."""
    budgets_minutes: Mapping[str, float]
    """By experiment, what it may take on the laptop platform."""
    basic_test_sizes: tuple[str, ...]
    basic_test: SizeRoles
    basic_test_streamed: SizeRoles
    """Of the part with offloading."""
    basic_test_prompts: Path

    @property
    def platform_file(self) -> str:
        """The platform with its arguments filled in."""
        return f"{self.results}/platform.yaml"

    @property
    def records_state(self) -> str:
        """Another text whenever a record is another one."""
        return f"{self.results}/plan/records_state"

    @property
    def cluster(self) -> PlannedCluster:
        """The hosts that jobs run on, where they do not run on this machine."""
        return PlannedCluster(self.platform, self.results)

    def launch_words(self, placement: str) -> tuple[str, ...]:
        """The command that starts a placement, up to its options."""
        return self.platform.launcher.words(self._start(self._num_ranks(placement)))

    def launch_resource(self, placement: str, resource: str) -> object:
        """What a scheduler has to be asked for to start it; None where there is nothing to ask for."""
        return self.platform.launcher.resources(self._start(self._num_ranks(placement))).get(resource)

    @property
    def basic_test_degrees(self) -> tuple[int, int]:
        """Tensor and pipeline degree of the basic test's ranks: every place of all nodes, or two by two here."""
        platform = self.platform
        return (platform.ranks_on_a_node, platform.num_nodes) if platform.launcher.is_remote else (2, 2)

    @property
    def basic_test_launch_words(self) -> tuple[str, ...]:
        """The command that starts the basic test's ranks, up to its options."""
        return self.platform.launcher.words(self._start(math.prod(self.basic_test_degrees)))

    def basic_test_resource(self, resource: str) -> object:
        """As ``launch_resource``."""
        return self.platform.launcher.resources(self._start(math.prod(self.basic_test_degrees))).get(resource)

    def _num_ranks(self, placement: str) -> int:
        (job,) = (job.job for sweep in self.sweeps.values() for job in sweep if job.name == placement)
        return job.placement.num_ranks

    def _start(self, num_ranks: int) -> Start:
        platform = self.platform
        return Start(num_ranks, platform.ranks_on_a_node, self.cluster.file, platform.device == "cuda")

    def sizes(self) -> list[str]:
        """The platform's sizes that the plan and the basic test use."""
        planned = (job.role for sweep in self.sweeps.values() for job in sweep)
        return list(dict.fromkeys((*self.basic_test_sizes, *planned)))

    def scenario_names(self, job: str) -> list[str]:
        """The scenarios that a placement, or a peer beside it, serves."""
        return [scenario.config.name for scenario in self._jobs[job].scenarios]

    def budget_minutes(self, placement: str) -> float:
        """What the experiment of a placement may take as a whole on the laptop platform."""
        (experiment,) = (name for name, sweep in self.sweeps.items() for job in sweep if job.name == placement)
        return self.budgets_minutes[experiment]

    def marker(self, job: PlannedPlacement | PlannedPeer) -> str:
        """The file that says that every record of a placement or peer, as configured now, is there."""
        return f"{self.results}/ok/{job.name}.{job.fingerprint}"

    def marker_named(self, job: str) -> str:
        """The same by name."""
        return self.marker(self._jobs[job])

    def markers(self, experiment: str) -> list[str]:
        """The markers that say that an experiment, as configured now, is complete."""
        return [self.marker(job) for placement in self.sweeps[experiment] for job in placement.jobs]

    def missing_markers(self, experiment: str) -> list[str]:
        """Those of them that are not there: a marker that is there counts, whatever else a call makes anew."""
        return [marker for marker in self.markers(experiment) if not Path(marker).exists()]

    @property
    def _jobs(self) -> dict[str, PlannedPlacement | PlannedPeer]:
        return {job.name: job for sweep in self.sweeps.values() for placement in sweep for job in placement.jobs}

    def plan_file(self, experiment: str) -> str:
        """The list of the records an experiment is to leave."""
        return f"{self.results}/plan/{experiment}.json"

    def data_files(self) -> list[str]:
        """Weights and prompts that the plan reads."""
        weights = {str(path) for folder in self.model_folders() for path in Path(folder).glob("*.safetensors")}
        return sorted(weights | {*self.prompt_files()})

    def checksum_files(self) -> list[str]:
        """The lists of checksums that lie beside the models and prompts in use, where there are any."""
        folders = {*map(Path, self.model_folders()), *(Path(path).parent for path in self.prompt_files())}
        return sorted(str(path) for folder in folders if (path := folder / CHECKSUMS).is_file())

    def job_files(self) -> list[str]:
        """Of all placements."""
        return [str(self.results / "jobs" / f"{job.name}.yaml") for jobs in self.sweeps.values() for job in jobs]

    def plugin_files(self) -> list[str]:
        """The drafters and verifiers of one's own that experiments name."""
        jobs = [placement.job.placement for placements in self.sweeps.values() for placement in placements]
        return sorted({str(path) for job in jobs for path in job.plugins})

    def model_folders(self) -> list[str]:
        """The models that the plan and the basic test use."""
        jobs = [placement.job.placement for placements in self.sweeps.values() for placement in placements]
        models = [model for job in jobs for model in (job.target, *job.drafts)]
        tested = [
            model for roles in (self.basic_test, self.basic_test_streamed) for model in (roles.target, *roles.drafts)
        ]
        return sorted({str(model.path) for model in (*models, *tested)})

    def prompt_files(self) -> list[str]:
        """The prompts that the plan and the basic test use."""
        placements = [placement for sweep in self.sweeps.values() for placement in sweep]
        planned = {str(scenario.config.prompts) for placement in placements for scenario in placement.scenarios}
        return sorted(planned | {str(self.basic_test_prompts)})


def prefer_own_programs() -> None:
    """Let rules find `python` and `treespec` in the environment Snakemake runs in, whether or not it is activated.

    Changes PATH of this process and so of every job; the environment that a profile activates for a job goes before it.
    """
    os.environ["PATH"] = os.pathsep.join((str(Path(sys.executable).parent), os.environ.get("PATH", "")))


def plan_workflow(config: Mapping[str, Any], experiments: Iterable[str] | None = None) -> Workflow:
    """Read and validate the configuration and plan these experiments, or all; raises TreespecError, writes nothing."""
    own = {key: config[key] for key in config.keys() & WorkflowConfig.model_fields}
    settings = validated(WorkflowConfig, own, str(CONFIG_DIR / "config.yaml"))
    path = platform_file(settings.platform)
    platform = load_platform(settings.platform, {key: config[key] for key in config.keys() - own.keys()})
    where, results = str(path), settings.results_dir / path.stem
    basic_test, published = _read_experiments()
    _refuse_unknown(platform, basic_test, published, where)
    sweeps = {
        name: plan_sweep(name, published[name], platform, where, results / "converted")
        for name in (published if experiments is None else experiments)
    }
    tables = {name: tables_of(published[name], placements) for name, placements in sweeps.items()}
    refuse_doubled_tables(tables, str(CONFIG_DIR / "experiments"))
    _refuse_doubled_names(sweeps, where)
    sizes = (basic_test.size, basic_test.streamed_size)
    basic_test_sizes = tuple(size if size in platform.sizes else basic_test.size for size in sizes)
    roles, streamed = (roles_of(size, platform, f"{where}, for the basic test") for size in basic_test_sizes)
    return Workflow(
        platform_name=path.stem,
        platform=platform,
        results=results,
        sweeps=sweeps,
        tables=tables,
        budgets_minutes={"basic_test": basic_test.budget_minutes}
        | {name: sweep.budget_minutes for name, sweep in published.items()},
        basic_test_sizes=basic_test_sizes,
        basic_test=roles,
        basic_test_streamed=streamed,
        basic_test_prompts=prompts_of(basic_test.prompts, platform, where),
    )


def _read_experiments() -> tuple[BasicTest, dict[str, Sweep]]:
    """The basic test, and every sweep in config/experiments by the name of its file."""
    folder = CONFIG_DIR / "experiments"
    files = {path.stem: path for path in sorted(folder.glob("*.yaml"))}
    basic_test = files.pop("basic_test", folder / "basic_test.yaml")
    return (
        validated(BasicTest, read_yaml(basic_test), str(basic_test)),
        {name: validated(Sweep, read_yaml(path), str(path)) for name, path in files.items()},
    )


def _refuse_unknown(platform: Platform, basic_test: BasicTest, sweeps: Mapping[str, Sweep], where: str) -> None:
    """A name in the platform that nothing asks for is a mistake in writing it."""
    roles = {sweep.roles.get(size, size) for sweep in sweeps.values() for size in sweep.sizes}
    replaced = {role for changes in platform.overrides.values() for role in (changes.roles or {}).values()}
    known_sizes = roles | replaced | {basic_test.size, basic_test.streamed_size}
    for what, given, known in (
        ("overrides of an unknown experiment", platform.overrides, sweeps.keys()),
        ("a size that no experiment has", platform.sizes, known_sizes),
    ):
        if unknown := sorted(given.keys() - known):
            raise ConfigError(what, where=where, received=unknown, allowed=sorted(known))


def _refuse_doubled_names(sweeps: Mapping[str, tuple[PlannedPlacement, ...]], where: str) -> None:
    """All records of a platform lie in one folder, under the names of their scenarios."""
    experiments: dict[str, str] = {}
    for experiment, placements in sweeps.items():
        for name in (item.config.name for placement in placements for job in placement.jobs for item in job.scenarios):
            if name in experiments:
                raise ConfigError(
                    "two scenarios of one name",
                    where=f"{where}, experiments {experiments[name]} and {experiment}",
                    received=name,
                    fix="give them other prefixes, or name forms that tell more",
                )
            experiments[name] = experiment
