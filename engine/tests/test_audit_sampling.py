"""Production sampling, and what drafters report: right ones pass and wrong ones do not, with the same settings."""

from __future__ import annotations

import pytest
import torch

from engine.tests.decoding import Pair, logits_of
from engine.tests.planted import (
    CrossedParents,
    LikeliestAlways,
    RatioVerifier,
    RawReport,
    RepeatedDraw,
    Replaced,
    SharedNoise,
)
from treespec.audit.controls import TopKAsDrawn
from treespec.audit.production import plain_logits, production_fit
from treespec.audit.proposals import proposals_fit
from treespec.audit.statistics import Fit
from treespec.config import Sampling, Scenario, validate_run_config
from treespec.draft.growth import FixedTopology
from treespec.draft.portfolio import PortfolioDrafter
from treespec.draft.protocol import Drafter, DrafterContext
from treespec.draft.selection import DrawsWithoutReplacement, IndependentDraws, Selection, TopK
from treespec.draft.ssm import SsmDrafter
from treespec.runner import ModelRunner
from treespec.serving.build import LoadedPlacement, load_placement
from treespec.tree import Topology
from treespec.verify import Verifier

SAMPLING = Sampling(temperature=1.2, top_k=4)
NUM_REQUESTS = 500
PROMPT = (17, 60, 33)
NUM_TESTS = 100  # an audit of so many tests must refuse what is wrong and must not refuse what is right
BATCH = 64


VERIFIERS: dict[str, Verifier] = {
    "ratio": RatioVerifier(keeps_target=False),
    "keeps_target": RatioVerifier(keeps_target=True),
    "shared_noise": SharedNoise(),
    "likeliest": LikeliestAlways(),
}
SELECTIONS: dict[str, Selection] = {
    "top_k_as_drawn": TopKAsDrawn(),
    "raw_report": RawReport(),
}


class DrafterOf:
    """A factory of drafters with a selection of the test's own."""

    def __init__(self, selection: Selection) -> None:
        self.contracts = frozenset({selection.contract})
        self._selection = selection

    def __call__(self, context: DrafterContext) -> Drafter:
        return drafter(context.runners[0], self._selection)


def drafter(
    runner: ModelRunner, selection: Selection, source: int = 0, expansion: tuple[int, ...] = (2, 2)
) -> SsmDrafter:
    return SsmDrafter(runner, FixedTopology(Topology.from_expansion(expansion)), selection, source)


def scenario_data(verifier: str, selection: str, expansion: tuple[int, ...] = (2, 2)) -> dict[str, object]:
    own = {"kind": "plugin", "name": selection, "models": [0]}
    ssm = {"kind": "ssm", "expansion": expansion, "selection": selection}
    return {
        "name": "sampled",
        "mode": "sequence" if set(expansion) == {1} else "tree",
        "verifier": verifier,
        "drafters": [own if selection in SELECTIONS else ssm],
        "sampling": SAMPLING,
        "prompts": "",
        "max_requests_per_batch": BATCH,
        "max_new_tokens": 4,
        "ignore_eos": True,
    }


def config_of(pair: Pair, scenario: dict[str, object]) -> dict[str, object]:
    placement = {"name": "audit", "target": {"path": pair.target_folder}, "drafts": [{"path": pair.draft_folder}]}
    return {"placement": placement | {"num_threads": 1, "max_sequence_length": 16}, "scenarios": [scenario]}


@pytest.fixture(scope="module")
def loaded(gqa: Pair) -> LoadedPlacement:
    """The pair, with the mistaken verifiers and drafters among its methods."""
    config = validate_run_config(config_of(gqa, scenario_data("mss", "iid")), where="this test")
    placement = load_placement(config.placement, config.scenarios)
    for name, verifier in VERIFIERS.items():
        placement.methods.verifiers.register(name)(verifier)
    for name, selection in SELECTIONS.items():
        placement.methods.drafters.register(name)(DrafterOf(selection))
    return placement


def fit_of(loaded: LoadedPlacement, verifier: str, selection: str, expansion: tuple[int, ...] = (2, 2)) -> Fit:
    """The production test of one scenario."""
    scenario = Scenario.model_validate(scenario_data(verifier, selection, expansion))
    return production_fit(loaded, scenario, PROMPT, NUM_REQUESTS)


