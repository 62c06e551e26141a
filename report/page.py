"""The page: everything that is read, put into one HTML file that needs no other."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from report.errors import ReportError
from report.figures import Picture, read_pictures
from report.files import read_text
from report.origins import Origins, read_origins
from report.progress import ExperimentProgress, progress, read_outcomes, unplanned
from report.tables import Table, read_table, read_tables

MAX_ROWS = 250
"""Of a table on the page; the CSV file beside it has them all."""

_PARTS = Path(__file__).parent / "parts"
_CLAIM_COLUMNS = ("id", "source", "statement", "published", "measured", "interval", "n", "verdict", "why")
_VERDICTS = {"REPRODUCED": "good", "NOT REPRODUCED": "bad"}


@dataclass(frozen=True)
class Content:
    """What the page says, in the order of its sections."""

    platform: str
    description: str
    made_at: str
    claims: Table | None
    sections: Sequence[tuple[str, list[Picture]]]
    tables: Sequence[Table]
    experiments: Sequence[ExperimentProgress]
    unplanned: Sequence[str]
    """Records that nothing plans."""
    origins: Origins
    machine: str
    """What the check of the machine found; "" where it has not run."""
    configuration: Mapping[str, str]
    """Name of a file -> its text."""
    command: str
    """How Snakemake is called, with ``{target}`` where the target stands."""
    folder: str
    """The results folder as the caller named it."""

    @property
    def verdicts(self) -> Mapping[str, int]:
        """How many claims have which verdict."""
        return Counter(row["verdict"] for row in self.claims.records()) if self.claims else {}

    @property
    def num_drawn(self) -> int:
        """Figures that are there."""
        return sum(bool(picture.source) for _, pictures in self.sections for picture in pictures)

    @property
    def num_figures(self) -> int:
        """Figures that should be."""
        return sum(len(pictures) for _, pictures in self.sections)

    @property
    def num_done(self) -> int:
        """Scenarios with a record that counts."""
        return sum(experiment.num_done for experiment in self.experiments)

    @property
    def num_planned(self) -> int:
        """Scenarios of the plan."""
        return sum(experiment.num_planned for experiment in self.experiments)


def read_content(results: Path, config_dir: Path, command: str, made_at: str) -> Content:
    """Everything a results folder holds that the page shows; what is not there is shown as missing."""
    tables = read_tables(results / "csv")
    outcomes = read_outcomes(tables)
    machine, claims = results / "machine.json", results / "claims.csv"
    platform = results / "platform.yaml"
    return Content(
        platform=results.resolve().name,
        description=_description(platform),
        made_at=made_at,
        claims=_claims(claims) if claims.exists() else None,
        sections=list(read_pictures(results / "figures")),
        tables=tables,
        experiments=progress(outcomes, command),
        unplanned=unplanned(results / "raw", outcomes),
        origins=read_origins(results / "raw", outcomes),
        machine=read_text(machine) if machine.exists() else "",
        configuration=_configuration(platform, config_dir),
        command=command,
        folder=str(results),
    )


def _claims(path: Path) -> Table:
    table = read_table(path)
    if missing := [column for column in _CLAIM_COLUMNS if column not in table.columns]:
        raise ReportError(f"{path}: columns are missing: {', '.join(missing)}")
    return table


def _description(platform: Path) -> str:
    try:
        data = yaml.safe_load(read_text(platform)) if platform.exists() else None
    except yaml.YAMLError:
        return ""
    return str(data.get("description", "")) if isinstance(data, dict) else ""


def _configuration(platform: Path, config_dir: Path) -> dict[str, str]:
    """The platform as it was planned with, and the files that say what is run."""
    own = {f"{platform.parent.name}/{platform.name}": platform, "config/config.yaml": config_dir / "config.yaml"}
    experiments = sorted((config_dir / "experiments").glob("*.yaml"))
    files = own | {f"config/experiments/{path.name}": path for path in experiments}
    return {name: read_text(path) for name, path in files.items() if path.is_file()}


def render(content: Content) -> str:
    """The HTML text; whatever comes from data is escaped."""
    environment = Environment(
        loader=FileSystemLoader(_PARTS),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    parts: dict[str, Any] = {
        "style": Markup(read_text(_PARTS / "page.css")),
        "script": Markup(read_text(_PARTS / "sort.js")),
        "verdict_classes": _VERDICTS,
        "max_rows": MAX_ROWS,
    }
    return environment.get_template("page.html").render(content=content, **parts)
