"""Offloading: a model that streams computes what a resident one computes, and moves just the bytes it has to."""

from __future__ import annotations

import gc
import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch

from engine.tests.conftest import ROOT, TinyModels
from engine.tests.jobs import JobFolder
from engine.tests.test_parallel import served_on
from treespec.config import ModelRef, load_run_config
from treespec.errors import CheckpointError
from treespec.model.checkpoint import StoredTensor
from treespec.model.loader import LoadedModel, open_model
from treespec.model.offload.fillers import DiskFiller
from treespec.model.offload.keeper import Offloader
from treespec.model.offload.plan import MIB, OffloadPlan
from treespec.model.offload.stream import WeightStream
from treespec.model.units import Unit
from treespec.ops.linear import WeightStorage
from treespec.parallel.mesh import ParallelMesh
from treespec.serving.build import load_placement
from treespec.serving.passes import serve_pass
from treespec.serving.prompts import load_prompts

SOURCES = ["host", "disk"]
FAMILIES = ["llama", "opt"]


def budget(folder: Path, share: float) -> float:
    """MiB: tables and slots of a model as float32, and so much of what remains."""
    plan = plan_of(folder, 1e6)
    largest = max(unit.slot for unit in plan.units)
    maps = sum(unit.resident for unit in plan.units)
    return (plan.fixed_bytes + 3 * largest + share * maps) / MIB


def plan_of(folder: Path, reserve_mib: float) -> OffloadPlan:
    return loaded(folder, "disk", reserve_mib)[1].plan  # type: ignore[return-value]


@dataclass(eq=False)
class Remembering(Offloader):
    """Keeps what it was given."""

    units: list[Unit] = field(default_factory=list)

    def keep(self, unit: Unit) -> WeightStorage:
        self.units.append(unit)
        return super().keep(unit)

    @property
    def streamed(self) -> list[Unit]:
        assert self.plan is not None
        return [unit for unit, stays in zip(self.units, self.plan.is_resident, strict=True) if not stays]

    @property
    def stream(self) -> WeightStream:
        assert self._stream is not None
        return self._stream


def loaded(folder: Path, source: Any, reserve_mib: float) -> tuple[LoadedModel, Remembering]:
    cpu = torch.device("cpu")
    offloader = Remembering(source, int(reserve_mib * MIB), torch.float32, cpu, "a model")
    model = open_model(ModelRef(path=folder)).load(torch.float32, cpu, ParallelMesh(), None, offloader)
    return model, offloader


def least_budget(folder: Path, tensor: int, pipeline: int) -> float:
    """MiB: with two slots and no map that stays, enough for every rank."""
    plans = []
    for rank in range(tensor * pipeline):
        offloader = Offloader("host", 1 << 40, torch.float32, torch.device("cpu"), "a model")
        mesh = ParallelMesh(tensor, pipeline, rank)
        open_model(ModelRef(path=folder)).load(torch.float32, torch.device("cpu"), mesh, None, offloader)
        plans.append(offloader.plan)
    return max(plan.fixed_bytes + 2 * max(unit.slot for unit in plan.units) for plan in plans if plan) / MIB


def offloaded(job: JobFolder, source: str, share: float = 0.3) -> None:
    target = Path(job.placement["target"]["path"])
    job.placement |= {"offload": source, "offload_reserve_mib": budget(target, share)}


def embedded_job(job: JobFolder, family: str) -> None:
    folder = ROOT / "models" / "embedded" / family
    job.placement |= {"target": {"path": str(folder / "target")}, "drafts": [{"path": str(folder / "draft")}]}
    (job.root / "prompts.json").write_text('["def main(", "class Tree:", "import os\\n", "    return self."]')


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("family", FAMILIES)
def test_every_mode_has_the_tokens_of_the_resident_model_and_moves_what_does_not_stay(
    job: JobFolder, family: str, source: str
) -> None:
    embedded_job(job, family)
    resident = served_on(job, 1, 1)
    offloaded(job, source)

    def look(name: str) -> None:
        meta = job.meta(name)
        plan = meta["offload"]
        assert (plan["source"], plan["units"] > plan["streamed_units"] > 0) == (source, True)
        for entry in meta["repeats"]:
            assert entry["offload"]["num_bytes"] == entry["num_target_steps"] * plan["streamed_bytes"] > 0
            assert entry["offload"]["num_units"] == entry["num_target_steps"] * plan["streamed_units"]

    assert served_on(job, 1, 1, look) == resident


