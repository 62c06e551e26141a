"""A drafter and a verifier from outside the package: the example of docs/adding.md, word by word."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from engine.tests.decoding import Pair
from engine.tests.scenarios import TREE, Bench
from treespec.audit.certificate import certify, default_cases
from treespec.errors import ConfigError
from treespec.serving.plugins import load_methods
from treespec.tree import Contract

ADDING = Path(__file__).parents[2] / "docs" / "adding.md"
ANY = "from treespec.tree import Contract\nANY = frozenset(Contract)\n"
REPEAT = {"kind": "plugin", "name": "repeat", "max_nodes": 4, "options": {"num_tokens": 3}}


def documented(place: int, path: Path) -> Path:
    """The Python example at a place in the document, as a file."""
    examples = re.findall(r"```python\n(.*?)```", ADDING.read_text(encoding="utf-8"), re.DOTALL)
    path.write_text(examples[place], encoding="utf-8")
    return path


@pytest.fixture
def repeat(tmp_path: Path) -> Path:
    return documented(0, tmp_path / "repeat.py")


def scenario(name: str, drafters: list[dict[str, Any]], **settings: Any) -> dict[str, Any]:
    common = {"prompts": "unused.json", "max_requests_per_batch": 3, "max_new_tokens": 16, "ignore_eos": True}
    return {"name": name, "mode": "tree", "drafters": drafters} | common | settings


def test_the_documented_drafter_is_lossless_alone_and_in_a_portfolio(gqa: Pair, repeat: Path) -> None:
    scenarios = [scenario("alone", [REPEAT]), scenario("beside", [TREE, REPEAT])]
    bench = Bench.of(gqa, scenarios, plugins=[str(repeat)])
    for name in ("alone", "beside"):
        served = bench.serve(name, gqa.prompts)
        assert [request.output_token_ids for request in served.requests] == gqa.expected(16)
    (counts, *_) = [p.num_draft_tokens for p in bench.serve("alone", gqa.prompts).profiles]
    assert counts > 0, "it proposed nothing"


def test_the_documented_verifier_judges_and_is_certified(gqa: Pair, tmp_path: Path) -> None:
    path = documented(1, tmp_path / "patient.py")
    bench = Bench.of(gqa, [scenario("mine", [TREE], verifier="patient")], plugins=[str(path)])
    served = bench.serve("mine", gqa.prompts)
    assert [request.output_token_ids for request in served.requests] == gqa.expected(16)
    assert {accepted for profile in served.profiles for accepted in profile.accepted_per_step} == {0}
    rows = certify({"patient": load_methods([path]).verifiers.get("patient")}, default_cases()[:6])
    assert {row.status for row in rows} == {"lossless"}


@pytest.mark.parametrize(
    ("code", "told"),
    [
        (None, "plugin cannot be read"),
        ("x = 1", "plugin offers nothing"),
        ("import nowhere_to_be_found", "ModuleNotFoundError: No module named 'nowhere_to_be_found'"),
        ("VERIFIERS = {'greedy': 1}", "verifier 'greedy' is there already"),
        ("DRAFTERS = [1]", "received: list"),
        ("class Mine: pass\nDRAFTERS = {'mine': Mine}", "plugin drafter 'mine' does not say what contracts it has"),
        ("class Mine: contracts = 'iid'\nDRAFTERS = {'mine': Mine}", "received: 'iid'"),
        ("raise SystemExit(0)", "plugin fails when loaded"),
        (f"{ANY}class Mine: contracts = ANY\nDRAFTERS = {{'mine': Mine()}}", "plugin drafter 'mine' cannot be made"),
        (f"{ANY}class Mine: contracts = ANY\nVERIFIERS = {{'mine': Mine}}", "allowed: an instance; fix: write Mine()"),
        (f"{ANY}class Mine: contracts = ANY\nVERIFIERS = {{'mine': Mine()}}", "verifier 'mine' cannot judge"),
    ],
)
def test_a_file_that_cannot_be_used_is_one_error(tmp_path: Path, code: str | None, told: str) -> None:
    path = tmp_path / "plugin.py"
    if code is not None:
        path.write_text(code, encoding="utf-8")
    with pytest.raises(ConfigError, match=re.escape(told)) as refused:
        load_methods([path])
    assert str(path) in str(refused.value)


WRONG_TREES = {
    "another root": ("TokenTree.chain([5, 6])", "roots its tree in another token"),
    "too many nodes": ("TokenTree.chain([last] * 9)", "proposes too many nodes"),
    "too deep": ("TokenTree.chain([last] * (depth + 2))", "proposes too deep"),
    "no token": ("TokenTree.chain([last] + [10**6] * min(depth, 1))", "proposes what is no token"),
    "a failure": ("1 / 0", "ZeroDivisionError"),
    "no tree": ("None", "something else than trees"),
}
WRONG = """
from treespec.tree import Contract, Proposals, TokenTree

