"""Runs of the original artifact: which file of a run counts, what a running sum tells, and what is not trusted."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from data_parsing.cli import main
from data_parsing.original.artifact_texts import read_text_log

GOLDEN = Path(__file__).parents[1] / "data_parsing/golden"


def block(total_us: float, steps: int = 100, text: str = "<s> words") -> str:
    return f"end-to-end latency: {total_us:.3f}\nnum decoding steps: {steps}\ntoken IDs: 1,2,3\n{text}"


def parsed(tmp_path: Path, files: dict[str, str]) -> pd.DataFrame:
    """The table with a row per run, by file, from golden files or texts under the artifact's names."""
    raw = tmp_path / "raw"
    raw.mkdir()
    for name, content in files.items():
        golden = GOLDEN / content
        data = golden.read_bytes() if len(content) < 50 and golden.is_file() else content.encode()
        (raw / name).write_bytes(data)
    assert main(["artifact", "--raw-dir", str(raw), "--output-dir", str(tmp_path / "csv")]) == 0
    return pd.read_csv(tmp_path / "csv/logs.csv").set_index("file")


def test_running_sums_become_latencies() -> None:
    log = read_text_log((GOLDEN / "artifact.txt").read_text())
    assert [entry.latency_us for entry in log.entries] == [9968723.0, 9907820.5]
    assert [entry.num_target_steps for entry in log.entries] == [116, 40]
    assert log.num_damaged == 1


def test_a_sum_that_falls_is_not_trusted() -> None:
    log = read_text_log(block(100) + block(250) + block(90) + block(200))
    assert log.entries == ()
    assert log.num_damaged == 4


def test_a_cut_inside_is_not_trusted() -> None:
    log = read_text_log(block(100) + "end-to-end latency: 250.0" + block(390))
    assert log.entries == ()
    assert log.num_damaged == 3


@pytest.mark.parametrize("text", ["", "\n", "<s> no block at all"])
def test_nothing_is_nothing(text: str) -> None:
    log = read_text_log(text)
    assert (log.entries, log.num_damaged) == ((), 0)


def test_every_form_is_a_row(tmp_path: Path) -> None:
    logs = parsed(
        tmp_path,
        {
            "server_small-1_batchsize-incr_dec.out": "artifact.out",
            "server_small-1_batchsize-sequence_specinfer.txt": "artifact.txt",
            "server_small-1_batchsize-tree_specinfer.out": "release_2023.out",
            "server_medium-16_batchsize-tree_specinfer.txt": "flexflow_serve.txt",
            "server_large-2_batchsize-tree_specinfer.out": "specscheduler.out",
            "offloading_large_8.txt": "artifact.txt",
            "1_machine-4_gpus.txt": "artifact.txt",
        },
    )
    assert len(logs) == 7
    assert logs.loc["1_machine-4_gpus.txt", "remarks"].startswith("not drawn: the name is none of")
    assert pd.isna(logs.loc["1_machine-4_gpus.txt", "family"])
    text = logs.loc["server_small-1_batchsize-sequence_specinfer.txt"]
    assert text["per_token_latency_ms"] == pytest.approx(19876543.5 / (128 * 2 * 1000), rel=1e-5)
    assert (text["mode"], text["num_requests"], text["num_target_steps"]) == ("sequence", 2, 156)
    assert text["remarks"] == "1 damaged entry left out"
    assert logs.loc["server_large-2_batchsize-tree_specinfer.out", "num_requests"] == 3
    assert list(logs.loc["offloading_large_8.txt", ["family", "size", "mode", "batch_size"]]) == [
        *("offloading", "large", "sequence", 8)
    ]


@pytest.mark.parametrize(
    "name", ["server_large-04_batchsize-tree_specinfer", "server_large-0_batchsize-incr_dec", "offloading_small_08"]
)
def test_a_batch_size_that_no_script_writes_is_an_unknown_name(tmp_path: Path, name: str) -> None:
    logs = parsed(
        tmp_path, {f"{name}.out": "artifact.out", "server_large-4_batchsize-tree_specinfer.out": "artifact.out"}
    )
    assert len(logs) == 2
    assert logs.loc[f"{name}.out", "remarks"].startswith("not drawn: the name is none of")
    assert list((tmp_path / "csv").glob("*_*.csv")) == [tmp_path / "csv/server_large.csv"]
    assert list(pd.read_csv(tmp_path / "csv/server_large.csv")["batch_size"]) == [4]


def test_text_that_looks_like_a_profile_is_no_damage(tmp_path: Path) -> None:
    logs = parsed(tmp_path, {"server_small-1_batchsize-incr_dec.out": "artifact_incremental.out"})
    (row,) = logs.to_dict("records")
    assert (row["num_requests"], row["remarks"]) == (2, "2 entry-like lines of prompts or answers left out")


def test_the_out_file_is_preferred_where_it_tells_something(tmp_path: Path) -> None:
    logs = parsed(
        tmp_path,
        {
            "offloading_small_1.out": "artifact.out",
            "offloading_small_1.txt": "artifact.txt",
            "offloading_small_2.out": "cut before any profile",
            "offloading_small_2.txt": "artifact.txt",
        },
    )
    assert list(logs.index) == ["offloading_small_1.out", "offloading_small_2.txt"]


def test_why_a_text_file_does_not_count_is_told(tmp_path: Path) -> None:
    logs = parsed(tmp_path, {"offloading_small_1.txt": block(100) + block(90)})
    (row,) = logs.to_dict("records")
    assert pd.isna(row["per_token_latency_ms"])
    assert "a second run was appended" in row["remarks"]
    table = (tmp_path / "csv/offloading_small.csv").read_text()
    assert table == "batch_size,per_token_latency_ms\n1,\n"
