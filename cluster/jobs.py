"""The little that launching has to know of a job file: ranks, where the driver sits, models, names of records."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

import yaml

from cluster.errors import ClusterError

RECORD_SUFFIXES = (".jsonl", ".txt", ".out", ".meta.json")  # the meta file last: it commits the record
COMMIT_SUFFIX = ".meta.json"


@dataclass(frozen=True)
class JobFile:
    """A placement and its scenarios, as far as launching goes; the engine validates the whole."""

    path: Path
    placement: str
    tensor_degree: int
    pipeline_degree: int
    scenarios: tuple[str, ...]

    @property
    def num_ranks(self) -> int:
        """Processes that serve the target together."""
        return self.tensor_degree * self.pipeline_degree

    @property
    def driver(self) -> int:
        """The rank that writes records: the first of the last pipeline stage."""
        return (self.pipeline_degree - 1) * self.tensor_degree


def load_job(path: Path, num_ranks: int) -> JobFile:
    """Read a job for so many ranks. Raises ClusterError where it is for another number, or cannot run elsewhere."""
    try:
        data: Any = yaml.safe_load(path.read_text(encoding="utf-8"))
        placement = data["placement"]
        tensor, pipeline = (int(placement.get(f"{axis}_parallel_degree", 1)) for axis in ("tensor", "pipeline"))
        names = tuple(str(scenario["name"]) for scenario in data["scenarios"])
        models = [placement["target"]["path"], *(draft["path"] for draft in placement.get("drafts", []))]
        files = [*models, *(scenario["prompts"] for scenario in data["scenarios"]), *placement.get("plugins", [])]
        job = JobFile(path, str(placement["name"]), tensor, pipeline, names)
    except OSError as error:
        raise ClusterError("job file cannot be read", where=str(path), received=error.strerror) from error
    except (yaml.YAMLError, UnicodeDecodeError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise ClusterError("is not a job file", where=str(path), received=f"{type(error).__name__}: {error}") from error
    if job.num_ranks != num_ranks:
        raise ClusterError(
            "degrees do not give the number of ranks",
            where=str(path),
            received=f"tensor_parallel_degree {tensor} x pipeline_parallel_degree {pipeline}, {num_ranks} ranks",
            allowed=f"{job.num_ranks} ranks",
        )
    if foreign := sorted({str(name) for name in files if PurePath(name).is_absolute() or ".." in PurePath(name).parts}):
        raise ClusterError(
            "names files outside the project, which the hosts do not have",
            where=str(path),
            received=", ".join(foreign),
            allowed="paths relative to the project's folder",
        )
    return job
