"""Drafting from texts already served (SuffixDecoding, Oliaro et al. 2024, arXiv 2411.04975). Torch-free."""

from __future__ import annotations

import heapq
import sys
from bisect import bisect_left, insort
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import takewhile
from typing import NamedTuple

from treespec.request import Request
from treespec.tree import Proposals, TokenTree, TreeBuilder

MAX_HISTORY_TOKENS = 1 << 16
MAX_OCCURRENCES = 64
BEYOND = sys.maxsize  # above every token id


class SuffixDrafter:
    """Proposes what most often followed the longest suffix of a request's text, in it and in all texts before.

    Grows the tree best first by the share of occurrences that go on along a path; at most ``num_nodes`` nodes, root
    not counted, and alpha * (length of the match) levels. A match is at most ``max_match`` tokens long.

    What is proposed depends on what was served before and beside a request; what a lossless verifier makes of it
    does not.
    """

    def __init__(
        self, num_nodes: int, max_match: int, alpha: float = 1.0, max_history_tokens: int = MAX_HISTORY_TOKENS
    ) -> None:
        assert num_nodes >= 1 and max_match >= 1 and alpha > 0, "the configuration was validated"
        self._num_nodes = num_nodes
        self._alpha = alpha
        self._history = History(max_match, max_history_tokens)
        self._texts: dict[int, int] = {}  # request id -> number of its text

    def propose(self, requests: Sequence[Request], max_depths: Sequence[int]) -> list[Proposals]:
        for request in requests:
            self._read(request)
        return [self._tree(request, max_depth) for request, max_depth in zip(requests, max_depths, strict=True)]

    def observe(self, requests: Sequence[Request], accepted: Sequence[Sequence[int]]) -> None:
        pass  # accepted tokens are read from the request

    def forget(self, request: Request) -> None:
        """The text stays, as far as it was read, until newer ones need its room."""
        text = self._texts.pop(request.request_id, None)
        if text is not None:
            self._history.close(text)

    def _read(self, request: Request) -> None:
        if request.request_id not in self._texts:
            self._texts[request.request_id] = self._history.open()
        text = self._texts[request.request_id]
        self._history.extend(text, request.tokens_from(self._history.length(text)))

    def _tree(self, request: Request, max_depth: int) -> Proposals:
        match = self._history.longest_match(self._texts[request.request_id])
        depth = min(int(self._alpha * match.length), max_depth)
        tree = _grow(request.last_token_id, self._history, match.occurrences, depth, self._num_nodes)
        return Proposals.deterministic(tree)


class Occurrence(NamedTuple):
    """A token of a text; the order is that of recency: later requests, then later tokens."""

    text: int
    position: int


class _Place(NamedTuple):
    """A token with the text before it, nearest token first, so that places after equal suffixes sort together."""

    context: tuple[int, ...]
    occurrence: Occurrence


class Match(NamedTuple):
    """How much of a text's end was found again, and the tokens that followed there, most recent first."""

    length: int
    occurrences: list[Occurrence]


