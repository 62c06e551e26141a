"""Drafters without a model propose what a scan of all texts finds."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.tests.decoding import Serving
from engine.tests.properties import examples
from treespec.draft import suffix
from treespec.draft.ngram import NgramDrafter
from treespec.draft.suffix import History, SuffixDrafter
from treespec.request import Request
from treespec.tree import Contract, Proposals

Path = tuple[int, ...]
FAR = 100  # deeper than any tree here

tokens = st.integers(3, 5)  # few enough that texts repeat themselves
pieces = st.lists(st.lists(tokens, min_size=1, max_size=6), min_size=1, max_size=5)


def request(request_id: int, prompt: Sequence[int], output: Sequence[int] = ()) -> Request:
    made = Serving().request(request_id, prompt)
    made.output_token_ids.extend(output)
    return made


def paths(proposals: Proposals) -> set[Path]:
    """Tokens below the root along the path to every node."""
    return {tuple(proposals.tree.path_tokens(node)[1:]) for node in range(1, len(proposals.tree))}


def prefixes(*sequences: Sequence[int]) -> set[Path]:
    return {tuple(tokens[:end]) for tokens in sequences for end in range(1, len(tokens) + 1)}


def propose(drafter: NgramDrafter | SuffixDrafter, item: Request, max_depth: int = FAR) -> set[Path]:
    (proposals,) = drafter.propose([item], [max_depth])
    assert proposals.tree.token_ids[0] == item.last_token_id
    assert set(proposals.contracts) <= {Contract.DETERMINISTIC}
    return paths(proposals)


@pytest.mark.parametrize("module", ["treespec.draft.ngram", "treespec.draft.suffix", "treespec.tree.merge"])
def test_lookup_and_merging_load_no_torch(module: str) -> None:
    # The package of drafters offers those with a model too, so it is entered past its __init__.
    code = (
        "import importlib, importlib.util, sys, types, treespec\n"
        "package = types.ModuleType('treespec.draft')\n"
        "package.__path__ = [path + '/draft' for path in treespec.__path__]\n"
        "sys.modules['treespec.draft'] = package\n"
        f"importlib.import_module({module!r})\n"
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


# Prompt lookup


def looked_up(text: Sequence[int], lengths: Sequence[int], num_tokens: int, width: int) -> set[Path]:
    """Every place of the text compared with its end, longest n first, latest place first."""
    found: dict[int, int] = {}
    for n in lengths:
        for start in range(len(text) - 1, n - 1, -1):
            if n <= len(text) and text[start - n : start] == text[len(text) - n :]:
                found.setdefault(text[start], start)
    chains = []
    for start in list(found.values())[:width]:
        chain = list(text)
        for offset in range(num_tokens):
            chain.append(chain[start + offset])
        chains.append(chain[len(text) :])
    return prefixes(*chains)


def test_ngram_proposes_what_followed_the_longest_match() -> None:
    text = [7, 8, 9, 20, 21, 22, 9, 30, 31, 32, 8, 9]
    assert propose(NgramDrafter(num_tokens=3, max_ngram=3), request(0, text)) == prefixes([20, 21, 22])
    assert propose(NgramDrafter(num_tokens=3, max_ngram=1), request(0, text)) == prefixes([30, 31, 32])


def test_ngram_matches_output_and_prompt_as_one_text() -> None:
    assert propose(NgramDrafter(2, 2), request(0, [7, 8, 9, 4], [5, 7, 8])) == prefixes([9, 4])
    assert propose(NgramDrafter(2, 2), request(0, [4, 7], [8, 5, 7, 8])) == prefixes([5, 7])


def test_ngram_goes_on_into_itself_where_the_text_loops() -> None:
    assert propose(NgramDrafter(num_tokens=5, max_ngram=2), request(0, [4, 5, 6, 5, 6])) == prefixes([5, 6, 5, 6, 5])


def test_ngram_of_some_width_branches_by_next_token() -> None:
    text = [8, 9, 20, 21, 9, 30, 31, 9, 30, 41, 8, 9]
    drafter = NgramDrafter(num_tokens=2, max_ngram=2, width=3)
    assert propose(drafter, request(0, text)) == prefixes([20, 21], [30, 41])
    assert propose(drafter, request(1, [*text[:-2], 9])) == prefixes([30, 41], [20, 21])


@given(
    pieces=pieces, max_ngram=st.integers(1, 4), shorter=st.integers(0, 3), num_tokens=st.integers(1, 6), data=st.data()
)
@examples(150)
def test_ngram_index_that_grows_equals_a_scan(
    pieces: list[list[int]], max_ngram: int, shorter: int, num_tokens: int, data: st.DataObject
) -> None:
    min_ngram, width = max(1, max_ngram - shorter), data.draw(st.integers(1, 3))
    drafter = NgramDrafter(num_tokens, max_ngram, min_ngram, width)
    item = request(0, pieces[0])
    for piece in pieces:
        max_depth = data.draw(st.integers(0, 7))
        text = item.tokens_from(0)
        expected = looked_up(text, range(max_ngram, min_ngram - 1, -1), min(num_tokens, max_depth), width)
        found = propose(drafter, item, max_depth)
        assert found == expected
        assert len(found) <= width * num_tokens
        item.output_token_ids.extend(piece)


def test_ngram_keeps_requests_apart_and_forgets_them() -> None:
    drafter = NgramDrafter(3, 2)
    items = [request(0, [4, 5, 6, 4]), request(1, [7, 8, 4])]
    first, second = drafter.propose(items, [FAR, FAR])
    assert paths(first) == prefixes([5, 6, 4])
    assert paths(second) == set()
    drafter.observe(items, [[1, 2], []])
    for item in items:
        drafter.forget(item)
    assert not drafter._texts
    assert propose(drafter, request(0, [9, 4])) == set()


# Suffixes of all texts


def most_frequent(
    texts: Sequence[list[int]], own: int, max_match: int, alpha: float, num_nodes: int, max_depth: int
) -> set[Path]:
    """All continuations of all occurrences of the longest match, counted and sorted."""
    places = [(t, i) for t, text in enumerate(texts) for i in range(1, len(text))]
    for length in range(min(max_match, len(texts[own])), 0, -1):
        end = texts[own][-length:]
        starts = [(t, i) for t, i in places if i >= length and texts[t][i - length : i] == end]
        if starts:
            break
    else:
        return set()
    counts: dict[Path, int] = {}
    latest: dict[Path, tuple[int, int]] = {}
    for t, i in starts:
        for path in prefixes(texts[t][i : i + min(int(alpha * length), max_depth)]):
            counts[path] = counts.get(path, 0) + 1
            latest[path] = max(latest.get(path, (-1, -1)), (t, i + len(path)))
    ranked = sorted(counts, key=lambda p: (-counts[p], len(p), -latest[p][0], -latest[p][1]))
    return set(ranked[:num_nodes])


@given(
    rounds=st.lists(st.lists(st.lists(tokens, max_size=5), min_size=3, max_size=3), min_size=1, max_size=4),
    max_match=st.integers(1, 5),
    alpha=st.sampled_from([0.5, 1.0, 2.5]),
    num_nodes=st.integers(1, 8),
    max_depth=st.integers(0, 6),
)
@examples(150)
def test_suffix_tree_is_made_of_the_most_frequent_continuations(
    rounds: list[list[list[int]]], max_match: int, alpha: float, num_nodes: int, max_depth: int
) -> None:
    drafter = SuffixDrafter(num_nodes, max_match, alpha)
    items = [request(number, [3 + number]) for number in range(3)]
    for pieces in rounds:
        for item, piece in zip(items, pieces, strict=True):
            item.output_token_ids.extend(piece)
        texts = [item.tokens_from(0) for item in items]
        for own, proposals in enumerate(drafter.propose(items, [max_depth] * 3)):
            assert paths(proposals) == most_frequent(texts, own, max_match, alpha, num_nodes, max_depth)


def test_suffix_prefers_what_followed_most_often() -> None:
    text = [8, 9, 20, 21, 8, 9, 30, 31, 8, 9, 20, 41, 8, 9]
    assert propose(SuffixDrafter(2, max_match=4), request(0, text)) == prefixes([20], [30])
    assert propose(SuffixDrafter(4, max_match=4), request(0, text)) == prefixes([20, 41], [30, 31])
    assert propose(SuffixDrafter(9, max_match=1), request(0, text)) == prefixes([20], [30])


@pytest.mark.parametrize(("alpha", "depth"), [(0.4, 0), (0.5, 1), (1.0, 2), (1.5, 3), (2.0, 4)])
def test_suffix_tree_is_no_deeper_than_alpha_times_the_match(alpha: float, depth: int) -> None:
    text = [1, 8, 9, 20, 21, 22, 23, 24, 25, 2, 8, 9]
    assert propose(SuffixDrafter(20, max_match=5, alpha=alpha), request(0, text)) == prefixes(text[3 : 3 + depth])


def test_suffix_finds_earlier_requests_and_those_beside_it() -> None:
    drafter = SuffixDrafter(10, max_match=3)
    gone, beside, own = request(0, [7, 8, 9], [10, 11, 12]), request(1, [4, 8, 9, 20]), request(2, [5, 7, 8, 9])
    propose(drafter, gone)
    drafter.forget(gone)
    assert propose(drafter, own) == prefixes([10, 11, 12])
    drafter.propose([beside, own], [FAR, FAR])
    assert propose(drafter, request(3, [6, 8, 9])) == prefixes([20, 10], [10, 11]) - {(20, 10)}


def test_suffix_counts_only_the_latest_of_many_occurrences(monkeypatch: pytest.MonkeyPatch) -> None:
    text = [9, 20, 9, 20, 9, 20, 9, 30, 9, 30, 9]
    assert propose(SuffixDrafter(1, max_match=1), request(0, text)) == {(20,)}
    monkeypatch.setattr(suffix, "MAX_OCCURRENCES", 3)
    assert propose(SuffixDrafter(1, max_match=1), request(0, text)) == {(30,)}


@given(texts=st.lists(st.lists(tokens, min_size=1, max_size=12), min_size=1, max_size=8), max_tokens=st.integers(0, 30))
@examples(100)
def test_suffix_history_is_that_of_the_latest_texts_that_fit(texts: list[list[int]], max_tokens: int) -> None:
    history = History(max_match=3, max_tokens=max_tokens)
    for token_ids in texts:
        number = history.open()
        history.extend(number, token_ids)
        history.close(number)
        assert history.num_tokens <= max_tokens
    kept: list[list[int]] = []
    for token_ids in reversed(texts):
        if sum(map(len, kept)) + len(token_ids) > max_tokens:
            break
        kept.insert(0, token_ids)
    assert list(history._texts.values()) == kept
    fresh = History(max_match=3, max_tokens=max_tokens)
    for token_ids in kept:
        fresh.extend(fresh.open(), token_ids)
    assert [place.context for place in history._places] == [place.context for place in fresh._places]


def test_suffix_drafter_drops_a_request_and_keeps_its_text_for_a_while() -> None:
    drafter = SuffixDrafter(10, max_match=3, max_history_tokens=12)
    for number in range(20):
        item = request(number, [100 + number, 8, 9, 30 + number])
        propose(drafter, item)
        drafter.forget(item)
        assert drafter._history.num_tokens <= 12
    assert not drafter._texts
    assert propose(drafter, request(20, [119, 8, 9])) == prefixes([49])
    assert propose(drafter, request(21, [103, 8, 9])) != prefixes([33])
    drafter.forget(request(99, [5]))  # one that was never drafted for


@pytest.mark.parametrize("drafter", [NgramDrafter(4, 3, width=2), SuffixDrafter(8, 4)], ids=["ngram", "suffix"])
def test_nothing_found_or_no_room_is_the_root_alone(drafter: NgramDrafter | SuffixDrafter) -> None:
    assert propose(drafter, request(0, [5])) == set()
    assert propose(drafter, request(1, [6, 7, 8])) == set()
    assert propose(drafter, request(2, [9, 10, 9, 10, 9]), max_depth=0) == set()
    assert propose(drafter, request(2, [9, 10, 9, 10, 9])) != set()