@pytest.mark.slow
@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize(("tensor", "pipeline"), [(2, 1), (1, 2), (2, 2)])
def test_several_ranks_each_stream_their_share(job: JobFolder, source: str, tensor: int, pipeline: int) -> None:
    alone = served_on(job, 1, 1)
    least = least_budget(Path(job.placement["target"]["path"]), tensor, pipeline)
    job.placement |= {"offload": source, "offload_reserve_mib": least}

    def look(name: str) -> None:
        meta = job.meta(name)
        assert meta["offload"]["streamed_bytes"] > 0
        for entry in meta["repeats"]:
            passes = entry["num_target_steps"]
            weights = {place: entry["traffic"][place]["weights"] for place in ("driver", "all_ranks")}
            assert weights["driver"]["bytes"] == entry["offload"]["num_bytes"]
            assert weights["driver"]["bytes"] % meta["offload"]["streamed_bytes"] == 0
            assert weights["driver"]["bytes"] >= passes * meta["offload"]["streamed_bytes"]
            assert weights["all_ranks"]["bytes"] > weights["driver"]["bytes"]

    assert served_on(job, tensor, pipeline, look) == alone


def test_a_model_that_fits_its_budget_streams_nothing(job: JobFolder) -> None:
    job.placement |= {"offload": "disk", "offload_reserve_mib": 500}
    assert job.run() == 0
    meta = job.meta(job.names[0])
    assert meta["offload"]["streamed_bytes"] == 0
    assert {entry["offload"]["num_bytes"] for entry in meta["repeats"]} == {0}


def test_every_step_reads_from_the_disk_again(tmp_path: Path) -> None:
    folder = copied(ROOT / "models" / "embedded" / "opt" / "target", tmp_path / "copy")  # that nobody else reads
    model, offloader = loaded(folder, "disk", budget(folder, 0.1))
    units = offloader.units
    filler = DiskFiller(units, torch.device("cpu"))
    slot = torch.empty(max(unit.layout.buffer_bytes for unit in units), dtype=torch.uint8)
    if not reads_are_counted(folder):
        pytest.skip("this file system does not count reads from a device")
    read = []
    for _ in range(3):
        before = bytes_read_from_devices()
        moved = sum(filler.fill(index, slot) for index in range(len(units)))
        assert moved == sum(unit.layout.num_bytes for unit in units)
        read.append(bytes_read_from_devices() - before)
    assert min(read[1:]) >= 0.9 * moved, "the first pass found what loading had left in the page cache"
    assert model.offloader is offloader


def bytes_read_from_devices() -> int:
    lines = dict(line.split(": ") for line in Path("/proc/self/io").read_text().splitlines())
    return int(lines["read_bytes"])


def reads_are_counted(folder: Path) -> bool:
    path, before = folder / "model.safetensors", bytes_read_from_devices()
    with open(path, "rb") as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        file.read()
    return bytes_read_from_devices() > before


@pytest.mark.parametrize("source", SOURCES)
def test_slots_hold_what_the_checkpoint_holds(tiny: TinyModels, source: str) -> None:
    folder = tiny.target("gqa")
    _, offloader = loaded(folder, source, budget(folder, 0.0))
    stream, streamed = offloader.stream, offloader.streamed
    for _ in range(3):
        for index, unit in enumerate(streamed):
            with stream.holding(index) as parts:
                assert torch.equal(parts[0], unit.parts[0].read())


@pytest.mark.parametrize("share", [0.0, 0.5, 2.0])
def test_what_stays_and_what_comes_by_are_the_whole_model(tiny: TinyModels, share: float) -> None:
    model, offloader = loaded(tiny.target("gqa"), "disk", budget(tiny.target("gqa"), share))
    assert offloader.plan is not None
    assert offloader.plan.resident_bytes + offloader.plan.streamed_bytes == 4 * model.num_parameters


