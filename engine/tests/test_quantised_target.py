"""Speculation over a quantised target, wherever its weights are, is lossless against that same target."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from engine.tests.conftest import ROOT
from engine.tests.jobs import JobFolder
from engine.tests.test_offload import embedded_job
from engine.tests.test_parallel import served_on
from treespec import cli
from treespec.metrics.records import RecordFolder

BUDGETS: dict[str, dict[str, Any]] = {
    "resident": {},
    "host": {"offload": "host", "offload_reserve_mib": 6},
    "disk": {"offload": "disk", "offload_reserve_mib": 6},
}


def tokens(job: JobFolder, **settings: Any) -> dict[str, list[list[int]]]:
    """Of every scenario; incremental, sequence and tree agree."""
    for key in ("offload", "offload_reserve_mib"):
        job.placement.pop(key, None)
    job.placement |= settings | {"converted_models": str(job.root / "converted")}
    served = served_on(job, 1, 1)
    assert len({str(ids) for ids in served.values()}) == 1
    return served


@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize("family", ["llama", "opt"])
def test_every_mode_has_the_tokens_of_the_quantised_target(job: JobFolder, family: str, bits: int) -> None:
    embedded_job(job, family)
    plain = tokens(job)
    job.placement["target"]["quantisation"] = {"bits": bits, "group_size": 32}
    served = [tokens(job, **budget) for budget in BUDGETS.values()]
    assert served[0] == served[1] == served[2]
    if bits == 4:
        assert served[0] != plain, "rounding to 16 levels must show somewhere, or nothing was rounded"


def test_a_quantised_checkpoint_is_served_like_one_that_is_quantised_when_it_is_loaded(job: JobFolder) -> None:
    embedded_job(job, "opt")
    source, folder = Path(job.placement["target"]["path"]), job.root / "int4"
    arguments = ["convert", "--model", str(source), "--output", str(folder), "--quantise", "int4", "--group-size", "32"]
    assert cli.main(arguments) == 0
    job.placement["target"] = {"path": str(source), "quantisation": {"bits": 4, "group_size": 32}}
    at_load = tokens(job)
    job.placement["target"] = {"path": str(folder)}
    assert tokens(job) == tokens(job, **BUDGETS["disk"]) == at_load


def test_records_say_that_the_target_is_quantised(job: JobFolder) -> None:
    job.placement["target"] = {"path": str(ROOT / "models/embedded/opt/target"), "quantisation": {"bits": 8}}
    job.placement["drafts"] = [{"path": str(ROOT / "models/embedded/opt/draft")}]
    assert job.run() == 0
    assert job.meta(job.names[0])["models"]["target"]["description"].endswith("parameters, int8")
    assert RecordFolder(job.results).folder == job.results


def test_what_a_checkpoint_has_cannot_be_quantised_otherwise(
    job: JobFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = job.root / "int8"
    source = ROOT / "models/embedded/opt/target"
    assert cli.main(["convert", "--model", str(source), "--output", str(folder), "--quantise", "int8"]) == 0
    job.placement["target"] = {"path": str(folder), "quantisation": {"bits": 4}}
    assert job.run() == 2
    assert "the checkpoint is quantised already" in capsys.readouterr().err


def test_no_room_for_the_converted_model_is_told_before_anything_is_served(
    job: JobFolder, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    embedded_job(job, "opt")
    job.placement["target"]["quantisation"] = {"bits": 8}
    job.placement |= BUDGETS["disk"] | {"converted_models": str(job.root / "converted")}
    monkeypatch.setattr("shutil.disk_usage", lambda place: type("Usage", (), {"free": 1 << 20, "place": place}))
    assert job.run() == 2
    assert "no room for the converted model" in capsys.readouterr().err
    assert not (job.root / "converted").exists() or not list((job.root / "converted").iterdir())


def test_what_a_group_size_may_be_is_told_for_the_whole_model(
    job: JobFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of the inputs of all maps together: a size that divides one of them only would be refused the next time."""
    embedded_job(job, "llama")  # 256 and 704 inputs
    job.placement["target"]["quantisation"] = {"bits": 8, "group_size": 256}
    assert job.run() == 2
    told = capsys.readouterr().err
    assert "704 inputs, group_size 256; allowed: group_size 2, 4, 8, 16, 32, 64" in told
    assert "704," not in told.split("allowed:")[1]
