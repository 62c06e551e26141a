"""``treespec compare`` and ``treespec describe``: any two folders, three modes, one table."""

from __future__ import annotations

import json
import shutil
import struct
from pathlib import Path

import pytest

from engine.tests.checkpoints import text_of
from engine.tests.conftest import TinyModels
from engine.tests.decoding import Pair
from treespec import cli
from treespec.serving import comparison
from treespec.serving.comparison_picture import comparison_figure, require_drawable, write_comparison_picture

SHORT = ("--max-new-tokens", "6", "--repeats", "2", "--threads", "1")


@pytest.fixture
def prompts(gqa: Pair, tmp_path: Path) -> Path:
    """Prompts with clear greedy texts and no special tokens."""
    texts = [text_of(list(text.prompt)) for text in gqa.texts if min(text.prompt) > 2]
    path = tmp_path / "prompts.json"
    path.write_text(json.dumps(texts[:4]))
    return path


def compare(pair: Pair, prompts: Path, *options: str) -> int:
    arguments = ["compare", str(pair.target_folder), str(pair.draft_folder), "--prompts", str(prompts), *SHORT]
    return cli.main([*arguments, *options])


def test_table_has_a_row_per_mode_and_batch_size(gqa: Pair, prompts: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert compare(gqa, prompts, "--batch-size", "1,3", "--tree", "2,2,1") == 0
    out = capsys.readouterr().out
    header, *rows = out.splitlines()[:7]
    assert header.split()[:3] == ["batch", "mode", "expansion"]
    assert [row.split()[:2] for row in rows] == [[b, m] for b in "13" for m in ("incremental", "sequence", "tree")]
    assert all(row.endswith("yes") for row in rows)
    assert "<2,2,1>" in rows[2]
    assert "4 prompts" in out


def test_batch_sizes_beyond_the_prompts_are_refused(
    gqa: Pair, prompts: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert compare(gqa, prompts, "--batch-size", "2,64") == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert f"{prompts}; received: 4 prompts for --batch-size 64; allowed: batch sizes up to 4" in captured.err


@pytest.mark.parametrize("command", ["compare", "explain"])
def test_a_prompt_beyond_the_positions_is_named_with_what_would_do(
    gqa: Pair, tmp_path: Path, command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    def told(num_tokens: int) -> str:
        path = tmp_path / "prompts.json"
        path.write_text(json.dumps(["ab", "cd", "x" * num_tokens, "ef"]))
        pair = str(gqa.target_folder), str(gqa.draft_folder)
        assert cli.main([command, *pair, "--prompts", str(path), "--max-new-tokens", "6", "--threads", "1"]) == 2
        return capsys.readouterr().err.splitlines()[-1]

    assert "prompt 2: 253 tokens, and 6 new tokens; allowed: at most 256 together" in told(253)
    assert told(253).endswith("fix: shorten the prompts, or lower --max-new-tokens to 3")
    assert told(300).endswith("fix: shorten the prompts")


def test_json_holds_everything_measured(gqa: Pair, prompts: Path, tmp_path: Path) -> None:
    path = tmp_path / "comparison.json"
    assert compare(gqa, prompts, "--json", str(path)) == 0
    measured = json.loads(path.read_text())
    rows = measured["rows"]
    assert [(row["batch_size"], row["mode"]) for row in rows][:3] == [(1, "incremental"), (1, "sequence"), (1, "tree")]
    for row in rows:
        assert row["speedup_low"] <= row["speedup"] <= row["speedup_high"]
        assert row["ms_per_token"] > 0
        assert row["divergence"] is None
        assert row["tokens_per_step"] >= 1
    assert (rows[0]["speedup"], rows[0]["tokens_per_step"]) == (1, 1)
    assert rows[2]["tokens_per_step"] > 1
    assert measured["num_prompts"] == 4


def test_tokens_that_differ_are_told_with_status_1(
    gqa: Pair, prompts: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    serve_pass = comparison.serve_pass

    def with_an_error(*arguments: object) -> comparison.ServedPass:
        served = serve_pass(*arguments)  # type: ignore[arg-type]
        if arguments[1].mode == "tree":  # type: ignore[attr-defined]
            served.requests[2].output_token_ids[3] = 0
        return served

    monkeypatch.setattr(comparison, "serve_pass", with_an_error)
    assert compare(gqa, prompts, "--batch-size", "2") == 1
    captured = capsys.readouterr()
    tree = next(line for line in captured.out.splitlines() if " tree " in line)
    assert "NO: prompt 2, token 3: incremental" in tree
    assert tree.endswith("here 0")
    assert "different tokens" in captured.err


def test_default_prompts_are_served_by_any_tokenizer(tiny: TinyModels, capsys: pytest.CaptureFixture[str]) -> None:
    """Random models may have near-ties on them, so that only the form is looked at."""
    status = cli.main(["compare", str(tiny.target("mha")), str(tiny.draft("mha")), *SHORT, "--batch-size", "4"])
    assert status in (0, 1)
    assert "8 prompts" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (("--repeats", "0"), "num_repeats"),
        (("--max-new-tokens", "5000"), "beyond the positions"),
        (("--tree", "1,1"), "which is sequence"),
        (("--tree", "8,8,8"), "allowed: max_tree_nodes = 64"),
        (("--dtype", "float16"), "float32 or bfloat16"),
        (("--prompts", "gone.json"), "gone.json"),
        (("--json", "gone/out.json"), "does not exist"),
        (("--png", "speedup.foo"), "allowed: a name that ends in .png, .pdf, .svg"),
        (("--png", "speedup"), "allowed: a name that ends in .png, .pdf, .svg"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_mistake_is_one_line(
    options: tuple[str, ...],
    told: str,
    gqa: Pair,
    prompts: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(comparison, "serve_pass", lambda *_: pytest.fail("measured before it was refused"))
    assert compare(gqa, prompts, *options) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    (line,) = captured.err.splitlines()
    assert line.startswith("treespec: error: ")
    assert told in line


@pytest.mark.parametrize("role", ["target", "draft"])
def test_folder_that_is_not_there_is_told(
    role: str, gqa: Pair, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folders = {"target": gqa.target_folder, "draft": gqa.draft_folder} | {role: tmp_path / "gone"}
    assert cli.main(["compare", *map(str, folders.values()), *SHORT]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert str(tmp_path / "gone") in line


def test_speedup_is_paired_and_its_interval_is_reproducible(
    gqa: Pair, prompts: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Every request of tree mode is made to take half the time of its incremental twin."""
    serve_pass = comparison.serve_pass

    def timed(*arguments: object) -> comparison.ServedPass:
        served = serve_pass(*arguments)  # type: ignore[arg-type]
        for index, profile in enumerate(served.profiles):
            factor = {"incremental": 4, "sequence": 1, "tree": 2}[arguments[1].mode]  # type: ignore[attr-defined]
            profile.start_us, profile.finish_us = 0, factor * (index + 1) * 6000
        return served

    monkeypatch.setattr(comparison, "serve_pass", timed)
    path = tmp_path / "comparison.json"
    compare(gqa, prompts, "--batch-size", "1", "--json", str(path))
    rows = {row["mode"]: row for row in json.loads(path.read_text())["rows"]}
    assert [rows[mode]["speedup"] for mode in ("incremental", "sequence", "tree")] == [1, 4, 2]
    assert (rows["tree"]["speedup_low"], rows["tree"]["speedup_high"]) == (2, 2)
    assert rows["incremental"]["ms_per_token"] == pytest.approx(4 * 2.5)


def test_one_sample_has_no_interval(
    gqa: Pair, tmp_path: Path, prompts: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    prompts.write_text(json.dumps(json.loads(prompts.read_text())[:1]))
    path = tmp_path / "comparison.json"
    assert compare(gqa, prompts, "--repeats", "1", "--batch-size", "1", "--json", str(path)) == 0
    rows = capsys.readouterr().out.splitlines()[1:4]
    assert not any("[" in row for row in rows)
    for row in json.loads(path.read_text())["rows"]:
        assert row["speedup"] > 0
        assert row["speedup_low"] is row["speedup_high"] is None


def test_footer_tells_what_a_speedup_is(gqa: Pair, prompts: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert compare(gqa, prompts, "--batch-size", "1") == 0
    assert "prompt by prompt and round by round" in capsys.readouterr().out


def made_up(description: str, low: float | None, high: float | None) -> comparison.Comparison:
    rows = tuple(
        comparison.ComparisonRow(batch_size, mode, (), 9.0, 1.5, low, high, 2.0, None)
        for batch_size in (1, 4)
        for mode in ("incremental", "sequence", "tree")
    )
    return comparison.Comparison(description, description, 8, {}, {}, rows)


@pytest.mark.parametrize(("suffix", "start"), [(".png", b"\x89PNG"), (".PDF", b"%PDF"), (".svg", b"<?xml")])
def test_picture_is_drawn_in_every_allowed_format(suffix: str, start: bytes, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    paths = [tmp_path / f"{index}{suffix}" for index in range(2)]
    for path in paths:
        require_drawable(path)
        write_comparison_picture(made_up("target, 1M parameters", 1.4, 1.7), path)
        assert path.read_bytes().startswith(start)
    assert sorted(tmp_path.iterdir()) == paths


def test_picture_has_bars_of_intervals_only_where_there_are_any(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    sizes, words = [], []
    for low, high in ((1.4, 1.7), (None, None)):
        path = tmp_path / f"{low}.svg"
        write_comparison_picture(made_up("target, 1M parameters", low, high), path)
        text = path.read_text()
        sizes.append(text.count("LineCollection"))
        words.append("95 % interval" in text)
    assert sizes == [6, 0]
    assert words == [True, False]


def test_picture_holds_its_title_and_labels() -> None:
    """Nothing that is written reaches the figure's edge, however long the models' descriptions are."""
    pytest.importorskip("matplotlib")
    figure = comparison_figure(made_up("a-rather-long-name, 29.9M parameters, int8 in groups of 128, " * 3, 1.4, 1.7))
    figure.draw_without_rendering()
    drawn, (width, height) = figure.get_tightbbox(), figure.get_size_inches()
    assert min(drawn.x0, drawn.y0, width - drawn.x1, height - drawn.y1) > 0.05


def test_description_of_this_machine_is_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["describe"]) == 0
    described = json.loads(capsys.readouterr().out)
    assert described["cpu"]["computes"] is True
    assert described["cpu"]["memory_mib"] > 100
    assert {"commit", "cpu", "num_threads", "python", "torch", "treespec"} <= set(described["environment"])
    assert cli.main(["describe", "--output", str(tmp_path / "device.json")]) == 0
    assert set(json.loads((tmp_path / "device.json").read_text())) == set(described)
    assert cli.main(["describe", "--output", "/dev/null/device.json"]) == 2


def test_model_larger_than_memory_is_told_before_it_is_mapped(
    gqa: Pair, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # A sparse file: the header promises 4 TiB, the disk holds the header.
    folder, num_bytes = tmp_path / "huge", 1 << 42
    shutil.copytree(gqa.target_folder, folder)
    tensor = {"dtype": "F16", "shape": [num_bytes // 2], "data_offsets": [0, num_bytes]}
    header = json.dumps({"model.norm.weight": tensor}).encode()
    with open(folder / "model.safetensors", "wb") as file:
        file.write(struct.pack("<Q", len(header)) + header)
        file.truncate(8 + len(header) + num_bytes)
    assert cli.main(["compare", str(folder), str(gqa.draft_folder), *SHORT]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "the model is larger than the free memory" in line
    assert f"{(num_bytes * 2) >> 20} MiB of weights in float32" in line
