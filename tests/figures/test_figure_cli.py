"""The command line writes the same bytes for the same data, and refuses unusable tables in one line."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from figures.cli import main
from tests.figures.table_files import grid, planned_row, write_tables

ROOT = Path(__file__).parents[2]


def run(csv_dir: Path, output_dir: Path, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "figures", "--csv-dir", str(csv_dir), "--output-dir", str(output_dir), *words]
    return subprocess.run(command, cwd=ROOT, env=os.environ | environment, capture_output=True, text=True, check=False)


def test_same_data_same_bytes(tmp_path: Path) -> None:
    rows = [*grid(), planned_row("tree", 16)]
    csv_dir = write_tables(tmp_path / "csv", rows)
    contents = []
    for number, seed in enumerate(("1", "2")):
        output_dir = tmp_path / f"figures_{number}"
        result = run(
            csv_dir,
            output_dir,
            "--only",
            "server_latency",
            PYTHONHASHSEED=seed,
            SOURCE_DATE_EPOCH=str(1700000000 + number),
        )
        assert (result.returncode, result.stderr) == (0, "")
        paths = sorted(output_dir.iterdir())
        assert sorted(result.stdout.split()) == [str(path) for path in paths]
        contents.append({path.name: path.read_bytes() for path in paths})
    assert list(contents[0]) == ["server_latency.pdf", "server_latency.png"]
    assert contents[0] == contents[1]
    # Text stays text: the font is in the file as TrueType.
    assert b"/FontFile2" in contents[0]["server_latency.pdf"]


def test_figures_are_written_anew_even_if_nothing_changed(tmp_path: Path) -> None:
    csv_dir = write_tables(tmp_path / "csv", grid())
    words = ["--csv-dir", str(csv_dir), "--output-dir", str(tmp_path / "figures"), "--only", "server_latency"]
    for _ in range(2):
        assert main(words) == 0
        paths = sorted((tmp_path / "figures").iterdir())
        assert [path.name for path in paths] == ["server_latency.pdf", "server_latency.png"]
        assert all(path.stat().st_mtime > 0 for path in paths)
        for path in paths:
            os.utime(path, (0, 0))


def test_unknown_figure_is_refused_with_the_names(tmp_path: Path) -> None:
    result = run(tmp_path, tmp_path / "figures", "--only", "nonsense")
    assert result.returncode == 2
    assert "server_latency" in result.stderr


def test_missing_table_is_one_line(tmp_path: Path) -> None:
    result = run(tmp_path, tmp_path / "figures")
    assert result.returncode == 2
    assert result.stderr.splitlines() == [
        f"figures: {tmp_path / 'server.csv'}: no such table; it is written by python -m data_parsing"
    ]
    assert not (tmp_path / "figures").exists()


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("speedup_ci_high", "other", "columns are missing: speedup_ci_high"),
        (",small,", ",huge,", "size is 'huge', allowed: small, medium, large"),
        (",105300000,", ",many,", "target_num_parameters is not a number: 'many'"),
        (",105300000,", ",nan,", "target_num_parameters is not a number: 'nan'"),
        (",small,", ",sma\xffll,", "table cannot be read"),
    ],
)
def test_damaged_table_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], old: str, new: str, message: str
) -> None:
    path = write_tables(tmp_path, grid()) / "server.csv"
    path.write_bytes(path.read_text(encoding="utf-8").replace(old, new).encode("latin-1"))
    assert main(["--csv-dir", str(tmp_path), "--output-dir", str(tmp_path / "figures")]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line


def test_output_place_that_is_a_file_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    csv_dir = write_tables(tmp_path / "csv", grid())
    (tmp_path / "figures").write_text("in the way")
    assert main(["--csv-dir", str(csv_dir), "--output-dir", str(tmp_path / "figures")]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_figures_import_neither_parsing_nor_engine() -> None:
    program = (
        "import sys, figures.cli\n"
        "print([m for m in ('torch', 'treespec', 'data_parsing', 'pandas', 'matplotlib.pyplot') if m in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert result.stdout == "[]\n"
