"""``treespec audit``: one table, JSON, and status 0 only if every promise holds."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from engine.tests.checkpoints import text_of
from engine.tests.conftest import TinyModels
from engine.tests.decoding import Pair
from treespec import cli
from treespec.audit import certificate, controls
from treespec.audit.divergence import Cause
from treespec.audit.equality import compare_greedy, serve
from treespec.audit.pair import AuditedPair, PairSettings
from treespec.audit.report import AuditRow, all_hold, audit_table
from treespec.config import Sampling
from treespec.serving.engine import Engine

SHORT = ("--samples", "200", "--max-new-tokens", "8", "--threads", "1")

PLUGIN = """
from treespec.tree import Contract
from treespec.verify import GreedyVerifier, SamplerMatchVerifier, VerifyResult


class Likeliest(GreedyVerifier):
    greedy_only = False


class NextToken:
    contracts = frozenset(Contract)
    chains_only = greedy_only = False

    def verify(self, proposals, target, draws):
        results = SamplerMatchVerifier().verify(proposals, target, draws)
        vocab_size = target.probabilities([0]).shape[1]
        return [VerifyResult(r.accepted_nodes, (r.next_token_id + 1) % vocab_size) for r in results]


VERIFIERS = {"likeliest": Likeliest(), "next_token": NextToken()}
"""


@pytest.fixture(autouse=True)
def _few_cases(monkeypatch: pytest.MonkeyPatch) -> None:
    drafts: list[Any] = [(("top_k", (1, 1)),), (("iid", (2,)),), (("iid", (2,)), ("top_k", (1, 1)))]
    cases = tuple(certificate.Case(each, vocab_size=3, kinds=("random",)) for each in drafts)
    monkeypatch.setattr(certificate, "default_cases", lambda: cases)
    mistakes = controls.default_controls()[:2]
    monkeypatch.setattr(controls, "default_controls", lambda: mistakes)


@pytest.fixture
def pair_options(gqa: Pair, tmp_path: Path) -> tuple[str, ...]:
    """The pair with prompts whose greedy texts are clear."""
    texts = [text_of(list(text.prompt)) for text in gqa.texts if min(text.prompt) > 2]
    path = tmp_path / "prompts.json"
    path.write_text(json.dumps(texts[:4]))
    return ("--target", str(gqa.target_folder), "--draft", str(gqa.draft_folder), "--prompts", str(path), *SHORT)


@pytest.fixture
def plugin(tmp_path: Path) -> str:
    """A file with two verifiers that claim too much."""
    path = tmp_path / "plugin.py"
    path.write_text(PLUGIN)
    return str(path)


def audit(*options: str) -> int:
    return cli.main(["audit", *options])


def test_lossless_verifiers_hold(
    pair_options: tuple[str, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "audit.json"
    names = ("--verifier", "greedy", "--verifier", "mss", "--verifier", "block")
    assert audit(*pair_options, *names, "--output", str(path)) == 0
    header, *rows = capsys.readouterr().out.splitlines()
    assert header.split() == ["check", "subject", "found", "allowed", "holds"]
    assert not [row for row in rows if row.endswith("NO")]
    assert sum(row.startswith("negative control") and row.endswith("yes") for row in rows) == 2
    report = json.loads(path.read_text())
    assert report["holds"] is True
    assert report["settings"]["samples"] == 200
    assert report["environment"]["num_threads"] == 1
    by_check: dict[str, list[dict[str, Any]]] = {}
    for row in report["rows"]:
        by_check.setdefault(row["check"], []).append(row)
    subjects = {check: [row["subject"] for row in rows] for check, rows in by_check.items()}
    assert subjects["greedy equality"] == [
        *(f"greedy, {way} <2,2,1>" for way in ("top_k", "iid", "without_replacement")),
        "mss, iid <2,2,1>",
        *(f"block, {way} <1,1,1>" for way in ("top_k", "iid")),
    ]
    assert subjects["target's distribution"] == ["mss, iid <2,2>", "block, top_k <1,1>", "block, iid <1,1>"]
    assert subjects["reported q"] == ["iid <2,2>", "iid <1,1>"]
    assert "mss, portfolios" in subjects["certificate"]
    refused = [row for row in by_check["certificate"] if row["holds"] is None]
    assert [row["subject"] for row in refused][:2] == ["greedy, top_k", "greedy, iid"]
    assert all(row["details"]["degrees_of_freedom"] > 5 for row in by_check["target's distribution"])
    assert all(row["details"]["num_tokens"] == 4 * 8 for row in by_check["greedy equality"])


def test_plugin_that_is_not_lossless_fails(
    plugin: str, pair_options: tuple[str, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "audit.json"
    names = ("--plugin", plugin, "--verifier", "likeliest", "--verifier", "next_token")
    assert audit(*pair_options, *names, "--output", str(path)) == 1
    captured = capsys.readouterr()
    report = json.loads(path.read_text())
    assert report["holds"] is False
    failed = {(row["check"], row["subject"]) for row in report["rows"] if row["holds"] is False}
    assert {check for check, subject in failed if subject.startswith("likeliest")} == {
        "certificate",
        "target's distribution",
    }
    assert {check for check, subject in failed if subject.startswith("next_token")} == {
        "certificate",
        "target's distribution",
        "greedy equality",
    }
    greedy = next(row for row in report["rows"] if row["subject"] == "next_token, top_k <2,2,1>")
    assert {divergence["cause"] for divergence in greedy["details"]["divergences"]} == {Cause.ALGORITHMIC.value}
    assert captured.out.count(" NO\n") == len(failed)
    assert captured.err.count("FAILS: ") == len(failed)


def test_mistake_that_the_certificate_does_not_see_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    control = controls.default_controls()[0]
    blind = replace(control, mistaken=control.right)
    monkeypatch.setattr(controls, "default_controls", lambda: (blind,))
    monkeypatch.chdir(tmp_path)
    assert audit("--verifier", "mss") == 1
    (row,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("negative control")]
    assert row.endswith("NO")


def test_without_models_the_certificate_stands_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert audit("--verifier", "mss") == 0
    last = capsys.readouterr().out.splitlines()[-1]
    assert last.startswith("pair of models")
    assert "not run: no --target and --draft, and no models/embedded/llama here" in last


def test_embedded_pair_is_the_default(
    tiny: TinyModels, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "models" / "embedded" / "llama"
    folder.mkdir(parents=True)
    (folder / "target").symlink_to(tiny.target("mha"))
    (folder / "draft").symlink_to(tiny.draft("mha"))
    monkeypatch.chdir(tmp_path)
    assert audit("--verifier", "sampler_match", *SHORT) == 0
    assert "greedy equality" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (("--verifier", "gready"), ["unknown verifier", "'gready'", "--verifier", "block, greedy, mss"]),
        (("--temperature", "-1"), ["temperature", "greater than or equal to 0", "-1.0"]),
        (("--temperature", "0"), ["nothing is drawn", "allowed: above 0"]),
        (("--top-k", "-2"), ["top_k", "-2"]),
        (("--prompts", "gone.json"), ["gone.json"]),
        (("--output", "gone/audit.json"), ["output cannot be written", "gone", "an existing folder"]),
        (("--plugin", "gone.py"), ["plugin cannot be read", "gone.py"]),
        (("--target", "gone"), ["gone"]),
        (("--dtype", "float16"), ["float32 or bfloat16"]),
        (("--max-new-tokens", "5000"), ["beyond the positions", "prompt 0: ", "lower --max-new-tokens to"]),
    ],
    ids=" ".join,
)
def test_mistake_is_one_line_before_anything_runs(
    options: tuple[str, ...], told: list[str], pair_options: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    assert audit(*pair_options, *options) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    (line,) = captured.err.splitlines()
    assert line.startswith("treespec: error: ")
    for part in told:
        assert part in line


def test_half_a_pair_is_a_mistake(gqa: Pair, capsys: pytest.CaptureFixture[str]) -> None:
    assert audit("--target", str(gqa.target_folder)) == 2
    assert "a pair is two models" in capsys.readouterr().err


@pytest.mark.parametrize("option", ["--samples", "--max-new-tokens", "--threads"])
def test_numbers_are_positive(option: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        audit(option, "0")
    assert f"{option}: a positive number, received '0'" in capsys.readouterr().err


def test_emitting_something_else_than_was_verified_is_algorithmic(gqa: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = PairSettings(
        target=gqa.target_folder,
        draft=gqa.draft_folder,
        prompts=("abc", "Hello"),
        prompts_from="this test",
        verifiers=("greedy",),
        sampling=Sampling(temperature=1),
        max_new_tokens=8,
        num_threads=1,
    )
    pair = AuditedPair.load(settings)
    expected = serve(pair.loaded, pair.baseline, pair.prompts)

    def forbidden() -> Any:
        raise AssertionError("no logits are needed to see this")

    equal = compare_greedy(pair.loaded, pair.greedy[0], pair.prompts, expected, forbidden)
    assert (equal.holds, equal.num_tokens, equal.verdicts) == (True, 16, ())
    emit = Engine._emit

    def emit_zero(engine: Engine, request: Any, proposals: Any, verdict: Any) -> tuple[int, ...]:
        kept = emit(engine, request, proposals, verdict)
        if request.request_id == 1 and len(request.output_token_ids) == 8:
            request.output_token_ids[-1] = 0
        return kept

    monkeypatch.setattr(Engine, "_emit", emit_zero)
    wrong = compare_greedy(pair.loaded, pair.greedy[0], pair.prompts, expected, forbidden)
    (verdict,) = wrong.verdicts
    assert (verdict.request_id, verdict.position, verdict.cause) == (1, 7, Cause.ALGORITHMIC)
    assert not wrong.holds


def test_checks_that_are_not_run_do_not_fail() -> None:
    held, left_out = AuditRow("a", "b", "c", "d", True), AuditRow.not_run("e", "no models")
    assert all_hold([held, left_out])
    assert not all_hold([held, AuditRow("a", "b", "c", "d", False)])
    lines = audit_table([held, left_out]).splitlines()
    assert lines[1].endswith("yes")
    assert lines[2].split(maxsplit=1) == ["e", "not run: no models"]
