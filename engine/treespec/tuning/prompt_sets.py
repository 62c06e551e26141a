"""Held-out prompts of five characters, cut from files that no embedded model was trained on."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterator

from tokenizers import Tokenizer

from treespec.tuning.corpus import SourceFile

PROMPT_TOKENS = 32
CONTINUATION_TOKENS = 128  # the real text behind every prompt, for comparison
PROMPTS_PER_SET = 40

_DEFINITION = re.compile(r"^(?:    )?(?:def|class) \w+", re.MULTILINE)
_TEST = re.compile(r"^    def test\w*", re.MULTILINE)
_COMMENT_BLOCK = re.compile(r"(?:^[ \t]*#[^\n]*\n){4,}", re.MULTILINE)
_PARAGRAPH = re.compile(r"\n\n(?=\S|    \S)")


def _matches(pattern: re.Pattern[str]) -> Callable[[str], Iterator[int]]:
    return lambda text: (match.start() for match in pattern.finditer(text))


def _docstrings(text: str) -> Iterator[int]:
    """Offsets of docstrings; a file that this Python cannot parse has none."""
    try:
        tree = ast.parse(text)
    except SyntaxError:
        return
    line_starts = [0, *(match.end() for match in re.finditer("\n", text))]
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.ClassDef, ast.AsyncFunctionDef)) and ast.get_docstring(node):
            yield line_starts[node.body[0].lineno - 1]


_SETS: dict[str, tuple[Callable[[str], Iterator[int]], bool | None]] = {
    "code": (_matches(_DEFINITION), False),
    "docstrings": (_docstrings, False),
    "comments": (_matches(_COMMENT_BLOCK), False),
    "tests": (_matches(_TEST), True),
    "mixed": (_matches(_PARAGRAPH), None),
}


def held_out_prompts(sources: list[SourceFile], tokenizer: Tokenizer) -> dict[str, list[tuple[str, str]]]:
    """Set name -> (prompt, the real text that follows it), spread evenly over the held-out files."""
    return {name: _cut(sources, tokenizer, anchors, tests) for name, (anchors, tests) in _SETS.items()}


def _cut(
    sources: list[SourceFile], tokenizer: Tokenizer, anchors: Callable[[str], Iterator[int]], tests: bool | None
) -> list[tuple[str, str]]:
    files = [s for s in sources if s.is_held_out and (tests is None or s.is_test == tests)]
    places = [(source.text, start) for source in files for start in anchors(source.text)]
    places = [(text, start) for text, start in places if len(text) - start > 8 * (PROMPT_TOKENS + CONTINUATION_TOKENS)]
    step = max(1, len(places) // PROMPTS_PER_SET)
    pairs = []
    for text, start in places[::step][:PROMPTS_PER_SET]:
        ids = tokenizer.encode(text[start : start + 4000], add_special_tokens=False).ids
        ids = ids[: PROMPT_TOKENS + CONTINUATION_TOKENS]
        pairs.append((tokenizer.decode(ids[:PROMPT_TOKENS]), tokenizer.decode(ids[PROMPT_TOKENS:])))
    return pairs