class History:
    """Texts, and all their places sorted by what stands before them: a suffix array that grows.

    A place takes ``max_match`` + a few words; closed texts are dropped, oldest first, once all texts together hold
    more than ``max_tokens``. Open texts are kept whatever their length.
    """

    def __init__(self, max_match: int, max_tokens: int) -> None:
        self._max_match = max_match
        self._max_tokens = max_tokens
        self._texts: dict[int, list[int]] = {}
        self._closed: list[int] = []  # oldest first
        self._places: list[_Place] = []
        self._num_opened = 0

    @property
    def num_tokens(self) -> int:
        """Tokens held."""
        return len(self._places)

    def open(self) -> int:
        """Begin a text; returns its number, above those of all earlier ones."""
        self._num_opened += 1
        self._texts[self._num_opened] = []
        return self._num_opened

    def extend(self, text: int, token_ids: Sequence[int]) -> None:
        """Append tokens to an open text."""
        tokens = self._texts[text]
        for token_id in token_ids:
            insort(self._places, _Place(self._context(tokens), Occurrence(text, len(tokens))))
            tokens.append(token_id)

    def close(self, text: int) -> None:
        """The text is complete; drop the oldest closed ones if there is too much."""
        self._closed.append(text)
        dropped = set()
        num_tokens = self.num_tokens
        while num_tokens > self._max_tokens and self._closed:
            oldest = self._closed.pop(0)
            num_tokens -= len(self._texts.pop(oldest))
            dropped.add(oldest)
        if dropped:
            self._places = [place for place in self._places if place.occurrence.text not in dropped]

    def length(self, text: int) -> int:
        """Tokens of a text."""
        return len(self._texts[text])

    def token_id(self, occurrence: Occurrence, offset: int) -> int | None:
        """The token so many places further on; None beyond the text's end."""
        tokens, position = self._texts[occurrence.text], occurrence.position + offset
        return tokens[position] if position < len(tokens) else None

    def longest_match(self, text: int) -> Match:
        """Where the longest suffix of the text that stood anywhere before was followed by a token.

        Of more than MAX_OCCURRENCES the most recent count.
        """
        context = self._context(self._texts[text])
        around = bisect_left(self._places, _before(context))
        neighbours = self._places[max(0, around - 1) : around + 1]
        length = max((_num_equal(context, place.context) for place in neighbours), default=0)
        if length == 0:
            return Match(0, [])
        suffix = context[:length]
        first = bisect_left(self._places, _before(suffix))
        last = bisect_left(self._places, _before((*suffix, BEYOND)))
        occurrences = (place.occurrence for place in self._places[first:last])
        return Match(length, heapq.nlargest(MAX_OCCURRENCES, occurrences))

    def _context(self, tokens: Sequence[int]) -> tuple[int, ...]:
        return tuple(tokens[-self._max_match :][::-1])


def _before(context: tuple[int, ...]) -> _Place:
    """What sorts before all places with this context, and after all with a lesser one; texts count from 1."""
    return _Place(context, Occurrence(0, 0))


def _num_equal(left: Sequence[int], right: Sequence[int]) -> int:
    """Length of the common beginning."""
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(left, right, strict=False)))


@dataclass(frozen=True, order=True)
class _Branch:
    """A node that the tree may get next, and the occurrences of the match that lead to it, most recent first."""

    order: tuple[int, ...]
    parent: int = field(compare=False)
    depth: int = field(compare=False)
    token_id: int = field(compare=False)
    occurrences: list[Occurrence] = field(compare=False)


def _grow(root_token_id: int, history: History, occurrences: list[Occurrence], depth: int, num_nodes: int) -> TokenTree:
    """Best first by the product of count ratios, which along a path is its last node's count over the match's.

    Ties go to the node nearer to the root, then to the one that occurred last.
    """
    builder = TreeBuilder(root_token_id)
    heap = _branches(history, occurrences, 0, 1) if depth else []
    heapq.heapify(heap)
    while heap and len(builder) <= num_nodes:
        branch = heapq.heappop(heap)
        node = builder.add(branch.parent, branch.token_id)
        if branch.depth < depth:
            for child in _branches(history, branch.occurrences, node, branch.depth + 1):
                heapq.heappush(heap, child)
    return builder.build()


def _branches(history: History, occurrences: Sequence[Occurrence], parent: int, depth: int) -> list[_Branch]:
    """The children of ``parent``, at ``depth``, by the tokens that the occurrences of the match lead to there."""
    by_token: dict[int, list[Occurrence]] = {}
    for occurrence in occurrences:
        token_id = history.token_id(occurrence, depth - 1)
        if token_id is not None:
            by_token.setdefault(token_id, []).append(occurrence)
    return [
        _Branch((-len(found), depth, -found[0].text, -found[0].position), parent, depth, token_id, found)
        for token_id, found in by_token.items()
    ]
