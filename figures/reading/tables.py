"""Tables of ``data_parsing``, read into typed rows."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path

from figures.reading.cells import Cells, Measured, read_cells

OK = "ok"
SIZES = ("small", "medium", "large")
PURPOSES = ("measure", "functional")
PEERS = ("transformers",)
"""Third parties beside our modes."""
MODES = ("incremental", "sequence", "tree", "tree_auto", *PEERS)
"""Those of the server and offloading tables; other experiments name their own."""
STEP_PARTS = ("draft", "build", "forward", "verify", "commit", "other")


@dataclass(frozen=True)
class Scenario:
    """What every table says of a planned scenario; the fields from ``num_requests`` on are None without a record."""

    name: str
    experiment: str
    size: str
    purpose: str
    mode: str
    """One of MODES, or any name that an experiment gives its own."""
    batch_size: int
    status: str
    target: str
    draft: str | None
    offload: str | None
    """Where weights are streamed from; None where they are resident."""
    quantisation: str | None
    prompt_set: str | None
    decoding: str | None
    """greedy or stochastic"""
    expansion: str | None
    """Children per step of the draft tree, as "1.1.3.1"; None without a fixed tree."""
    tree_width: int | None
    """The largest number of children; 1 for a chain."""
    branching_step: int | None
    """The first step with several children, counted from 1; None for a chain."""
    selection: str | None
    """How children are chosen: top_k, iid or without_replacement."""
    verifier: str | None
    tree_layout: str | None
    """tree or sequences: how the target verifies a tree."""
    num_requests: int | None
    num_repeats: int | None
    device: str | None
    num_threads: int | None
    dtype: str | None
    commit: str | None
    target_description: str | None
    target_num_parameters: int | None
    draft_description: str | None

    @property
    def is_functional(self) -> bool:
        """Whether its times are the scheduler's and not to be drawn."""
        return self.purpose == "functional"


@dataclass(frozen=True)
class ScenarioRow:
    """One row of an experiment's table; a measure is None where nothing counts as a record of it."""

    scenario: Scenario
    latency_ms: Measured | None
    """Median over requests of the latency per generated token."""
    speedup: Measured | None
    """Over incremental decoding at the same batch size."""
    tokens_per_step: Measured | None
    """Tokens that a decoding step emits, its own included."""
    acceptance_rate: float | None
    """Accepted of speculated tokens."""
    draft_tokens_per_step: float | None
    """Tokens of a tree that the target verifies per decoding step."""
    streamed_bytes: float | None
    """Of the target's weights: what every pass brings to the device; None in tables that do not tell."""


@dataclass(frozen=True)
class TimeSplitRow:
    """One row of ``time_split.csv``."""

    scenario: Scenario
    shares: dict[str, float] | None
    """Part of the step -> its share, in the order of STEP_PARTS; they sum to 1."""
    step_time_ms: float | None


@dataclass(frozen=True)
class SuccessRateRow:
    """One row of ``success_rates.csv``; everything but the scenario's name is None without a record."""

    scenario: str
    k: int | None
    rate: Measured | None
    """Share of tried nodes whose token was among the first k proposals."""


@dataclass(frozen=True)
class RequestRow:
    """One row of ``requests.csv``: one pass over one prompt."""

    scenario: str
    prompt_index: int
    num_decoding_steps: int
    tokens_per_step: float | None
    """None where nothing was decoded."""


SCENARIO_COLUMNS = ("scenario", *(field.name for field in fields(Scenario) if field.name != "name"))
"""What every table with planned scenarios begins with, in some order."""
_LATENCY = ("median_per_token_latency_ms", "ci_low_ms", "ci_high_ms")
_SPEEDUP = ("speedup", "speedup_ci_low", "speedup_ci_high")
_TOKENS_PER_STEP = ("tokens_per_step", "tokens_per_step_ci_low", "tokens_per_step_ci_high")
_SUCCESS = ("success_rate", "ci_low", "ci_high")


def read_scenario(line: Cells) -> Scenario:
    """The planned scenario of a line that has SCENARIO_COLUMNS."""
    return Scenario(
        name=line.required("scenario"),
        experiment=line.required("experiment"),
        size=line.required("size", SIZES),
        purpose=line.required("purpose", PURPOSES),
        mode=line.required("mode"),
        batch_size=line.required_count("batch_size"),
        status=line.required("status"),
        target=line.required("target"),
        draft=line.text("draft"),
        offload=line.text("offload"),
        quantisation=line.text("quantisation"),
        prompt_set=line.text("prompt_set"),
        decoding=line.text("decoding"),
        expansion=line.text("expansion"),
        tree_width=line.count("tree_width"),
        branching_step=line.count("branching_step"),
        selection=line.text("selection"),
        verifier=line.text("verifier"),
        tree_layout=line.text("tree_layout"),
        num_requests=line.count("num_requests"),
        num_repeats=line.count("num_repeats"),
        device=line.text("device"),
        num_threads=line.count("num_threads"),
        dtype=line.text("dtype"),
        commit=line.text("commit"),
        target_description=line.text("target_description"),
        target_num_parameters=line.count("target_num_parameters"),
        draft_description=line.text("draft_description"),
    )


def read_scenarios(csv_dir: Path, table: str) -> list[ScenarioRow]:
    """The rows of an experiment's table, ``<table>.csv``."""
    measures = [*_LATENCY, *_SPEEDUP, *_TOKENS_PER_STEP, "acceptance_rate", "draft_tokens_per_step"]
    return [
        ScenarioRow(
            scenario=read_scenario(line),
            latency_ms=line.measured(*_LATENCY),
            speedup=line.measured(*_SPEEDUP),
            tokens_per_step=line.measured(*_TOKENS_PER_STEP),
            acceptance_rate=line.number("acceptance_rate"),
            draft_tokens_per_step=line.number("draft_tokens_per_step"),
            streamed_bytes=line.number("streamed_bytes"),
        )
        for line in read_cells(csv_dir / f"{table}.csv", [*SCENARIO_COLUMNS, *measures], ["streamed_bytes"])
    ]


def read_time_split(csv_dir: Path) -> list[TimeSplitRow]:
    """The rows of ``time_split.csv``, of all experiments."""
    columns = {part: f"{part}_share" for part in STEP_PARTS}
    rows = []
    for line in read_cells(csv_dir / "time_split.csv", [*SCENARIO_COLUMNS, *columns.values(), "step_time_ms"]):
        shares = {part: line.number(column) for part, column in columns.items()}
        known = {part: share for part, share in shares.items() if share is not None}
        complete = known if len(known) == len(shares) else None
        rows.append(TimeSplitRow(read_scenario(line), complete, line.number("step_time_ms")))
    return rows


def read_success_rates(csv_dir: Path) -> list[SuccessRateRow]:
    """The rows of ``success_rates.csv``."""
    return [
        SuccessRateRow(line.required("scenario"), line.count("k"), line.measured(*_SUCCESS))
        for line in read_cells(csv_dir / "success_rates.csv", ["scenario", "k", *_SUCCESS])
    ]


def read_requests(csv_dir: Path) -> list[RequestRow]:
    """The rows of ``requests.csv``."""
    columns = ["scenario", "prompt_index", "num_decoding_steps", "tokens_per_step"]
    return [
        RequestRow(
            scenario=line.required("scenario"),
            prompt_index=line.required_count("prompt_index"),
            num_decoding_steps=line.required_count("num_decoding_steps"),
            tokens_per_step=line.number("tokens_per_step"),
        )
        for line in read_cells(csv_dir / "requests.csv", columns)
    ]
