"""The basic test passes on a right engine, and fails on every planted error."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import basic_test
from engine.tests.checkpoints import text_of
from engine.tests.conftest import TinyModels
from engine.tests.decoding import clear_texts, load, ragged_prompts
from treespec.draft import ssm as ssm_module
from treespec.draft.ssm import SsmDrafter
from treespec.kvcache.pool import KVCachePool
from treespec.ops.draws import Draws
from treespec.ops.sampling import TargetRows
from treespec.request import Request
from treespec.runner import ForwardRow
from treespec.serving import engine as engine_module
from treespec.tree import Proposals, TokenTree
from treespec.verify import GreedyVerifier, VerifyResult

NUM_PROMPTS, NUM_NEW_TOKENS = 4, 24  # fewer than the basic test's own, to the same effect


def shorten(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(basic_test, "NUM_PROMPTS", NUM_PROMPTS)
    patch.setattr(basic_test, "NUM_NEW_TOKENS", NUM_NEW_TOKENS)


@pytest.fixture(scope="module")
def prompts(tiny: TinyModels, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Prompts longer than the basic test's chunks, with clear greedy texts."""
    shape = tiny.shape("mha")
    candidates = [ids for ids in ragged_prompts(5, 120, 60, shape.vocab_size) if len(ids) > 25]
    decoder = load(tiny.target("mha"), torch.float64).decoder
    texts = clear_texts(decoder, candidates, NUM_NEW_TOKENS, NUM_PROMPTS)
    path = tmp_path_factory.mktemp("basic") / "prompts.json"
    path.write_text(json.dumps([text_of(list(text.prompt)) for text in texts]))
    return path


@pytest.fixture(scope="module")
def reference(tiny: TinyModels, prompts: Path) -> list[list[int]]:
    """What transformers generates, computed once."""
    with pytest.MonkeyPatch.context() as patch:
        shorten(patch)
        return basic_test.reference_token_ids(tiny.target("mha"), prompts)


RunChecks = Callable[[], list[dict[str, object]]]


@pytest.fixture
def run_checks(
    tiny: TinyModels, prompts: Path, reference: list[list[int]], monkeypatch: pytest.MonkeyPatch
) -> RunChecks:
    """The basic test on the tiny pair, which is faster on one thread."""
    monkeypatch.setattr(torch, "set_num_threads", lambda _: None)
    shorten(monkeypatch)
    monkeypatch.setattr(basic_test, "reference_token_ids", lambda *_: reference)
    return lambda: basic_test.run_checks(tiny.target("mha"), tiny.draft("mha"), prompts)


def test_every_check_holds_on_a_right_engine(run_checks: RunChecks) -> None:
    report = run_checks()
    assert all(check["holds"] for check in report)
    told = " / ".join(str(check["check"]) for check in report)
    for mode in ("incremental, batch 1", "incremental, batch 4", "sequence, batch 4", "wide tree, draft = target"):
        assert mode in told


def siblings_are_seen(patch: pytest.MonkeyPatch) -> None:
    def ancestors(tree: TokenTree) -> np.ndarray:
        mask = np.eye(len(tree), dtype=bool)
        for node in range(1, len(tree)):
            mask[node] |= mask[tree.parents[node]] | (tree.parents == tree.parents[node])
        return mask

    patch.setattr(TokenTree, "ancestors", property(ancestors))


