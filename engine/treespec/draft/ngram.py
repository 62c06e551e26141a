"""Prompt lookup: what followed the last tokens when they stood in the text before (Saxena 2023). Torch-free."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from treespec.request import Request
from treespec.tree import Proposals, TreeBuilder


class NgramDrafter:
    """Looks the last n tokens of a request up in its own prompt and output, longest n first.

    Proposes up to ``num_tokens`` tokens that followed the most recent match; with ``width`` above 1 also those after
    earlier or shorter matches, as long as each begins with another token. Trees have at most
    width * num_tokens nodes, root not counted.
    """

    def __init__(self, num_tokens: int, max_ngram: int, min_ngram: int = 1, width: int = 1) -> None:
        assert num_tokens >= 1 and 1 <= min_ngram <= max_ngram and width >= 1, "the configuration was validated"
        self._num_tokens = num_tokens
        self._lengths = range(max_ngram, min_ngram - 1, -1)
        self._width = width
        self._texts: dict[int, _IndexedText] = {}

    def propose(self, requests: Sequence[Request], max_depths: Sequence[int]) -> list[Proposals]:
        return [self._tree(request, max_depth) for request, max_depth in zip(requests, max_depths, strict=True)]

    def observe(self, requests: Sequence[Request], accepted: Sequence[Sequence[int]]) -> None:
        pass  # accepted tokens are read from the request

    def forget(self, request: Request) -> None:
        self._texts.pop(request.request_id, None)

    def _tree(self, request: Request, max_depth: int) -> Proposals:
        text = self._texts.setdefault(request.request_id, _IndexedText(self._lengths))
        text.extend(request.tokens_from(len(text.token_ids)))
        depth = min(self._num_tokens, max_depth)
        builder = TreeBuilder(request.last_token_id)
        for start in text.matches(self._width):
            node = 0
            for token_id in text.continuation(start, depth):
                node = builder.add(node, token_id)
        return Proposals.deterministic(builder.build())


@dataclass
class _IndexedText:
    """A text that grows, with what followed each of its n-grams."""

    lengths: range  # of the n-grams, longest first
    token_ids: list[int] = field(default_factory=list)
    # n-gram -> next token -> where that token last stood, most recent last
    followers: dict[tuple[int, ...], dict[int, int]] = field(default_factory=dict)

    def extend(self, token_ids: Sequence[int]) -> None:
        """Append; an n-gram is indexed once it has a follower, so the text's end never matches itself."""
        for token_id in token_ids:
            for ngram in self._last_ngrams():
                places = self.followers.setdefault(ngram, {})
                places.pop(token_id, None)
                places[token_id] = len(self.token_ids)
            self.token_ids.append(token_id)

    def matches(self, width: int) -> list[int]:
        """Where the text went on after its last n tokens: at most ``width`` places with different tokens.

        Longest n first, then the most recent.
        """
        starts: dict[int, int] = {}
        for ngram in self._last_ngrams():
            for token_id, start in reversed(self.followers.get(ngram, {}).items()):
                starts.setdefault(token_id, start)
                if len(starts) == width:
                    return list(starts.values())
        return list(starts.values())

    def continuation(self, start: int, num_tokens: int) -> list[int]:
        """Tokens from ``start`` on; where they reach the text's end they go on into themselves, as a loop does."""
        period = len(self.token_ids) - start
        repeated = self.token_ids[start : start + num_tokens]
        return [repeated[index % period] for index in range(num_tokens)]

    def _last_ngrams(self) -> list[tuple[int, ...]]:
        size = len(self.token_ids)
        return [tuple(self.token_ids[size - n :]) for n in self.lengths if n <= size]
