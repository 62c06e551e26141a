"""A YAML file as a validated model; whatever is wrong with it is one line."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from cluster.errors import ClusterError


class StrictModel(BaseModel):
    """Frozen; unknown keys are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")


ModelT = TypeVar("ModelT", bound=BaseModel)


def load_yaml(path: Path, model: type[ModelT], example: str) -> ModelT:
    """Read and validate. Raises ClusterError naming every refused field; ``example`` is a file to start from."""
    try:
        data: Any = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ClusterError(
            "cannot be read", where=str(path), received=error.strerror, fix=f"start from {example}"
        ) from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ClusterError("is not valid YAML", where=str(path), received=" ".join(str(error).split())) from error
    try:
        return model.model_validate(data)
    except ValidationError as error:
        raise ClusterError(f"refused: {_described(error)}", where=str(path)) from error


def _described(error: ValidationError) -> str:
    """Every refused field: its place, what is wrong with it, what was received."""
    lines = []
    for item in error.errors(include_url=False):
        place = ".".join(map(str, item["loc"])) or "(top level)"
        received = "" if isinstance(item["input"], (dict, list, tuple)) else f" (received {item['input']!r})"
        lines.append(f"{place}: {item['msg'].removeprefix('Value error, ')}{received}")
    return "; ".join(lines)