class Wrong:
    contracts = frozenset({{Contract.DETERMINISTIC}})
    def __init__(self, context): pass
    def propose(self, requests, max_depths):
        return [self.tree(request.last_token_id, depth) for request, depth in zip(requests, max_depths)]
    def tree(self, last, depth):
        tree = {tree}
        return tree if tree is None else Proposals.deterministic(tree)
    def observe(self, requests, accepted): pass
    def forget(self, request): pass

DRAFTERS = {{"wrong": Wrong}}
"""


@pytest.mark.parametrize(("tree", "told"), WRONG_TREES.values(), ids=WRONG_TREES)
def test_proposals_that_would_change_the_output_are_refused(gqa: Pair, tmp_path: Path, tree: str, told: str) -> None:
    path = tmp_path / "wrong.py"
    path.write_text(WRONG.format(tree=tree), encoding="utf-8")
    drafters = [{"kind": "plugin", "name": "wrong", "max_nodes": 4}]
    bench = Bench.of(gqa, [scenario("wrong", drafters, max_new_tokens=3)], plugins=[str(path)])
    with pytest.raises(ConfigError, match=f"plugin drafter 'wrong' .*{told}"):
        bench.serve("wrong", gqa.prompts)


WRONG_VERDICTS = {
    "a failure": ("1 / 0", "fails.*ZeroDivisionError"),
    "no list": ("None", "does not judge every tree.*received: NoneType"),
    "too few": ("[]", "does not judge every tree; received: a list of 0; allowed: a list of 1"),
    "another type": ("[((), 1)] * n", "judges by something else.*received: tuple"),
    "the root": ("[VerifyResult((0,), 1)] * n", "accepts what is no path from the root"),
    "no such node": ("[VerifyResult((99,), 1)] * n", "accepts what is no path from the root"),
    "siblings": ("[VerifyResult((1, 1), 1)] * n", "accepts what is no path from the root"),
    "no path": ("[VerifyResult(1, 1)] * n", "accepts what is no path from the root"),
    "no token": ("[VerifyResult((), 10**6)] * n", "emits what is no token.*1000000"),
    "words": ("[VerifyResult((), 'the')] * n", "emits what is no token.*the"),
}
WRONG_VERIFIER = """
from treespec.tree import Contract
from treespec.verify import VerifyResult

class Wrong:
    contracts = frozenset(Contract)
    def verify(self, proposals, target, draws):
        n = len(proposals)
        return {results}

VERIFIERS = {{"wrong": Wrong()}}
"""


@pytest.mark.parametrize(("results", "told"), WRONG_VERDICTS.values(), ids=WRONG_VERDICTS)
def test_verdicts_of_another_form_are_one_error(gqa: Pair, tmp_path: Path, results: str, told: str) -> None:
    path = tmp_path / "wrong.py"
    path.write_text(WRONG_VERIFIER.format(results=results), encoding="utf-8")
    bench = Bench.of(gqa, [scenario("wrong", [TREE], verifier="wrong", max_new_tokens=3)], plugins=[str(path)])
    with pytest.raises(ConfigError, match=f"plugin verifier 'wrong' {told}"):
        bench.serve("wrong", gqa.prompts)


def test_a_verifier_that_says_no_more_judges_trees_at_any_temperature(tmp_path: Path) -> None:
    path = tmp_path / "frozen.py"
    frozen = WRONG_VERIFIER.format(results="[VerifyResult((), 0)] * n").replace(
        "class Wrong:", "class Wrong:\n    __slots__ = ()"
    )
    path.write_text(frozen, encoding="utf-8")
    verifier = load_methods([path]).verifiers.get("wrong")
    assert not verifier.chains_only and not verifier.greedy_only
    assert verifier.contracts == frozenset(Contract)
