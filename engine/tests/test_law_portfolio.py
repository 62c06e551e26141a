"""Law: lookups and portfolios change no token, and a portfolio accepts what any of its members would have."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.tests.decoding import Pair, Served, Serving
from engine.tests.properties import examples
from treespec.draft.growth import FixedTopology
from treespec.draft.ngram import NgramDrafter
from treespec.draft.portfolio import PortfolioDrafter
from treespec.draft.protocol import Drafter
from treespec.draft.selection import SELECTIONS
from treespec.draft.ssm import SsmDrafter
from treespec.draft.suffix import SuffixDrafter
from treespec.model.loader import LoadedModel
from treespec.request import Request
from treespec.runner import ModelRunner
from treespec.scheduler import Scheduler
from treespec.serving import Engine
from treespec.tree import Proposals, TokenTree, Topology
from treespec.verify import GreedyVerifier

NUM_TOKENS = Serving().max_new_tokens
MAX_NODES = 40
LOOKUPS = ("ngram", "suffix")
DRAFTERS = (*LOOKUPS, "lookups", "ssms", "all")


class Told:
    """A drafter that remembers what it proposed and what it was told of it, per request."""

    def __init__(self, drafter: Drafter) -> None:
        self._drafter = drafter
        self.trees: dict[int, list[TokenTree]] = {}
        self.max_depths: dict[int, list[int]] = {}
        self.accepted: dict[int, list[int]] = {}

    def propose(self, requests: Sequence[Request], max_depths: Sequence[int]) -> list[Proposals]:
        proposals = self._drafter.propose(requests, max_depths)
        for request, item, max_depth in zip(requests, proposals, max_depths, strict=True):
            self.trees.setdefault(request.request_id, []).append(item.tree)
            self.max_depths.setdefault(request.request_id, []).append(max_depth)
        return proposals

    def observe(self, requests: Sequence[Request], accepted: Sequence[Sequence[int]]) -> None:
        for request, nodes in zip(requests, accepted, strict=True):
            self.accepted.setdefault(request.request_id, []).append(len(nodes))
        self._drafter.observe(requests, accepted)

    def forget(self, request: Request) -> None:
        self._drafter.forget(request)

    @property
    def num_accepted(self) -> int:
        """Nodes of its own that were accepted."""
        return sum(map(sum, self.accepted.values()))


class Foreseeing:
    """Proposes the text that will come, every other step of a request, and nothing in between."""

    def __init__(self, texts: Sequence[Sequence[int]], num_tokens: int) -> None:
        self._texts = texts
        self._num_tokens = num_tokens
        self._steps = [0] * len(texts)

    def propose(self, requests: Sequence[Request], max_depths: Sequence[int]) -> list[Proposals]:
        return [self._tree(request, max_depth) for request, max_depth in zip(requests, max_depths, strict=True)]

    def _tree(self, request: Request, max_depth: int) -> Proposals:
        done = len(request.output_token_ids)
        self._steps[request.request_id] += 1
        depth = min(self._num_tokens, max_depth) * (self._steps[request.request_id] % 2)
        coming = self._texts[request.request_id][done : done + depth]
        return Proposals.deterministic(TokenTree.chain([request.last_token_id, *coming]))

    def observe(self, requests: Sequence[Request], accepted: Sequence[Sequence[int]]) -> None:
        pass

    def forget(self, request: Request) -> None:
        pass


def new_runner(model: LoadedModel, serving: Serving) -> ModelRunner:
    return ModelRunner(model.decoder, serving.batch_size, serving.max_sequence_length + 1 + MAX_NODES)


def ssm(
    model: LoadedModel, serving: Serving, expansion: tuple[int, ...], selection: str = "top_k", source: int = 0
) -> SsmDrafter:
    rule = FixedTopology(Topology.from_expansion(expansion))
    return SsmDrafter(new_runner(model, serving), rule, SELECTIONS[selection], source)


def make(name: str, pair: Pair, serving: Serving) -> Drafter:
    """A fresh drafter of one kind, or a portfolio of several."""
    members: dict[str, list[Drafter]] = {
        "ngram": [NgramDrafter(num_tokens=4, max_ngram=2, width=2)],
        "suffix": [SuffixDrafter(num_nodes=8, max_match=6, alpha=2)],
        "ssms": [ssm(pair.draft, serving, (1, 2, 1)), ssm(pair.draft, serving, (3, 1), "iid", source=1)],
    }
    members["lookups"] = [*members["ngram"], *members["suffix"]]
    members["all"] = [*members["suffix"], *members["ssms"], *members["ngram"]]
    chosen = members[name]
    return chosen[0] if len(chosen) == 1 else PortfolioDrafter(chosen, MAX_NODES)


def serve_with(pair: Pair, drafter: Drafter, serving: Serving) -> Served:
    scheduler = Scheduler(serving.batch_size, serving.max_tokens_per_batch)
    engine = Engine(
        new_runner(pair.target, serving), drafter, GreedyVerifier(), scheduler, pair.target.tokenizer.decode
    )
    requests = [serving.request(number, prompt) for number, prompt in enumerate(pair.prompts)]
    engine.add(requests)
    totals = engine.run()
    return Served(requests, [engine.profiles[request.request_id] for request in requests], totals)


@pytest.mark.parametrize("name", DRAFTERS)
@pytest.mark.parametrize("pair", ["tied", "embedded"], indirect=True)
def test_every_drafter_equals_incremental(pair: Pair, name: str) -> None:
    serving = Serving()
    assert serve_with(pair, make(name, pair, serving), serving).token_ids == pair.expected(NUM_TOKENS)


@given(
    name=st.sampled_from(DRAFTERS),
    batch_size=st.integers(1, 9),
    spare_tokens=st.integers(0, 40),
    max_new_tokens=st.integers(1, NUM_TOKENS),
)
@examples(12)
def test_batches_and_lengths_change_no_token(
    gqa: Pair, name: str, batch_size: int, spare_tokens: int, max_new_tokens: int
) -> None:
    serving = Serving((), batch_size, batch_size + spare_tokens, max_new_tokens)
    assert serve_with(gqa, make(name, gqa, serving), serving).token_ids == gqa.expected(max_new_tokens)


@pytest.mark.parametrize("name", LOOKUPS)
def test_lookups_find_something(embedded: Pair, name: str) -> None:
    """Otherwise the laws above would hold of drafters that propose nothing."""
    drafter = Told(make(name, embedded, Serving()))
    assert serve_with(embedded, drafter, Serving()).token_ids == embedded.expected(NUM_TOKENS)
    assert drafter.num_accepted > 0
    assert max(len(tree) for trees in drafter.trees.values() for tree in trees) > 2


def test_suffix_drafter_knows_a_text_it_has_served(gqa: Pair) -> None:
    drafter, serving = SuffixDrafter(num_nodes=8, max_match=6, alpha=2), Serving()
    first = serve_with(gqa, drafter, serving)
    second = serve_with(gqa, drafter, serving)
    assert second.token_ids == first.token_ids == gqa.expected(NUM_TOKENS)
    assert 2 * second.totals.num_target_steps < first.totals.num_target_steps


@pytest.mark.parametrize("name", [*LOOKUPS, "ssm"])
def test_portfolio_of_one_is_that_drafter(gqa: Pair, name: str) -> None:
    serving = Serving()

    def drafter() -> Drafter:
        return ssm(gqa.draft, serving, (2, 2, 1)) if name == "ssm" else make(name, gqa, serving)

    alone, portfolio = (
        serve_with(gqa, drafter(), serving),
        serve_with(gqa, PortfolioDrafter([drafter()]), serving),
    )
    assert portfolio.token_ids == alone.token_ids
    assert portfolio.accepted_per_step == alone.accepted_per_step
    assert [p.num_draft_tokens for p in portfolio.profiles] == [p.num_draft_tokens for p in alone.profiles]


def test_portfolio_accepts_what_any_member_would_have_had_accepted(embedded: Pair) -> None:
    serving = Serving()
    members = [Told(drafter) for drafter in (make("suffix", embedded, serving), ssm(embedded.draft, serving, (1,) * 4))]
    portfolio = Told(PortfolioDrafter(members))
    assert serve_with(embedded, portfolio, serving).token_ids == embedded.expected(NUM_TOKENS)
    for number, accepted in portfolio.accepted.items():
        own = [member.accepted[number] for member in members]
        assert accepted == [max(counts) for counts in zip(*own, strict=True)]
    assert all(0 < member.num_accepted < portfolio.num_accepted for member in members)


@pytest.mark.parametrize("num_foreseen", [1, 3, 7])
def test_draft_model_catches_up_with_what_others_proposed(gqa: Pair, num_foreseen: int) -> None:
    """The target as its own draft is right at every step, if it has read all that was accepted without it."""
    serving = Serving(max_tokens_per_batch=512)
    draft = Told(ssm(gqa.target, serving, (1, 1)))
    foreseeing = Foreseeing(gqa.expected(NUM_TOKENS), num_foreseen)
    portfolio = Told(PortfolioDrafter([foreseeing, draft]))
    assert serve_with(gqa, portfolio, serving).token_ids == gqa.expected(NUM_TOKENS)
    for number, accepted in draft.accepted.items():
        depths = [min(2, max_depth) for max_depth in draft.max_depths[number]]
        assert [int(tree.depths.max()) for tree in draft.trees[number]] == depths
        assert accepted == depths[: len(accepted)]
    assert max(max(accepted) for accepted in portfolio.accepted.values()) == max(num_foreseen, 2)
