"""Run configuration: one placement (what is fixed when a process starts) and the scenarios it serves."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any, Literal, Self

import yaml
from pydantic import Field, ValidationError, model_validator

from treespec.config.strict import StrictModel
from treespec.errors import ConfigError

NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9_.-]*$"
HUB_ID_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9_.-]*/[A-Za-z0-9][A-Za-z0-9_.-]*$"
MAX_TREE_NODES = 1024


class Inflation(StrictModel):
    """A function-preserving enlargement of a checkpoint: it computes the same and costs more."""

    width_factor: Literal[1, 4, 16] = Field(
        1, description="hidden size, heads and FFN size grow by this; powers of four keep the norm factor exact"
    )
    num_layers: int | None = Field(None, ge=1, description="layers after inflation; null keeps the checkpoint's")


class ModelRef(StrictModel):
    """A model in a role: a folder in the Hugging Face layout, possibly inflated in memory."""

    path: Path = Field(description="folder with config.json, safetensors weights and a tokenizer")
    label: str = Field("", description="how records and figures name it; empty: the folder's name")
    hub_id: str | None = Field(
        None, pattern=HUB_ID_PATTERN, description="organisation/name to get it by, should the folder be absent"
    )
    inflation: Inflation | None = None

    @property
    def name(self) -> str:
        """The label, or the folder's name."""
        return self.label or self.path.name


class Placement(StrictModel):
    """Everything fixed when a process starts."""

    name: str = Field(pattern=NAME_PATTERN)
    target: ModelRef
    drafts: tuple[ModelRef, ...] = Field((), description="draft models; scenarios that speculate need one")
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    device: Literal["cpu", "cuda"] = "cpu"
    num_threads: int | None = Field(None, ge=1, description="CPU threads; null: one per core this process may use")
    cache_fraction: float = Field(
        0.25,
        gt=0,
        lt=1,
        description="share of the device's free memory, after the weights, that the KV caches may take",
    )
    max_sequence_length: int = Field(256, ge=2, description="tokens of prompt and output together, per request")
    max_tree_nodes: int = Field(64, ge=1, le=MAX_TREE_NODES, description="speculative slots per request")
    tensor_parallel_degree: int = Field(1, ge=1, description="ranks inside a node that share each layer")
    pipeline_parallel_degree: int = Field(1, ge=1, description="ranks that hold consecutive layers")


class Scenario(StrictModel):
    """One measured setting: a mode, a batch size, prompts and a length. One record per scenario."""

    name: str = Field(pattern=NAME_PATTERN)
    mode: Literal["incremental", "sequence", "tree"]
    expansion: tuple[int, ...] = Field(
        (), description="children per leaf at each draft step: () incremental, all ones a sequence, else a tree"
    )
    prompts: Path = Field(description="JSON list of strings")
    num_prompts: int | None = Field(None, ge=1, description="take the first so many; null: all")
    max_requests_per_batch: int = Field(ge=1)
    max_tokens_per_batch: int = Field(256, ge=1, description="token budget of one iteration; long prompts are chunked")
    max_new_tokens: int = Field(128, ge=1)
    ignore_eos: bool = Field(default=False, description="generate max_new_tokens whatever the text; for benchmarks")
    stop_strings: tuple[str, ...] = Field((), description="output ends before the first of these")
    num_repeats: int = Field(1, ge=1, description="measured passes over the prompts")

    @model_validator(mode="after")
    def _settings_fit_each_other(self) -> Self:
        if any(width < 1 for width in self.expansion):
            raise ValueError(f"expansion must hold positive widths, received {list(self.expansion)}")
        shape = "incremental" if not self.expansion else "sequence" if set(self.expansion) == {1} else "tree"
        if shape != self.mode:
            raise ValueError(
                f"mode {self.mode!r} does not fit expansion {list(self.expansion)}, which is {shape}; allowed: "
                "incremental with [], sequence with all ones, tree with at least one width above 1"
            )
        if self.max_tokens_per_batch < self.max_requests_per_batch:
            raise ValueError(
                f"max_tokens_per_batch {self.max_tokens_per_batch} does not let a full batch decode, "
                f"allowed: at least max_requests_per_batch = {self.max_requests_per_batch}"
            )
        if any(not stop for stop in self.stop_strings):
            raise ValueError("stop_strings must not hold an empty string")
        return self

    @property
    def num_tree_nodes(self) -> int:
        """Nodes of one draft tree, root included."""
        num_nodes, num_leaves = 1, 1
        for width in self.expansion:
            num_leaves *= width
            num_nodes += num_leaves
        return num_nodes


class RunConfig(StrictModel):
    """A job: one placement and its scenarios."""

    placement: Placement
    scenarios: tuple[Scenario, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _scenarios_fit_placement(self) -> Self:
        placement = self.placement
        doubled = [name for name, count in Counter(s.name for s in self.scenarios).items() if count > 1]
        if doubled:
            raise ValueError(f"scenario names must be unique, received twice: {doubled}")
        for scenario in self.scenarios:
            where = f"scenario {scenario.name!r}"
            if scenario.expansion and not placement.drafts:
                raise ValueError(f"{where} speculates but placement {placement.name!r} names no draft model")
            if scenario.num_tree_nodes > placement.max_tree_nodes:
                raise ValueError(
                    f"{where}: expansion {list(scenario.expansion)} makes {scenario.num_tree_nodes} nodes, "
                    f"allowed: max_tree_nodes = {placement.max_tree_nodes}"
                )
            if scenario.max_new_tokens >= placement.max_sequence_length:
                raise ValueError(
                    f"{where}: max_new_tokens {scenario.max_new_tokens} leaves no room for a prompt, "
                    f"allowed: below max_sequence_length = {placement.max_sequence_length}"
                )
        return self


def load_run_config(path: Path) -> RunConfig:
    """Read and validate a job file (YAML or JSON). Raises ConfigError naming the field and what is allowed."""
    try:
        data: Any = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError("job file cannot be read", where=str(path), received=error.strerror) from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError("job file is not valid YAML", where=str(path), received=str(error)) from error
    return validate_run_config(data, where=str(path))


def validate_run_config(data: object, where: str) -> RunConfig:
    """A RunConfig from plain data; ``where`` names its origin in errors."""
    try:
        return RunConfig.model_validate(data)
    except ValidationError as error:
        raise ConfigError(f"configuration refused: {describe_validation_error(error)}", where=where) from error


def describe_validation_error(error: ValidationError) -> str:
    """Every refused field in one line: its place, what is wrong, the value received."""
    lines = []
    items = error.errors(include_url=False)
    refused = [item["loc"] for item in items]
    for item in items:
        # A list whose only entry was refused is told to be too short as well: that is no second mistake.
        inside = (loc for loc in refused if len(loc) > len(item["loc"]) and loc[: len(item["loc"])] == item["loc"])
        if item["type"] == "too_short" and any(inside):
            continue
        place = ".".join(str(part) for part in item["loc"]) or "(top level)"
        message = item["msg"].removeprefix("Value error, ")
        received = "" if isinstance(item["input"], (dict, list, tuple)) else f" (received {item['input']!r})"
        lines.append(f"{place}: {message}{received}")
    return "; ".join(lines)
