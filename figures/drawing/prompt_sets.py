"""An x axis with a segment per prompt set, each with the same counts 1, 2, ... in it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes

from figures.drawing.panels import name_gaps
from figures.drawing.series import draw_line, draw_series
from figures.drawing.sheet import width_of, wrap
from figures.drawing.style import INK, PUBLISHED_MARK, SMALL_TEXT, Mark
from figures.reading.cells import Measured
from figures.reading.published import DATASETS, PublishedCells
from figures.reading.tables import OK, Scenario

_UNKNOWN = "unknown prompts"
HEADROOM = 1.2
"""Of the y axis: names of prompt sets stand above all that is drawn."""


def set_of(scenario: Scenario) -> str:
    """The name of a scenario's prompt set."""
    return scenario.prompt_set or _UNKNOWN


def sets_of(scenarios: Iterable[Scenario]) -> list[str]:
    """The prompt sets of the scenarios: the paper's in its order, then others in the order of the plan."""
    planned = list(dict.fromkeys(set_of(scenario) for scenario in scenarios))
    return [name for name in DATASETS if name in planned] + [name for name in planned if name not in DATASETS]


def set_label(name: str, width: float) -> str:
    """The prompt set with the paper's name for it, in lines that fit a width in inches."""
    label = f"{name} ({DATASETS[name]})" if name in DATASETS else name
    return "\n".join(wrap(label, width))


@dataclass(frozen=True)
class Segments:
    """Where prompt sets and the counts within them stand."""

    prompt_sets: Sequence[str]
    counts: Sequence[int]

    @property
    def pitch(self) -> int:
        """From one segment to the next."""
        return len(self.counts) + 1

    def places(self, prompt_set: str) -> list[int]:
        """Of the counts of a prompt set."""
        start = self.prompt_sets.index(prompt_set) * self.pitch
        return [start + number for number in range(len(self.counts))]

    def middle(self, prompt_set: str) -> float:
        """Of a segment."""
        return self.prompt_sets.index(prompt_set) * self.pitch + (len(self.counts) - 1) / 2


def segment_axis(panel: Axes, segments: Segments, label: str) -> None:
    """Let the x axis be the segments, with their names at the upper edge."""
    names = segments.prompt_sets
    places = [place for name in names for place in segments.places(name)]
    panel.set_xticks(places, [str(count) for _ in names for count in segments.counts])
    panel.set_xlim(-1, max(len(names) * segments.pitch, 1) - 1)
    panel.set_xlabel(label)
    width = width_of(panel) / max(len(names), 1)
    for name in names:
        if name != names[0]:
            panel.axvline(segments.places(name)[0] - 1, color="#dddddd", linewidth=0.6)
        panel.text(
            segments.middle(name),
            0.99,
            set_label(name, width * 0.95),
            transform=panel.get_xaxis_transform(),
            ha="center",
            va="top",
            fontsize=SMALL_TEXT,
            color=INK,
        )


def draw_in_segment(
    panel: Axes,
    segments: Segments,
    prompt_set: str,
    points: Mapping[int, Measured],
    mark: Mark,
    aside: float = 0,
) -> None:
    """A line over the counts of a prompt set; a gap where a point is not there."""
    places = [place + aside for place in segments.places(prompt_set)]
    draw_series(panel, places, [points.get(count) for count in segments.counts], mark)


def draw_published_in_segments(panel: Axes, segments: Segments, published: PublishedCells, decoding: str) -> None:
    """A grey line per prompt set that the paper has."""
    for name in segments.prompt_sets:
        known = [published.get((decoding, name, count)) for count in segments.counts]
        if any(value is not None for value in known):
            values = [float("nan") if value is None else value for value in known]
            draw_line(panel, segments.places(name), values, PUBLISHED_MARK)


def count_gaps(panel: Axes, segments: Segments, prompt_set: str, outcomes: Sequence[str]) -> None:
    """Say, at the foot of a segment, how many of its scenarios are not drawn and why."""
    counts = Counter(told for told in outcomes if told != OK)
    name_gaps(panel, {segments.middle(prompt_set): [f"{count} {reason}" for reason, count in sorted(counts.items())]})
