"""Run configuration: one placement (what is fixed when a process starts) and the scenarios it serves."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any, Literal, Self

import yaml
from pydantic import Field, ValidationError, model_validator

from treespec.config.drafting import Drafting, SsmDrafting
from treespec.config.models import ModelRef
from treespec.config.sampling import Sampling
from treespec.config.strict import StrictModel, describe_validation_error
from treespec.errors import ConfigError

NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9_.-]*$"
MAX_TREE_NODES = 1024
UNFILLED_BATCH = "fewer prompts than the batch size: no batch would ever be full"
FILL_BATCH = "more prompts, a smaller batch size, or batch_composition: repeated"

# Parts of fewer tokens read the weights again for nothing. CPU: measured (docs/benchmarks.md). CUDA: an A10G does about
# this many products of half precision per weight it can read (its published rates); not measured.
MICRO_BATCH_TOKENS = {"cpu": 16, "cuda": 96}


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
    layer_split: tuple[int, ...] | None = Field(None, description="layers of each pipeline stage; null: even")
    draft_placement: Literal["driver", "own_ranks", "replicated"] = Field(
        "driver",
        description="where draft models live: all on the rank that decides, each on a rank of its own, or a replica "
        "on every rank with the requests of a batch divided among them",
    )
    micro_batch_tokens: int | None = Field(
        None,
        ge=1,
        description="a pipeline's pass is split over its stages only into parts of at least so many tokens; null: what "
        "pays on the device",
    )
    rank_timeout_s: float = Field(45.0, gt=0, description="a rank that waits longer for the others gives up")
    load_timeout_s: float = Field(1800.0, gt=0, description="the same until all ranks have started and loaded")
    offload: Literal["host", "disk"] | None = Field(
        None, description="where the target's weights are streamed from that do not fit offload_reserve_mib"
    )
    offload_reserve_mib: float | None = Field(
        None,
        gt=0,
        allow_inf_nan=False,
        description="device memory per rank for the target's weights, resident ones and those under way together",
    )
    converted_models: Path = Field(
        Path("converted"),
        description="folder for checkpoints made when loading: inflated or quantised models streamed from disk",
    )
    plugins: tuple[Path, ...] = Field((), description="Python files with DRAFTERS or VERIFIERS of your own")
    measure_costs: bool = Field(
        default=False,
        description="measure what passes cost before serving and put it into the records, as automatic trees do",
    )

    @property
    def min_part_tokens(self) -> int:
        """Tokens of a micro-batch that is worth its pass over the weights."""
        return self.micro_batch_tokens or MICRO_BATCH_TOKENS[self.device]

    @property
    def num_ranks(self) -> int:
        """Processes that serve the target together."""
        return self.tensor_parallel_degree * self.pipeline_parallel_degree

    @model_validator(mode="after")
    def _offloading_has_a_budget(self) -> Self:
        if (self.offload is None) != (self.offload_reserve_mib is None):
            raise ValueError(
                f"offload {self.offload!r} with offload_reserve_mib {self.offload_reserve_mib}; "
                "allowed: both, or neither"
            )
        return self

    @model_validator(mode="after")
    def _every_stage_has_layers(self) -> Self:
        split = self.layer_split
        if split is not None and (len(split) != self.pipeline_parallel_degree or min(split) < 1):
            raise ValueError(
                f"layer_split {list(split)} does not fit pipeline_parallel_degree {self.pipeline_parallel_degree}; "
                "allowed: a positive number for every stage"
            )
        return self

    @model_validator(mode="after")
    def _every_draft_has_a_rank(self) -> Self:
        if self.draft_placement == "own_ranks" and len(self.drafts) > self.num_ranks:
            raise ValueError(
                f"draft_placement 'own_ranks' with {len(self.drafts)} draft models on {self.num_ranks} ranks; "
                "allowed: at most one draft model per rank"
            )
        return self


class Scenario(StrictModel):
    """One measured setting: a mode, a batch size, prompts and a length. One record per scenario."""

    name: str = Field(pattern=NAME_PATTERN)
    mode: Literal["incremental", "sequence", "tree"]
    expansion: tuple[int, ...] = Field(
        (), description="children per leaf at each draft step: () incremental, all ones a sequence, else a tree"
    )
    drafters: tuple[Drafting, ...] = Field(
        (), description="who drafts; expansion alone is short for one draft model that grows it by top-k"
    )
    verifier: str = Field("auto", description="auto: greedy at temperature 0, else sampler_match")
    tree_layout: Literal["tree", "sequences"] = Field(
        "tree",
        description="how the target verifies a tree: as one row with a tree mask, or every root-to-leaf path as a row "
        "of its own (sequence-based parallel decoding, section 6.5), which computes shared nodes once per path",
    )
    sampling: Sampling = Field(Sampling(), description="how tokens are chosen; greedy by default")
    prompts: Path = Field(description="JSON list or JSON lines of strings or objects (docs/prompts.md)")
    num_prompts: int | None = Field(None, ge=1, description="take the first so many; null: all")
    batch_composition: Literal["mixed", "repeated"] = Field(
        "mixed",
        description="repeated: every prompt once per place in the batch, as in the artifact: batches of equal requests",
    )
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
        if self.expansion and self.drafters:
            raise ValueError("expansion is short for one drafter; allowed: either expansion or drafters")
        if self.shape != self.mode:
            raise ValueError(
                f"mode {self.mode!r} does not fit {self._described_drafting}, which is {self.shape}; allowed: "
                "incremental without drafting, sequence for one drafter of chains, tree for everything else"
            )
        self._require_layout_of_something()
        if self.max_tokens_per_batch < self.max_requests_per_batch:
            raise ValueError(
                f"max_tokens_per_batch {self.max_tokens_per_batch} does not let a full batch decode, "
                f"allowed: at least max_requests_per_batch = {self.max_requests_per_batch}"
            )
        used = [model for drafter in self.drafting for model in drafter.draft_models]
        if doubled := sorted(model for model, count in Counter(used).items() if count > 1):
            raise ValueError(f"a draft model serves one drafter of a scenario, received twice: model {doubled[0]}")
        if any(not stop for stop in self.stop_strings):
            raise ValueError("stop_strings must not hold an empty string")
        return self

    def _require_layout_of_something(self) -> None:
        if self.tree_layout == "tree":
            return
        if not self.drafting:
            raise ValueError("tree_layout 'sequences' with nothing drafted; allowed: 'tree' in mode incremental")
        if any(isinstance(drafter, SsmDrafting) and drafter.tree == "auto" for drafter in self.drafting):
            raise ValueError(
                "tree_layout 'sequences' with tree 'auto', which chooses by the cost of passes over trees; "
                "allowed: tree_layout 'tree', or another tree"
            )

    @property
    def drafting(self) -> tuple[Drafting, ...]:
        """Who drafts, the short form spelled out; empty: incremental decoding."""
        return self.drafters or ((SsmDrafting(expansion=self.expansion),) if self.expansion else ())

    @property
    def _described_drafting(self) -> str:
        kinds = [drafter.kind for drafter in self.drafters]
        return f"drafters {kinds}" if kinds else f"expansion {list(self.expansion)}"

    @property
    def shape(self) -> str:
        """The mode that this way of drafting is."""
        if not self.drafting:
            return "incremental"
        return "sequence" if len(self.drafting) == 1 and self.drafting[0].is_chain else "tree"

    @property
    def num_prompts_needed(self) -> int:
        """Fewest prompts that fill a batch: with fewer, fewer requests would run together than the record says."""
        return 1 if self.batch_composition == "repeated" else self.max_requests_per_batch

    @property
    def num_tree_nodes(self) -> int:
        """Most nodes of one tree, root included."""
        return 1 + sum(drafter.max_nodes for drafter in self.drafting)

    @property
    def num_target_slots(self) -> int:
        """Most speculative slots that the target needs per request: nodes of a tree, or tokens of all its paths."""
        if self.tree_layout == "tree":
            return self.num_tree_nodes
        return sum(drafter.max_path_tokens for drafter in self.drafting)

    @property
    def num_draft_slots(self) -> int:
        """Most speculative slots that a draft model needs per request."""
        return max((drafter.max_slots for drafter in self.drafting if isinstance(drafter, SsmDrafting)), default=0)

    @property
    def draft_models(self) -> set[int]:
        """Which of the placement's drafts it uses."""
        return {model for drafter in self.drafting for model in drafter.draft_models}


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
            if scenario.draft_models and not placement.drafts:
                raise ValueError(f"{where} speculates but placement {placement.name!r} names no draft model")
            if absent := [model for model in scenario.draft_models if model >= len(placement.drafts)]:
                raise ValueError(
                    f"{where} drafts with model {absent[0]} of placement {placement.name!r}, "
                    f"allowed: 0 to {len(placement.drafts) - 1}"
                )
            num_slots = max(scenario.num_target_slots, scenario.num_draft_slots)
            if num_slots > placement.max_tree_nodes:
                nodes = "nodes" if scenario.tree_layout == "tree" else "tokens on all their paths together"
                raise ValueError(
                    f"{where}: its trees can have {num_slots} {nodes}, "
                    f"allowed: max_tree_nodes = {placement.max_tree_nodes}"
                )
            if scenario.max_new_tokens >= placement.max_sequence_length:
                raise ValueError(
                    f"{where}: max_new_tokens {scenario.max_new_tokens} leaves no room for a prompt, "
                    f"allowed: below max_sequence_length = {placement.max_sequence_length}"
                )
            if scenario.num_prompts is not None and scenario.num_prompts < scenario.num_prompts_needed:
                raise ValueError(
                    f"{where}: {UNFILLED_BATCH}; received: num_prompts {scenario.num_prompts} for "
                    f"max_requests_per_batch {scenario.max_requests_per_batch}; fix: {FILL_BATCH}"
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