@pytest.mark.parametrize(
    ("verifier", "selection", "expansion"),
    [
        ("sampler_match", "top_k", (2, 2)),
        ("token_rejection", "iid", (1, 1)),
        ("mss", "iid", (2, 2)),
        ("recursive_rejection", "without_replacement", (2, 2)),
        ("block", "iid", (1, 1)),
        ("traversal", "without_replacement", (2, 2)),
        ("ratio", "iid", (2, 2)),
    ],
)
def test_lossless_verifier_passes(
    loaded: LoadedPlacement, verifier: str, selection: str, expansion: tuple[int, ...]
) -> None:
    fit = fit_of(loaded, verifier, selection, expansion)
    assert fit.holds(NUM_TESTS)
    assert fit.degrees_of_freedom > 20
    assert fit.num_draws > 2 * NUM_REQUESTS
    assert fit.total_variation < 2 * fit.noise_floor


@pytest.mark.parametrize(
    ("verifier", "selection"),
    [
        ("keeps_target", "iid"),
        ("shared_noise", "top_k"),
        ("likeliest", "top_k"),
        ("mss", "top_k_as_drawn"),
        ("mss", "raw_report"),
    ],
)
def test_what_is_not_lossless_is_refused(loaded: LoadedPlacement, verifier: str, selection: str) -> None:
    fit = fit_of(loaded, verifier, selection)
    assert not fit.holds(NUM_TESTS)
    assert fit.total_variation > 1.5 * fit.noise_floor


def test_plain_logits_are_those_of_each_sequence_and_leave_no_trace(gqa: Pair) -> None:
    runner = ModelRunner(gqa.target.decoder, 3, 40)
    sequences = [list(prompt[:12]) for prompt in gqa.prompts[:3]]
    for logits_V, sequence in zip(plain_logits(runner, sequences), sequences, strict=True):
        torch.testing.assert_close(logits_V, logits_of(gqa.target.decoder, sequence)[-1], rtol=0, atol=1e-5)
    assert runner.allocator.num_free_regions == 3


def proposed(loaded: LoadedPlacement, *selections: Selection) -> Fit:
    """The test of the proposals of a drafter, or of a portfolio."""
    members = [drafter(own_runner(loaded), selection, source) for source, selection in enumerate(selections)]
    return proposed_by(loaded, members[0] if len(members) == 1 else PortfolioDrafter(members))


def own_runner(loaded: LoadedPlacement) -> ModelRunner:
    return ModelRunner(loaded.draft_runners[0].decoder, BATCH, 40)


def proposed_by(loaded: LoadedPlacement, drafter: Drafter) -> Fit:
    scenario = Scenario.model_validate(scenario_data("mss", "iid"))
    requests = [loaded.request(scenario, request_id, PROMPT) for request_id in range(NUM_REQUESTS)]
    return proposals_fit(drafter, requests, 2, BATCH)


@pytest.mark.parametrize(
    "selections",
    [(IndependentDraws(),), (DrawsWithoutReplacement(),), (IndependentDraws(), DrawsWithoutReplacement())],
    ids=lambda selections: " + ".join(selection.contract.value for selection in selections),
)
def test_drafter_that_draws_from_what_it_reports_passes(
    loaded: LoadedPlacement, selections: tuple[Selection, ...]
) -> None:
    fit = proposed(loaded, *selections)
    assert fit.holds(NUM_TESTS)
    assert fit.num_draws > 2 * NUM_REQUESTS
    assert fit.degrees_of_freedom > 20


@pytest.mark.parametrize("selection", [TopKAsDrawn(), RawReport(), RepeatedDraw(), Replaced()], ids=type)
def test_drafter_that_draws_from_something_else_is_refused(loaded: LoadedPlacement, selection: Selection) -> None:
    assert not proposed(loaded, selection).holds(NUM_TESTS)


def test_children_drawn_for_another_parent_are_refused(loaded: LoadedPlacement) -> None:
    crossed = drafter(own_runner(loaded), CrossedParents(), expansion=(2, 1))
    assert not proposed_by(loaded, crossed).holds(NUM_TESTS)


def test_members_of_a_portfolio_that_share_their_noise_are_refused(loaded: LoadedPlacement) -> None:
    """Each reports what it draws from, but the second repeats the first."""
    repeating = PortfolioDrafter([drafter(own_runner(loaded), IndependentDraws(), source=0) for _ in range(2)])
    assert not proposed_by(loaded, repeating).holds(NUM_TESTS)


def test_deterministic_proposals_promise_no_distribution(loaded: LoadedPlacement) -> None:
    fit = proposed(loaded, TopK())
    assert (fit.num_draws, fit.degrees_of_freedom, fit.p_value) == (0, 0, 1)
