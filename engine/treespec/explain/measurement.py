"""A short measurement of a pair: costs of passes, acceptance, and whether the best tree does what is predicted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from treespec.config import RunConfig, Scenario, SsmDrafting
from treespec.errors import ConfigError
from treespec.explain.explanation import Explanation, drag_of, explain_all
from treespec.explain.observed import Observed, RequestCounts
from treespec.explain.prediction import MAX_DEPTH, CountedAcceptance, Outlook, outlook
from treespec.log import say
from treespec.metrics.cost import CostModel
from treespec.metrics.environment import describe_environment
from treespec.serving.build import LoadedPlacement, load_placement
from treespec.serving.calibration import measure_cost
from treespec.serving.passes import ServedPass, interleaved, serve_pass, warm_up

PROBE_NODES = 31  # of the trees that find out acceptance, root not counted
PROBE_BATCH_SIZE = 8
NUM_REPEATS = 2


@dataclass(frozen=True)
class Measured:
    """What was found out about a pair."""

    target: str
    draft: str
    environment: dict[str, Any]
    num_prompts: int
    cost: CostModel
    outlooks: tuple[Outlook, ...]  # by batch size, ascending; corrected for the drag
    drag: float  # of the checks
    checks: tuple[Explanation, ...]  # incremental decoding and the best tree, at the smallest and a larger batch size


def measure_pair(config: RunConfig, prompts: Sequence[Sequence[int]], max_batch_size: int) -> Measured:
    """Measure the placement's target with the draft model that the first speculating scenario uses.

    Sampling is that scenario's; its drafting and verifier are not looked at. Raises TreespecError.
    """
    bench = _Bench.load(config, prompts, max_batch_size)
    say("measuring what passes of the target and of the draft cost")
    cost = measure_cost(bench.loaded.target_runner, bench.loaded.draft_runners[bench.draft], bench.max_nodes)
    probe_batch = min(PROBE_BATCH_SIZE, len(prompts), max_batch_size)
    say(f"measuring acceptance on {len(prompts)} prompts")
    (probe,) = bench.observe([bench.scenario("probe", probe_batch, bench.best(PROBE_NODES, MAX_DEPTH))], 1)
    if not probe.offered_counts.size:
        raise ConfigError(
            "nothing was drafted: the outputs are too short", fix="allow more new tokens, or other prompts"
        )
    acceptance = CountedAcceptance(probe.offered_counts, probe.accepted_counts)
    batch_sizes = range(1, max_batch_size + 1)
    outlooks = outlook(acceptance, cost, bench.max_nodes, len(probe.offered_counts), batch_sizes)
    checks: list[Explanation] = []
    for batch_size in sorted({1, probe_batch}):
        say(f"comparing incremental decoding with the best tree, batch size {batch_size}")
        checks += bench.check(outlooks[batch_size - 1], cost)
    drag = drag_of(checks)
    outlooks = outlook(acceptance, cost, bench.max_nodes, len(probe.offered_counts), batch_sizes, drag)
    loaded = bench.loaded
    description = loaded.drafts[bench.draft].description
    device = torch.cuda.get_device_name() if loaded.placement.device == "cuda" else "cpu"
    environment = describe_environment(torch.__version__, device, torch.get_num_threads())
    return Measured(
        loaded.target.description, description, environment, len(prompts), cost, outlooks, drag, tuple(checks)
    )


@dataclass(frozen=True)
class _Bench:
    """A loaded pair that serves made-up scenarios."""

    loaded: LoadedPlacement
    template: Scenario
    draft: int
    prompts: Sequence[Sequence[int]]

    @classmethod
    def load(cls, config: RunConfig, prompts: Sequence[Sequence[int]], max_batch_size: int) -> _Bench:
        placement = config.placement
        if not placement.drafts:
            raise ConfigError(
                "there is nothing to explain without a draft model", where=f"placement {placement.name!r}"
            )
        if placement.num_ranks > 1:
            raise ConfigError(
                "a pair is measured by one process",
                where=f"placement {placement.name!r}",
                received=f"{placement.num_ranks} ranks",
                fix="run the job, then: treespec explain --records DIR",
            )
        template = template_of(config)
        draft = min(template.draft_models, default=0)
        # Slots for the widest batch: what passes cost is measured up to it.
        widest = template.model_copy(update={"max_requests_per_batch": max_batch_size, "verifier": "auto"})
        if not widest.draft_models:
            widest = widest.model_copy(update={"drafters": (SsmDrafting(expansion=(1,)),), "expansion": ()})
        return cls(load_placement(placement, [widest]), template, draft, prompts)

    @property
    def max_nodes(self) -> int:
        """Of a tree, root included."""
        return self.loaded.placement.max_tree_nodes

    def best(self, num_nodes: int, max_depth: int) -> SsmDrafting:
        """The best trees of this size, learnt while they are served."""
        num_nodes = min(num_nodes, self.max_nodes - 1)
        return SsmDrafting(model=self.draft, tree="best", num_nodes=num_nodes, max_depth=max_depth)

    def scenario(self, name: str, batch_size: int, drafting: SsmDrafting | None) -> Scenario:
        mode = "incremental" if drafting is None else "sequence" if drafting.is_chain else "tree"
        changes = {
            "name": name,
            "mode": mode,
            "expansion": (),
            "drafters": () if drafting is None else (drafting,),
            "verifier": "auto",
            "max_requests_per_batch": batch_size,
            "num_prompts": None,
            "batch_composition": "mixed",
        }
        return self.template.model_copy(update=changes)

    def check(self, outlook: Outlook, cost: CostModel) -> list[Explanation]:
        """Incremental decoding and the best tree, interleaved."""
        scenarios = [
            self.scenario(f"incremental_{outlook.batch_size}", outlook.batch_size, None),
            self.scenario(f"best_{outlook.batch_size}", outlook.batch_size, drafting_of(outlook, self.draft)),
        ]
        observed = self.observe(scenarios, NUM_REPEATS, {self.draft: cost})
        return explain_all(observed, observed)

    def observe(
        self, scenarios: Sequence[Scenario], num_repeats: int, costs: Mapping[int, CostModel] | None = None
    ) -> list[Observed]:
        """Serve the scenarios in turns."""
        scenarios = [scenario.model_copy(update={"num_repeats": num_repeats}) for scenario in scenarios]
        for scenario in scenarios:
            warm_up(self.loaded, scenario, self.prompts)
        served: dict[str, list[ServedPass]] = {scenario.name: [] for scenario in scenarios}
        for _, scenario in interleaved(scenarios):
            served[scenario.name].append(serve_pass(self.loaded, scenario, self.prompts))
        return [self._observed(scenario, served[scenario.name], costs or {}) for scenario in scenarios]

    def _observed(self, scenario: Scenario, passes: Sequence[ServedPass], costs: Mapping[int, CostModel]) -> Observed:
        parts = passes[0].totals.time_us
        return Observed(
            name=scenario.name,
            scenario=scenario.model_dump(mode="json"),
            placement=self.loaded.placement.model_dump(mode="json"),
            machine={},
            requests=tuple(counts for repeat, served in enumerate(passes) for counts in _counts(repeat, served)),
            part_us={part: sum(served.totals.time_us[part] for served in passes) for part in parts},
            num_target_steps=sum(served.totals.num_target_steps for served in passes),
            costs=costs,
        )


def template_of(config: RunConfig) -> Scenario:
    """The scenario whose prompts, lengths and sampling are used: the first with a draft model, else the first."""
    return next((scenario for scenario in config.scenarios if scenario.draft_models), config.scenarios[0])


def drafting_of(outlook: Outlook, draft: int = 0) -> SsmDrafting:
    """The configuration that drafts such trees."""
    if outlook.is_chain:
        return SsmDrafting(model=draft, expansion=(1,) * outlook.depth)
    return SsmDrafting(model=draft, tree="best", num_nodes=outlook.num_nodes - 1, max_depth=outlook.depth)


def _counts(repeat: int, served: ServedPass) -> list[RequestCounts]:
    return [
        RequestCounts(
            repeat=repeat,
            prompt_index=index,
            ms_per_token=profile.latency_us / 1000 / len(request.output_token_ids),
            num_output_tokens=len(request.output_token_ids),
            num_decoding_steps=len(profile.accepted_per_step),
            num_draft_tokens=profile.num_draft_tokens,
            offered=profile.offered,
            accepted=profile.accepted,
        )
        for index, request, profile in zip(served.prompt_indices, served.requests, served.profiles, strict=True)
    ]
