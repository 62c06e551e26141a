"""Published numbers: the tables in ``paper/``, read into typed rows; none where a file is not there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from figures.reading.cells import Cells, read_cells
from figures.reading.tables import SIZES

DATASETS = {"chatbot": "CIP", "chatgpt": "CP", "webqa": "WebQA", "alpaca": "Alpaca", "piqa": "PIQA"}
"""Prompt set -> what the SpecInfer paper calls it."""


@dataclass(frozen=True)
class Published:
    """Speed-ups from the SpecInfer paper for one size of an experiment, as a range or one per batch size."""

    size: str
    model: str
    hardware: str
    low: float
    high: float
    by_batch_size: Mapping[int, float]
    """Empty where only the range is published."""
    baseline: str = ""
    """What they are over; "" where that is several systems."""


PublishedCells = Mapping[tuple[str, str, int], float]
"""Decoding, prompt set, and k or tree width -> value."""


@dataclass(frozen=True)
class PublishedSampling:
    """Table 3: verified tokens per step of one prompt set."""

    naive: float
    multi_step: float


def read_published_ranges(paper_dir: Path) -> list[Published]:
    """Figure 7: tree speculation over incremental decoding."""
    lines = _lines(paper_dir / "figure7_speedup_ranges.csv", ["size", "model", "hardware", "low", "high"])
    return [
        Published(
            size=line.required("size", SIZES),
            model=line.required("model"),
            hardware=line.required("hardware"),
            low=line.required_number("low"),
            high=line.required_number("high"),
            by_batch_size={},
        )
        for line in lines
    ]


def read_published_offloading(paper_dir: Path) -> list[Published]:
    """Figure 8: speculation over FlexGen, per batch size."""
    columns = ["size", "model", "hardware", "baseline", "batch_size", "speedup"]
    found: dict[tuple[str, str, str, str], dict[int, float]] = {}
    for line in _lines(paper_dir / "figure8_offloading_speedup_over_flexgen.csv", columns):
        size, model = line.required("size", SIZES), line.required("model")
        of = (size, model, line.required("hardware"), line.required("baseline"))
        found.setdefault(of, {})[line.required_count("batch_size")] = line.required_number("speedup")
    return [
        Published(size, model, hardware, min(of.values()), max(of.values()), of, baseline)
        for (size, model, hardware, baseline), of in found.items()
    ]


def read_published_success(paper_dir: Path) -> PublishedCells:
    """Table 1: share of tokens that are among the draft's first k, from 0 to 1."""
    percents = _by_decoding(paper_dir / "table1_topk_success_rate.csv", "k", "success_rate_percent")
    return {cell: percent / 100 for cell, percent in percents.items()}


def read_published_tokens_per_step(paper_dir: Path) -> PublishedCells:
    """Table 2: verified tokens per step by tree width."""
    return _by_decoding(paper_dir / "table2_verified_tokens_per_step.csv", "tree_width", "verified_tokens_per_step")


def read_published_sampling(paper_dir: Path) -> dict[str, PublishedSampling]:
    """Table 3: verified tokens per step by prompt set."""
    naive, multi_step = "naive_sampling", "multi_step_speculative_sampling"
    lines = _lines(paper_dir / "table3_sampling_verified_tokens.csv", ["dataset", naive, multi_step])
    return {
        _prompt_set(line): PublishedSampling(line.required_number(naive), line.required_number(multi_step))
        for line in lines
    }


def _by_decoding(path: Path, by: str, value: str) -> PublishedCells:
    return {
        (line.required("decoding"), _prompt_set(line), line.required_count(by)): line.required_number(value)
        for line in _lines(path, ["decoding", "dataset", by, value])
    }


def _prompt_set(line: Cells) -> str:
    dataset = line.required("dataset", [*DATASETS.values()])
    return next(name for name, published in DATASETS.items() if published == dataset)


def _lines(path: Path, columns: Sequence[str]) -> list[Cells]:
    return read_cells(path, columns) if path.exists() else []
