"""The command line writes whole files, prints data to stdout and refuses unusable input in one line."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from data_parsing.cli import main
from tests.data_parsing.built_tables import FIXED
from tests.data_parsing.record_files import SyntheticScenario, server_grid, write_plan

GOLDEN = Path(__file__).parent / "golden"
ROOT = Path(__file__).parents[2]


def arguments(plan: Path, tmp_path: Path) -> list[str]:
    return ["--plan", str(plan), "--raw-dir", str(tmp_path / "raw"), "--output-dir", str(tmp_path / "csv")]


def test_tables_are_written_whole_and_reproducibly(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    scenarios = server_grid()
    for scenario in scenarios:
        scenario.write(tmp_path / "raw")
    plan = write_plan(tmp_path / "plan.json", scenarios)
    assert main(arguments(plan, tmp_path)) == 0
    paths = sorted((tmp_path / "csv").iterdir())
    assert [path.name for path in paths] == sorted(f"{name}.csv" for name in ("server", "server_small", *FIXED))
    assert sorted(capsys.readouterr().out.split()) == [str(path) for path in paths]
    before = {path: (path.read_bytes(), path.stat().st_ino) for path in paths}
    for path in paths:
        os.utime(path, (0, 0))
    assert main(arguments(plan, tmp_path)) == 0
    for path, (content, _) in before.items():
        assert path.read_bytes() == content
        assert path.stat().st_mtime > 0  # written anew although the content is the same


def test_blank_cells_and_whole_numbers_survive_the_file(tmp_path: Path) -> None:
    scenarios = server_grid(batch_sizes=(1,))
    scenarios[0].write(tmp_path / "raw")
    assert main(arguments(write_plan(tmp_path / "plan.json", scenarios), tmp_path)) == 0
    first, second, third = (tmp_path / "csv" / "server_small.csv").read_text().splitlines()[1].split(",")[1:]
    assert float(first) > 0
    assert (second, third) == ("", "")
    assert ",105300000," in (tmp_path / "csv" / "server.csv").read_text()


def test_missing_raw_folder_is_a_table_of_missing_scenarios(tmp_path: Path) -> None:
    plan = write_plan(tmp_path / "plan.json", server_grid())
    assert main(arguments(plan, tmp_path)) == 0
    assert set(pd.read_csv(tmp_path / "csv" / "server.csv")["status"]) == {"missing"}


def test_status_names_what_is_not_done(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    raw_dir = tmp_path / "raw"
    done, failed, missing = server_grid(batch_sizes=(1,))
    done.write(raw_dir)
    failed.write_failure(raw_dir, "out of memory")
    plan = write_plan(tmp_path / "plan.json", [done, failed, missing])
    assert main(["status", "--plan", str(plan), "--raw-dir", str(raw_dir)]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "experiment  placement  planned  done  failed  superseded  incomplete  missing",
        "server_gpu  one_rank         3     1       1           .           .        1",
        "done: 1",
        "failed: 1",
        f"  {failed.name}: out of memory",
        "superseded: 0",
        "incomplete: 0",
        "missing: 1",
        f"  {missing.name}",
        "to run the rest: snakemake server_gpu_experiments",
    ]


def test_status_says_of_functional_scenarios_whether_their_tokens_are_right(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    incremental, sequence, tree = (s.with_(purpose="functional") for s in server_grid(batch_sizes=(1,)))
    rows = tree.rows()
    rows[6]["output_token_ids"][-1] += 1
    incremental.write(tmp_path / "raw")
    tree.write(tmp_path / "raw", rows=rows)
    plan = write_plan(tmp_path / "plan.json", [incremental, sequence, tree])
    assert main(["status", "--plan", str(plan), "--raw-dir", str(tmp_path / "raw")]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "functional: 3, 1 of 2 compared ones write what incremental decoding writes" in lines
    assert f"  {tree.name}: 3 of 4 prompts as incremental decoding writes them" in lines
    assert f"  {sequence.name}" in lines


def test_status_takes_the_command_of_the_platform(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plan = write_plan(tmp_path / "plan.json", server_grid(batch_sizes=(1,)))
    command = "snakemake {experiment}_experiments --config platform=g5"
    assert main(["status", "--plan", str(plan), "--raw-dir", str(tmp_path), "--run-command", command]) == 0
    assert "to run the rest: snakemake server_gpu_experiments --config platform=g5\n" in capsys.readouterr().out


def test_status_with_everything_done(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    scenario = SyntheticScenario()
    scenario.write(tmp_path / "raw")
    plan = write_plan(tmp_path / "plan.json", [scenario])
    assert main(["status", "--plan", str(plan), "--raw-dir", str(tmp_path / "raw")]) == 0
    assert capsys.readouterr().out.endswith("nothing left to run\n")


def test_artifact_logs_become_the_artifacts_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    raw_dir = tmp_path / "raw"
    raw_dir.mkdir()
    for target, golden in {
        "server_small-1_batchsize-tree_specinfer.out": "artifact.out",
        "server_small-16_batchsize-incr_dec.out": "damaged.out",
        "server_large-2_batchsize-incr_dec.out": "release_2023.out",
        "offloading_small_1.out": "artifact.out",
    }.items():
        (raw_dir / target).write_bytes((GOLDEN / golden).read_bytes())
    (raw_dir / "server_small-2_batchsize-incr_dec.out").write_bytes(b"\xff cut")
    assert main(["artifact", "--raw-dir", str(raw_dir), "--output-dir", str(tmp_path / "csv")]) == 0
    small = pd.read_csv(tmp_path / "csv" / "server_small.csv")
    assert list(small["batch_size"]) == [1, 2, 16]
    assert small["tree_specinfer_per_token_latency_ms"][0] == pytest.approx(10968723.5 / (128 * 2 * 1000), rel=1e-5)
    assert small["incr_dec_per_token_latency_ms"][2] == pytest.approx(13000 / (128 * 4 * 1000))
    assert small["incr_dec_per_token_latency_ms"].notna().tolist() == [False, False, True]
    assert (tmp_path / "csv" / "server_large.csv").exists()
    assert (tmp_path / "csv" / "offloading_small.csv").read_text() == (
        f"batch_size,per_token_latency_ms\n1,{10968723.5 / (128 * 2 * 1000):.6g}\n"
    )
    said = capsys.readouterr().err
    assert (
        "server_small-16_batchsize-incr_dec.out: 4 damaged entries left out, 1 repeated guid left out, "
        "1 entry-like line of a prompt or answer left out\n"
    ) in said
    assert "server_small-2_batchsize-incr_dec.out: 0 entries" in said


def run(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "data_parsing", *words], cwd=ROOT, capture_output=True, text=True, check=False
    )


def test_bad_plan_is_one_line_and_exit_code_2(tmp_path: Path) -> None:
    plan = tmp_path / "plan.json"
    plan.write_text('[{"scenario": ')
    result = run(*arguments(plan, tmp_path))
    assert result.returncode == 2
    assert result.stdout == ""
    assert len(result.stderr.splitlines()) == 1
    assert str(plan) in result.stderr
    assert not (tmp_path / "csv").exists()


def test_output_place_that_is_a_file_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "csv").write_text("in the way")
    result = run(*arguments(write_plan(tmp_path / "plan.json", server_grid()), tmp_path))
    assert result.returncode == 2
    assert len(result.stderr.splitlines()) == 1


def test_parsing_imports_neither_engine_nor_figures(tmp_path: Path) -> None:
    program = (
        "import sys, data_parsing.cli\n"
        "print([m for m in ('torch', 'treespec', 'figures', 'matplotlib') if m in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert result.stdout == "[]\n"


def test_status_tells_of_records_that_nothing_plans(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    planned, unplanned = SyntheticScenario(), SyntheticScenario(batch_size=7)
    for scenario in (planned, unplanned):
        scenario.write(tmp_path / "raw")
    plan = write_plan(tmp_path / "plan.json", [planned])
    assert main(["status", "--plan", str(plan), "--raw-dir", str(tmp_path / "raw")]) == 0
    told = capsys.readouterr().out
    assert f"not planned here, in no table: 1 records in {tmp_path / 'raw'} ({unplanned.name}, ...)" in told