def test_a_pass_counts_only_its_own_bytes(tiny: TinyModels, job: JobFolder) -> None:
    """Not those of a pass that broke off, nor of measuring what passes cost."""
    offloaded(job, "host", share=0.0)
    job.write()
    config = load_run_config(job.config_file)
    placement = load_placement(config.placement, config.scenarios[:1])
    prompts = load_prompts(config.scenarios[0], placement.target.tokenizer, config.placement.max_sequence_length)
    counted = []
    for _ in range(2):
        assert placement.target.offloader is not None and placement.target.offloader._stream is not None
        with placement.target.offloader._stream.holding(0):
            pass
        counted.append(serve_pass(placement, config.scenarios[0], prompts).totals.offload["num_bytes"])
    assert counted[0] == counted[1] > 0
    plan = placement.target.offloader.plan
    assert plan is not None and counted[0] % plan.streamed_bytes == 0


def test_a_pass_that_broke_off_is_followed_by_whole_ones(tiny: TinyModels) -> None:
    folder = tiny.target("gqa")
    _, offloader = loaded(folder, "disk", budget(folder, 0.0))
    stream, streamed = offloader.stream, offloader.streamed
    for stop in range(len(streamed)):
        for index in range(stop):
            with stream.holding(index):
                pass
        with pytest.raises(ZeroDivisionError), stream.holding(stop):
            raise ZeroDivisionError
        for index, unit in enumerate(streamed):
            with stream.holding(index) as parts:
                assert torch.equal(parts[0], unit.parts[0].read())


def copied(source: Path, folder: Path) -> Path:
    folder.mkdir()
    for file in source.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    os.sync()  # pages that are not yet written cannot be dropped
    return folder


def num_streams() -> int:
    gc.collect()
    return sum(thread.name == "weight-stream" for thread in threading.enumerate())


def test_nothing_is_left_of_a_model_that_is_no_longer_used(tiny: TinyModels) -> None:
    folder, before = tiny.target("gqa"), num_streams()
    model, offloader = loaded(folder, "disk", budget(folder, 0.0))
    assert num_streams() == before + 1
    del model, offloader
    deadline = time.monotonic() + 10
    while num_streams() > before:
        assert time.monotonic() < deadline
        time.sleep(0.01)


def vanish(path: Path) -> None:
    path.rename(path.with_suffix(".gone"))


def truncate(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def exchange(path: Path) -> None:
    new = path.with_suffix(".new")
    new.write_bytes(bytes(path.stat().st_size))
    new.replace(path)


@pytest.fixture
def own_copy(tiny: TinyModels, tmp_path: Path) -> Path:
    return copied(tiny.target("gqa"), tmp_path / "copy")


@pytest.mark.parametrize("damage", [vanish, truncate, exchange])
def test_a_file_that_changes_in_the_middle_of_a_run_is_one_error(
    own_copy: Path,
    job: JobFolder,
    damage: Callable[[Path], None],
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """The scenario that was being served fails and so do those after it; nothing of them counts as measured."""
    job.placement["target"]["path"] = str(own_copy)
    offloaded(job, "disk", share=0.0)
    weights, fill, calls = own_copy / "model.safetensors", DiskFiller.fill, []

    def damaging(filler: DiskFiller, index: int, slot: torch.Tensor) -> int:
        calls.append(index)
        if len(calls) == 40:
            damage(weights)
        return fill(filler, index, slot)

    monkeypatch.setattr(DiskFiller, "fill", damaging)
    assert job.run() == 1
    told = capfd.readouterr().err
    assert "Traceback" not in told
    failures = [line for line in told.splitlines() if " failed: " in line]
    assert failures
    for line in failures:
        assert (
            f"CheckpointError: weight file is not what it was while weights are streamed from it; where: {weights}"
            in line
        )
    assert len(calls) > 40, "it was in the middle"
    assert all(job.meta(name)["status"] == "failed" for name in job.names)
    assert not list(job.results.glob("*.jsonl"))


def test_weights_that_are_no_numbers_are_found_before_anything_streams(own_copy: Path) -> None:
    reserve_mib = budget(own_copy, 0.0)
    weights = own_copy / "model.safetensors"
    last = loaded(own_copy, "disk", reserve_mib)[1].streamed[-1]
    stored = last.parts[0].rectangles[0].matrix
    assert isinstance(stored, StoredTensor)
    content = bytearray(weights.read_bytes())
    content[stored.offset : stored.offset + 4] = b"\xff" * 4
    weights.write_bytes(bytes(content))
    with pytest.raises(CheckpointError, match="NaN or infinite"):
        loaded(own_copy, "disk", reserve_mib)
