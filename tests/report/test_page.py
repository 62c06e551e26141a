"""The page says what is there and what is not, needs no other file, and takes nothing of the data for HTML."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path

import pytest

from figures.gallery import FIGURES
from report.cli import main
from report.figures import SECTIONS
from tests.report.page_parts import Page, read_page
from tests.report.results_files import CAPTION, DONE, FAILED, write_config, write_figure, write_record, write_results
from treespec.model.synthetic.card import MARK

EVIL = "<script>alert('x')</script>&\"'"
MAX_BYTES = 10_000_000


def page_of(results: Path, tmp_path: Path, *words: str) -> Page:
    """What ``python -m report`` writes."""
    output = tmp_path / "report.html"
    config = write_config(tmp_path / "config")
    assert main(["--results", str(results), "--output", str(output), "--config-dir", str(config), *words]) == 0
    return read_page(output.read_text(encoding="utf-8"))


@pytest.fixture
def results(tmp_path: Path) -> Path:
    return write_results(tmp_path / "results/made_up")


def test_every_part_is_there_and_can_be_reached(results: Path, tmp_path: Path) -> None:
    page = page_of(results, tmp_path)
    parts = ["about", "claims", "figures", "tables", "progress", "origins", "configuration", "rerun"]
    assert [name for name in page.ids if name in parts] == parts
    assert len(set(page.ids)) == len(page.ids)
    anchors = [address.removeprefix("#") for address in page.addresses if address.startswith("#")]
    assert set(parts) <= set(anchors) <= set(page.ids)
    assert "made up for tests" in page.section("about")
    assert "2026-01-02T03:04:05+00:00" in page.section("about")
    assert "1 of 3 planned scenarios" in page.section("about")


def test_nothing_is_fetched(results: Path, tmp_path: Path) -> None:
    page = page_of(results, tmp_path)
    assert [address[:40] for address in page.addresses if not address.startswith(("#", "data:"))] == []
    text = (tmp_path / "report.html").read_text()
    assert not re.search(r"https?://|url\(|@import", text)
    assert "default-src 'none'" in text


def test_weights_are_called_what_they_are(results: Path, tmp_path: Path) -> None:
    about = page_of(results, tmp_path).section("about")
    assert (
        "Target: embedded LLaMA target, inflated to 105M parameters; a small model, trained for this repository"
        in about
    )
    assert "padded in memory to the work of a larger model" in about
    assert "made up: its times" not in about


def test_synthetic_weights_are_told_with_their_shape(results: Path, tmp_path: Path) -> None:
    (meta,) = (results / "raw").glob("*.meta.json")
    record = json.loads(meta.read_text())
    record["models"]["drafts"] = [{"description": f"draft, 7.41M parameters, draft of the LLaMA-7B shape, {MARK}"}]
    meta.write_text(json.dumps(record))
    about = page_of(results, tmp_path).section("about")
    assert "draft of the LLaMA-7B shape, synthetic weights; its weights are made up: its times" in about


def test_verdicts_have_a_word_and_a_colour_each(results: Path, tmp_path: Path) -> None:
    page = page_of(results, tmp_path)
    for text in ("REPRODUCED", "NOT REPRODUCED", "NOT TESTABLE HERE", "trees beat sequences", "0.7-0.95", "below 1"):
        assert text in page.section("claims")
    of_claims = page.verdicts[-3:]
    assert of_claims == ["verdict good", "verdict bad", "verdict open"]


def test_a_figure_has_its_caption_and_an_alternative(results: Path, tmp_path: Path) -> None:
    page = page_of(results, tmp_path)
    (image,) = page.images
    assert image["src"].startswith("data:image/png;base64,")
    assert image["alt"].startswith("Latency per token by mode and batch size (the paper's figure 7)")
    assert CAPTION in page.section("figure-server_latency")


def test_missing_figures_are_shown_as_missing(results: Path, tmp_path: Path) -> None:
    page = page_of(results, tmp_path)
    assert "Missing: figures/rank_success.png is not there" in page.section("figure-rank_success")
    assert "snakemake figures" in page.section("figure-rank_success")
    assert "1 of 18 figures" in page.section("about")


def test_a_cut_figure_is_no_figure(results: Path, tmp_path: Path) -> None:
    path = results / "figures/server_latency.png"
    path.write_bytes(path.read_bytes()[:-20])
    page = page_of(results, tmp_path)
    assert page.images == []
    assert "The file is no whole PNG." in page.section("figure-server_latency")


def test_a_figure_nobody_expects_is_shown(results: Path, tmp_path: Path) -> None:
    write_figure(results, "my_own")
    assert "my own" in page_of(results, tmp_path).section("figure-my_own")


def test_every_figure_of_the_gallery_has_a_title() -> None:
    assert {entry.name for _, entries in SECTIONS for entry in entries} == FIGURES.keys()


def test_what_is_not_done_is_named_with_the_command(results: Path, tmp_path: Path) -> None:
    told = page_of(results, tmp_path, "--run-command", "snakemake {target} --config platform=g5").section("progress")
    assert f"{FAILED}: failed: out of memory" in told
    assert DONE not in told
    for experiment in ("server_gpu", "tree_width"):
        assert f"snakemake {experiment}_experiments --config platform=g5" in told


def test_long_tables_are_cut_and_blank_columns_left_out(results: Path, tmp_path: Path) -> None:
    told = page_of(results, tmp_path).section("tables")
    assert "The first 250 of 1000 rows; all are in csv/requests.csv." in told
    assert "Columns without a value are left out: draft." in told


def test_hardware_is_told_by_the_records(results: Path, tmp_path: Path) -> None:
    write_record(results, FAILED, commit="fedcba987654")  # the tables say that it does not count
    told = page_of(results, tmp_path).section("origins")
    assert "1 record of server_gpu" in told
    assert "Example CPU" in told and "float32" in told and "0123456789ab" in told
    assert "fedcba987654" not in told


def test_configuration_is_shown(results: Path, tmp_path: Path) -> None:
    told = page_of(results, tmp_path).section("configuration")
    for text in ("made_up/platform.yaml", "platform: made_up", "config/experiments/server_gpu.yaml", "prefix: server"):
        assert text in told


def test_data_is_never_taken_for_html(tmp_path: Path) -> None:
    plain = page_of(write_results(tmp_path / "a/results"), tmp_path)
    results = write_results(tmp_path / "b/results", label=EVIL)
    claims = results / "claims.csv"
    claims.write_text(claims.read_text().replace("trees beat sequences", "<script>alert(1)</script>"))
    (results / "platform.yaml").write_text(f"description: {EVIL!r}\n")
    write_record(results, DONE, cpu=EVIL)
    page = page_of(results, tmp_path, "--run-command", "snakemake {target} --config 'raw_dir=<script>'")
    assert page.tags.count("script") == plain.tags.count("script") == 1
    assert EVIL in page.section("tables")
    assert EVIL in page.section("origins")
    assert "<script>alert(1)</script>" in page.section("claims")


def test_nothing_measured_yet(tmp_path: Path) -> None:
    (tmp_path / "results").mkdir()
    page = page_of(tmp_path / "results", tmp_path)
    assert "Nothing is measured yet." in page.section("about")
    assert "No claim is judged yet: snakemake claims." in page.section("about")
    assert "Missing." in page.section("claims")


def test_records_that_went_away_are_counted(results: Path, tmp_path: Path) -> None:
    (results / f"raw/{DONE}.meta.json").write_text('{"environment"')
    told = page_of(results, tmp_path).section("origins")
    assert "1 record could not be asked" in told
    assert "No record says yet" in told


def test_records_that_nothing_plans_are_told(results: Path, tmp_path: Path) -> None:
    assert "Not planned" not in page_of(results, tmp_path).section("progress")
    write_record(results, "server_small-64_batchsize-incr_dec")
    told = page_of(results, tmp_path).section("progress")
    assert "Not planned, and in no table or figure: 1 record in raw/ (server_small-64_batchsize-incr_dec)" in told


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (lambda results: (results / "csv/server.csv").write_text("a,b\n1\n"), "server.csv:2: 1 cells under 2 columns"),
        (lambda results: (results / "claims.csv").write_text("id,verdict\n"), "columns are missing: source"),
        (lambda results: (results / "csv/server.csv").write_bytes(b"\xff\xfe"), "server.csv: table cannot be read"),
    ],
)
def test_what_cannot_be_read_is_one_line(
    results: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], spoil: object, told: str
) -> None:
    assert callable(spoil)
    spoil(results)
    assert main(["--results", str(results), "--output", str(tmp_path / "report.html")]) == 2
    said = capsys.readouterr().err
    assert told in said and len(said.splitlines()) == 1
    assert not (tmp_path / "report.html").exists()


def test_no_results_folder_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--results", str(tmp_path / "none"), "--output", str(tmp_path / "report.html")]) == 2
    assert "no such results folder" in capsys.readouterr().err


def test_a_full_page_is_quick_and_not_too_large(tmp_path: Path) -> None:
    names = tuple(entry.name for _, entries in SECTIONS for entry in entries)
    results = write_results(tmp_path / "results")
    drawn = (results / "figures/server_latency.png").read_bytes()
    for name in names:
        (results / f"figures/{name}.png").write_bytes(drawn)
    for number in range(300):
        write_record(results, f"scenario_{number}")
    began = time.process_time()
    page = page_of(results, tmp_path, "--crate", "--citation", "CITATION.cff")
    assert time.process_time() - began < 5
    assert len(page.images) == len(names)
    assert (tmp_path / "report.html").stat().st_size < MAX_BYTES
