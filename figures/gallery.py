"""The registry of figures: name -> how it is drawn from a folder of tables."""

from __future__ import annotations

from collections.abc import Callable

from matplotlib.figure import Figure

from figures.drawing.panels import by_placement_and_mode, own_settings
from figures.paper.latency import draw_latency
from figures.paper.parallel_decoding import draw_parallel_decoding
from figures.paper.rank_success import draw_rank_success
from figures.paper.sampling_algorithms import draw_sampling_algorithms
from figures.paper.speedup import draw_speedup
from figures.paper.tokens_per_step import draw_tokens_per_step
from figures.paper.tokens_per_step_cdf import draw_tokens_per_step_cdf
from figures.paper.width_latency import draw_width_latency
from figures.reading.published import (
    read_published_offloading,
    read_published_ranges,
    read_published_sampling,
    read_published_success,
    read_published_tokens_per_step,
)
from figures.reading.researcher_tables import (
    read_acceptance,
    read_accepted_lengths,
    read_cost_curves,
    read_predictions,
)
from figures.reading.sources import Sources
from figures.reading.tables import ScenarioRow, read_requests, read_scenarios, read_success_rates, read_time_split
from figures.researcher.acceptance_by_depth import draw_acceptance_by_depth
from figures.researcher.accepted_lengths import draw_accepted_lengths
from figures.researcher.break_even import draw_break_even
from figures.researcher.predicted_speedup import draw_predicted_speedup
from figures.researcher.time_split import draw_time_split
from figures.researcher.tree_size_acceptance import draw_tree_size_acceptance
from figures.researcher.tree_sizes import draw_tree_sizes
from figures.researcher.verify_cost import draw_verify_cost

_PUBLISHED_SERVER = (
    "Grey: the range that the SpecInfer paper gives for tree-based speculation over batch sizes 1 to 16. Its hardware, "
    "models and baselines are others: it is not a result of this run."
)
_PUBLISHED_OFFLOADING = (
    "Grey: what the SpecInfer paper gives (figure 8). Its hardware and models are others, and its speed-ups are over "
    "FlexGen, which is another baseline than the incremental decoding of this run: it is not a result of this run."
)
_OFFLOADING = (
    "Weights that do not fit the device memory they are allowed are streamed to the device in every pass of the target."
)


def _rows(sources: Sources, table: str) -> list[ScenarioRow]:
    return own_settings(read_scenarios(sources.csv_dir, table), by_placement_and_mode)


def _server_latency(sources: Sources) -> Figure:
    return draw_latency(_rows(sources, "server"))


def _server_speedup(sources: Sources) -> Figure:
    return draw_speedup(_rows(sources, "server"), read_published_ranges(sources.paper_dir), _PUBLISHED_SERVER)


def _offloading_latency(sources: Sources) -> Figure:
    return draw_latency(_rows(sources, "offloading"), _OFFLOADING)


def _offloading_speedup(sources: Sources) -> Figure:
    published = read_published_offloading(sources.paper_dir)
    return draw_speedup(_rows(sources, "offloading"), published, _PUBLISHED_OFFLOADING)


def _tokens_per_step_cdf(sources: Sources) -> Figure:
    return draw_tokens_per_step_cdf(read_scenarios(sources.csv_dir, "tree_width"), read_requests(sources.csv_dir))


def _width_latency(sources: Sources) -> Figure:
    return draw_width_latency(read_scenarios(sources.csv_dir, "tree_width_latency"))


def _parallel_decoding(sources: Sources) -> Figure:
    return draw_parallel_decoding(read_scenarios(sources.csv_dir, "parallel_decoding"))


def _rank_success(sources: Sources) -> Figure:
    planned, rates = read_scenarios(sources.csv_dir, "rank_success"), read_success_rates(sources.csv_dir)
    return draw_rank_success(planned, rates, read_published_success(sources.paper_dir))


def _tokens_per_step(sources: Sources) -> Figure:
    published = read_published_tokens_per_step(sources.paper_dir)
    return draw_tokens_per_step(read_scenarios(sources.csv_dir, "tree_width"), published)


def _sampling_algorithms(sources: Sources) -> Figure:
    published = read_published_sampling(sources.paper_dir)
    return draw_sampling_algorithms(read_scenarios(sources.csv_dir, "sampling"), published)


def _tree_sizes(sources: Sources) -> Figure:
    return draw_tree_sizes(_rows(sources, "offloading"))


def _time_split(sources: Sources) -> Figure:
    """Of the scenarios of the server table."""
    of_server = {row.scenario.name for row in read_scenarios(sources.csv_dir, "server")}
    rows = [row for row in read_time_split(sources.csv_dir) if row.scenario.name in of_server]
    return draw_time_split(own_settings(rows, by_placement_and_mode))


def _acceptance_by_depth(sources: Sources) -> Figure:
    return draw_acceptance_by_depth(read_acceptance(sources.csv_dir))


def _accepted_lengths(sources: Sources) -> Figure:
    return draw_accepted_lengths(read_accepted_lengths(sources.csv_dir))


def _tree_size_acceptance(sources: Sources) -> Figure:
    return draw_tree_size_acceptance(read_predictions(sources.csv_dir))


def _verify_cost(sources: Sources) -> Figure:
    planned = [row.scenario for row in read_predictions(sources.csv_dir)]
    return draw_verify_cost(read_cost_curves(sources.csv_dir), planned)


def _predicted_speedup(sources: Sources) -> Figure:
    return draw_predicted_speedup(read_predictions(sources.csv_dir))


def _break_even(sources: Sources) -> Figure:
    return draw_break_even(read_cost_curves(sources.csv_dir), read_predictions(sources.csv_dir))


FIGURES: dict[str, Callable[[Sources], Figure]] = {
    # The SpecInfer paper's figures 7 to 11 and tables 1 to 3.
    "server_latency": _server_latency,
    "server_speedup": _server_speedup,
    "offloading_latency": _offloading_latency,
    "offloading_speedup": _offloading_speedup,
    "tokens_per_step_cdf": _tokens_per_step_cdf,
    "width_latency": _width_latency,
    "parallel_decoding": _parallel_decoding,
    "rank_success": _rank_success,
    "tokens_per_step": _tokens_per_step,
    "sampling_algorithms": _sampling_algorithms,
    # What a researcher asks next.
    "tree_sizes": _tree_sizes,
    "time_split": _time_split,
    "acceptance_by_depth": _acceptance_by_depth,
    "accepted_lengths": _accepted_lengths,
    "tree_size_acceptance": _tree_size_acceptance,
    "verify_cost": _verify_cost,
    "predicted_speedup": _predicted_speedup,
    "break_even": _break_even,
}
