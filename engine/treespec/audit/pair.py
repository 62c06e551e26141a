"""The checks that need models, on one pair: what is served, and what each check found."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path

import torch

from treespec.audit.divergence import Cause
from treespec.audit.equality import Equality, compare_greedy, serve
from treespec.audit.production import production_fit
from treespec.audit.proposals import proposals_fit
from treespec.audit.replay import wider_decoder
from treespec.audit.report import AuditRow
from treespec.audit.scenarios import is_drawn, pair_scenarios, way_of
from treespec.audit.statistics import FALSE_ALARMS, Fit
from treespec.config import RunConfig, Sampling, Scenario, validate_run_config
from treespec.errors import ConfigError
from treespec.model.decoder import Decoder
from treespec.model.spec import read_config
from treespec.model.tokenizers.text import TextTokenizer
from treespec.serving.build import LoadedPlacement, load_placement
from treespec.serving.limits import require_prompt_positions
from treespec.serving.plugins import load_methods
from treespec.serving.prompts import encode_prompts

DEFAULT_SAMPLING = Sampling(temperature=0.8, top_k=4)  # few enough tokens that pairs of them come often
SAMPLED_PROMPT = 3  # tokens of a prompt that is served thousands of times


@dataclass(frozen=True)
class PairSettings:
    """What to audit, and how thoroughly."""

    target: Path
    draft: Path
    prompts: Sequence[str]
    prompts_from: str  # for errors
    verifiers: Sequence[str]
    plugins: tuple[Path, ...] = ()
    sampling: Sampling = DEFAULT_SAMPLING
    num_samples: int = 1000
    max_new_tokens: int = 32  # of greedy texts
    dtype: str = "float32"
    device: str = "cpu"
    num_threads: int | None = None


@dataclass(frozen=True)
class AuditedPair:
    """A pair, loaded, and what it is to serve."""

    loaded: LoadedPlacement
    baseline: Scenario
    greedy: tuple[Scenario, ...]
    sampled: tuple[Scenario, ...]
    prompts: Sequence[Sequence[int]]
    num_samples: int

    @classmethod
    def load(cls, settings: PairSettings) -> AuditedPair:
        """Raises TreespecError, before any weight is loaded, for settings that cannot be run."""
        if settings.sampling.is_greedy:
            raise ConfigError(
                "nothing is drawn at this temperature",
                where="treespec audit",
                received="temperature 0",
                allowed="above 0 (greedy decoding is audited besides)",
            )
        for folder in (settings.target, settings.draft):
            read_config(folder)  # a mistyped path is told as such
        prompts = encode_prompts(settings.prompts, TextTokenizer.load(settings.target), settings.prompts_from)
        require_prompt_positions(
            (settings.target, settings.draft), prompts, settings.max_new_tokens, settings.prompts_from
        )
        config = _run_config(settings, max(map(len, prompts)))
        baseline, *others = config.scenarios
        greedy = tuple(scenario for scenario in others if scenario.sampling.is_greedy)
        sampled = tuple(scenario for scenario in others if not scenario.sampling.is_greedy)
        loaded = load_placement(config.placement, config.scenarios)
        return cls(loaded, baseline, greedy, sampled, prompts, settings.num_samples)

    def rows(self) -> Iterator[AuditRow]:
        """Run every check."""
        yield from self._greedy_rows()
        drawn = {way_of(scenario): scenario for scenario in self.sampled if is_drawn(scenario, self.loaded.methods)}
        num_tests = len(self.sampled) + len(drawn)
        short = [prompt[:SAMPLED_PROMPT] for prompt in self.prompts]
        for index, scenario in enumerate(self.sampled):
            fit = production_fit(self.loaded, scenario, short[index % len(short)], self.num_samples)
            yield _fit_row("target's distribution", _subject(scenario), fit, num_tests)
        for index, (way, scenario) in enumerate(drawn.items()):
            fit = self._proposals_fit(scenario, short[index % len(short)])
            yield _fit_row("reported q", way, fit, num_tests)

    def _greedy_rows(self) -> Iterator[AuditRow]:
        placement, device = self.loaded.placement, self.loaded.target.decoder.device

        @cache
        def wider() -> Decoder:
            return wider_decoder(placement.target, getattr(torch, placement.dtype), device)

        expected = serve(self.loaded, self.baseline, self.prompts)
        for scenario in self.greedy:
            equality = compare_greedy(self.loaded, scenario, self.prompts, expected, wider)
            yield _equality_row(_subject(scenario), equality)

    def _proposals_fit(self, scenario: Scenario, prompt: Sequence[int]) -> Fit:
        loaded = self.loaded
        drafter = loaded.drafter(scenario)
        requests = [loaded.request(scenario, request_id, prompt) for request_id in range(self.num_samples)]
        return proposals_fit(drafter, requests, scenario.max_new_tokens, scenario.max_requests_per_batch)


def _run_config(settings: PairSettings, longest_prompt: int) -> RunConfig:
    methods = load_methods(settings.plugins)
    scenarios = pair_scenarios(settings.verifiers, methods, settings.sampling, settings.max_new_tokens)
    placement = {
        "name": "audit",
        "target": {"path": settings.target},
        "drafts": [{"path": settings.draft}],
        "dtype": settings.dtype,
        "device": settings.device,
        "num_threads": settings.num_threads,
        "max_sequence_length": longest_prompt + max(scenario["max_new_tokens"] for scenario in scenarios),
        "plugins": settings.plugins,
    }
    return validate_run_config({"placement": placement, "scenarios": scenarios}, where="treespec audit")


def _equality_row(subject: str, equality: Equality) -> AuditRow:
    found = f"{equality.num_tokens} tokens equal"
    if equality.verdicts:
        causes = [verdict.cause for verdict in equality.verdicts]
        told = ", ".join(f"{causes.count(cause)} {cause.value}" for cause in Cause if cause in causes)
        found = f"{len(causes)} of {equality.num_prompts} outputs differ: {told}"
    return AuditRow(
        check="greedy equality",
        subject=subject,
        found=found,
        allowed="equal, numeric near-ties apart",
        holds=equality.holds,
        details={
            "num_prompts": equality.num_prompts,
            "num_tokens": equality.num_tokens,
            "divergences": [asdict(verdict) for verdict in equality.verdicts],
        },
    )


def _fit_row(check: str, subject: str, fit: Fit, num_tests: int) -> AuditRow:
    found = (
        f"p {fit.p_value:.2g}, TV {fit.total_variation:.4f} (noise floor {fit.noise_floor:.4f}), "
        f"chi-square {fit.chi_square:.0f} of {fit.degrees_of_freedom}"
    )
    if fit.num_impossible:
        found += f", {fit.num_impossible} tokens of probability 0"
    return AuditRow(
        check=check,
        subject=subject,
        found=found,
        allowed=f"p at least {FALSE_ALARMS / num_tests:.1g}",
        holds=fit.holds(num_tests),
        details=asdict(fit) | {"num_tests": num_tests},
    )


def _subject(scenario: Scenario) -> str:
    return f"{scenario.verifier}, {way_of(scenario)}"