def descendants_are_seen(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(TokenTree, "ancestors", property(lambda tree: np.ones((len(tree), len(tree)), dtype=bool)))


def tree_positions_are_off_by_one(patch: pytest.MonkeyPatch) -> None:
    request_rows = engine_module.request_rows

    def shifted(*words: Any) -> list[ForwardRow]:
        rows = request_rows(*words)
        for row in rows:
            if row.num_logits > 1:
                row.positions[-row.num_logits + 1 :] += 1
        return rows

    patch.setattr(engine_module, "request_rows", shifted)


def moves_are_not_carried_out(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(KVCachePool, "move", lambda *_: None)


def a_cache_entry_is_another_tokens(patch: pytest.MonkeyPatch) -> None:
    write = KVCachePool.write

    def swapped(pool: KVCachePool, layer: int, slots_T: torch.Tensor, k_TGD: torch.Tensor, v_TGD: torch.Tensor) -> None:
        write(pool, layer, slots_T, k_TGD, v_TGD.roll(1, dims=0))

    patch.setattr(KVCachePool, "write", swapped)


def a_wrong_child_is_accepted(patch: pytest.MonkeyPatch) -> None:
    verify = GreedyVerifier.verify

    def lenient(
        verifier: GreedyVerifier, proposals: Sequence[Proposals], target: TargetRows, draws: Draws
    ) -> list[VerifyResult]:
        results = verify(verifier, proposals, target, draws)
        starts = np.cumsum([0, *(len(item.tree) for item in proposals)])
        choices = target.likeliest()
        for index, (item, result) in enumerate(zip(proposals, results, strict=True)):
            end = result.accepted_nodes[-1] if result.accepted_nodes else 0
            if children := item.tree.children[end]:
                child = next(iter(children.values()))
                results[index] = VerifyResult((*result.accepted_nodes, child), choices[starts[index] + child])
        return results

    patch.setattr(GreedyVerifier, "verify", lenient)


def draft_positions_are_off_by_one(patch: pytest.MonkeyPatch) -> None:
    level_row = SsmDrafter._level_row

    def shifted(drafter: SsmDrafter, growth: ssm_module._Growing) -> ForwardRow:
        row = level_row(drafter, growth)
        row.positions[:] += 1
        return row

    patch.setattr(SsmDrafter, "_level_row", shifted)


def draft_keeps_the_wrong_nodes(patch: pytest.MonkeyPatch) -> None:
    observe = SsmDrafter.observe

    def first_nodes(drafter: SsmDrafter, requests: Sequence[Request], accepted: Sequence[Sequence[int]]) -> None:
        observe(drafter, requests, [range(1, len(nodes) + 1) for nodes in accepted])

    patch.setattr(SsmDrafter, "observe", first_nodes)


def drafts_are_never_accepted(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(GreedyVerifier, "verify", lambda _, proposals, target, draws: [
        VerifyResult((), target.likeliest()[start])
        for start in np.cumsum([0, *(len(item.tree) for item in proposals)])[:-1]
    ])  # fmt: skip


def a_token_is_lost(patch: pytest.MonkeyPatch) -> None:
    append = Request.append

    def lossy(request: Request, token_ids: Sequence[int], decode: Callable[[Sequence[int]], str]) -> int:
        taken = append(request, token_ids, decode)
        if request.finish_reason is not None:
            request.output_token_ids.pop()
        return taken

    patch.setattr(Request, "append", lossy)


@pytest.mark.parametrize(
    ("plant", "failing"),
    [
        (siblings_are_seen, r"^(wide )?tree, batch 1: tokens equal incremental$"),
        (descendants_are_seen, r"^sequence, batch 1: tokens equal incremental$"),
        (tree_positions_are_off_by_one, r"^sequence, batch 1: tokens equal incremental$"),
        (moves_are_not_carried_out, r"^(wide )?tree, batch 1: tokens equal incremental$"),
        (a_cache_entry_is_another_tokens, r"equal"),
        (a_wrong_child_is_accepted, r"^sequence, batch 1: tokens equal incremental$"),
        (draft_positions_are_off_by_one, r"^sequence, draft = target: accepted to full depth$"),
        (draft_keeps_the_wrong_nodes, r"tree, draft = target: accepted to full depth$"),
        (drafts_are_never_accepted, r"^sequence, batch 1: drafts are accepted and steps are saved$"),
        (a_token_is_lost, r"^incremental, batch 1: every request has all its tokens$"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_planted_error_fails_the_check_that_guards_against_it(
    plant: Callable[[pytest.MonkeyPatch], None], failing: str, run_checks: RunChecks, monkeypatch: pytest.MonkeyPatch
) -> None:
    plant(monkeypatch)
    with pytest.raises(basic_test.CheckFailedError, match=failing):
        run_checks()


def test_failure_is_told_with_status_1_and_without_the_passing_words(
    run_checks: RunChecks, tiny: TinyModels, prompts: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    moves_are_not_carried_out(monkeypatch)
    options = ["--target", tiny.target("mha"), "--draft", tiny.draft("mha"), "--prompts", prompts]
    monkeypatch.setattr(sys, "argv", ["basic_test.py", *map(str, options)])
    assert basic_test.main() == 1
    captured = capsys.readouterr()
    assert "Test passed!" not in captured.out
    assert captured.err.startswith("Test failed: ")


def test_mistake_of_the_user_is_one_line_with_status_2(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["basic_test.py", "--target", str(tmp_path / "gone")])
    assert basic_test.main() == 2
    captured = capsys.readouterr()
    assert captured.err.startswith("error: ")
    assert len(captured.err.splitlines()) == 1


# Serves a job from a table of tokens; the second word says which scenario is to go wrong.
LAUNCHER = """
import json, pathlib, sys
tokens, wrong, options = json.load(open(sys.argv[1])), sys.argv[2], dict(zip(sys.argv[3::2], sys.argv[4::2]))
job = json.load(open(options["--config"]))
degrees = [job["placement"][f"{axis}_parallel_degree"] for axis in ("tensor", "pipeline")]
if wrong == "the job is done" or degrees != [2, 2]:
    sys.exit(f"host node1: told to fail with {degrees}")
for scenario in job["scenarios"]:
    rows = [
        {"prompt_index": index, "output_token_ids": ids[: scenario["max_new_tokens"]]}
        for index, ids in enumerate(tokens[: scenario["num_prompts"]])
    ]
    if wrong.startswith(scenario["name"]):
        rows[-1]["output_token_ids"][-1] += 1
    path = pathlib.Path(options["--output-dir"], scenario["name"] + ".jsonl")
    path.write_text("".join(json.dumps(row) + "\\n" for row in reversed(rows)))
"""


@pytest.fixture
def check_ranks(
    tiny: TinyModels, prompts: Path, reference: list[list[int]], monkeypatch: pytest.MonkeyPatch
) -> Callable[[basic_test.Ranks], list[dict[str, object]]]:
    """The checks of several ranks alone, against what one process is known to write."""
    shorten(monkeypatch)

    def check(ranks: basic_test.Ranks) -> list[dict[str, object]]:
        report: list[dict[str, object]] = []
        placement = ranks.placement(tiny.target("mha"), tiny.draft("mha"))
        basic_test._check_ranks(basic_test.Outcome(reference, [], []), ranks, placement, prompts, report)
        return report

    return check


CheckRanks = Callable[[basic_test.Ranks], list[dict[str, object]]]


@pytest.fixture
def stand_in(tmp_path: Path, reference: list[list[int]]) -> Callable[[str], tuple[str, ...]]:
    """Words that start a job of which the named check has to fail; "" for none."""
    (tmp_path / "tokens.json").write_text(json.dumps(reference))
    (tmp_path / "launcher.py").write_text(LAUNCHER)
    return lambda wrong: (sys.executable, str(tmp_path / "launcher.py"), str(tmp_path / "tokens.json"), wrong)


def test_ranks_are_started_by_the_words_given(
    check_ranks: CheckRanks, stand_in: Callable[[str], tuple[str, ...]]
) -> None:
    report = check_ranks(basic_test.Ranks(launch=stand_in("")))
    assert [check["check"] for check in report] == [
        "2 x 2 ranks: the job is done",
        "2 x 2 ranks, incremental: tokens equal one process",
        "2 x 2 ranks, tree: tokens equal one process",
    ]


@pytest.mark.parametrize(
    "failing", ["the job is done", "incremental: tokens equal one process", "tree: tokens equal one process"]
)
def test_ranks_that_go_wrong_fail_the_check_that_guards_against_it(
    check_ranks: CheckRanks,
    stand_in: Callable[[str], tuple[str, ...]],
    failing: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(basic_test.CheckFailedError, match=failing):
        check_ranks(basic_test.Ranks(launch=stand_in(failing)))
    assert ("host node1: told to fail" in capsys.readouterr().err) == (failing == "the job is done")


def test_a_launcher_that_is_not_there_is_a_failed_check(
    check_ranks: CheckRanks, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(basic_test.CheckFailedError, match="the job is done"):
        check_ranks(basic_test.Ranks(launch=("no-such-launcher",)))
    assert "no-such-launcher: No such file" in capsys.readouterr().err


def test_a_model_that_cannot_be_divided_is_skipped_and_said_to_be(
    check_ranks: CheckRanks, capsys: pytest.CaptureFixture[str]
) -> None:
    assert check_ranks(basic_test.Ranks(tensor_degree=97, launch=("false",))) == []
    assert capsys.readouterr().out.startswith("skipped 97 x 2 ranks: attention heads cannot be divided")


@pytest.mark.slow
def test_the_engines_own_ranks_write_what_one_process_writes(check_ranks: CheckRanks) -> None:
    assert all(check["holds"] for check in check_ranks(basic_test.Ranks()))


def test_everything_after_launch_starts_the_ranks(monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[object] = []
    monkeypatch.setattr(basic_test, "run_checks", lambda *words: given.extend(words) or [])
    words = ["python", "-m", "cluster", "run", "--cluster", "lab.yaml", "--ranks", "8"]
    monkeypatch.setattr(sys, "argv", ["basic_test.py", "--degrees", "4", "2", "--launch", *words])
    assert basic_test.main() == 0
    assert given[-1] == basic_test.Ranks(4, 2, tuple(words))
