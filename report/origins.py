"""Where the records come from: machines, software, models and times, from the ``.meta.json`` of those that count."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any

from data_parsing.records.record_fields import DamagedRecordError, object_of, objects_of, read_json_object, text_of
from report.progress import OK, Outcome

_OF_PLACEMENT = ("dtype", "tensor_parallel_degree", "pipeline_parallel_degree", "cache_fraction", "max_sequence_length")
_SHIPPED = "models/embedded/"
_WHAT_SHIPPED = "a small model, trained for this repository and shipped with it: none of the paper's"
_WEIGHTS = (
    ("synthetic weights", "its weights are made up: its times are real, what it writes means nothing"),
    ("inflated to", "padded in memory to the work of a larger model: what it writes is the small model's"),
)
"""Marks that the engine puts into a model's description, and what they mean."""


@dataclass(frozen=True)
class Model:
    """A model as the records describe it."""

    role: str
    label: str
    description: str
    num_parameters: str
    sha256: str
    remarks: tuple[str, ...]


@dataclass(frozen=True)
class Origin:
    """The records that were made on one machine by one version of the software."""

    facts: Mapping[str, str]
    scenarios: tuple[str, ...]
    experiments: tuple[str, ...]
    started_at: str
    finished_at: str

    @property
    def commit(self) -> str:
        """Of the engine."""
        return self.facts.get("commit", "unknown")


@dataclass(frozen=True)
class Origins:
    """All of them, the models over all records, and how many records could not be asked."""

    groups: tuple[Origin, ...]
    models: tuple[Model, ...]
    num_unreadable: int

    @property
    def started_at(self) -> str:
        """The first start, "" without records."""
        return min((origin.started_at for origin in self.groups if origin.started_at), default="")

    @property
    def finished_at(self) -> str:
        """The last end, "" without records."""
        return max((origin.finished_at for origin in self.groups), default="")


def read_origins(raw_dir: Path, outcomes: Sequence[Outcome]) -> Origins:
    """From the records of the scenarios that the tables call done."""
    metas: list[tuple[Outcome, dict[str, Any]]] = []
    num_unreadable = 0
    for outcome in outcomes:
        if outcome.status == OK:
            try:
                metas.append((outcome, _checked(raw_dir / f"{outcome.scenario}.meta.json")))
            except (DamagedRecordError, FileNotFoundError):
                num_unreadable += 1
    return Origins(tuple(_groups(metas)), tuple(_models(meta for _, meta in metas)), num_unreadable)


def _checked(path: Path) -> dict[str, Any]:
    meta = read_json_object(path)
    object_of(meta, "environment")
    models = object_of(meta, "models")
    object_of(object_of(meta, "config"), "placement")
    for model in (object_of(models, "target"), *objects_of(models, "drafts")):
        text_of(model, "description")
    return meta


def _groups(metas: Sequence[tuple[Outcome, dict[str, Any]]]) -> Iterable[Origin]:
    by_facts: dict[str, list[tuple[Outcome, dict[str, Any]]]] = {}
    for outcome, meta in metas:
        facts = json.dumps(_facts(meta), sort_keys=True)
        by_facts.setdefault(facts, []).append((outcome, meta))
    for own in by_facts.values():
        yield Origin(
            _facts(own[0][1]),
            tuple(outcome.scenario for outcome, _ in own),
            tuple(sorted({outcome.experiment for outcome, _ in own})),
            min(str(meta.get("started_at") or "") for _, meta in own),
            max(str(meta.get("finished_at") or "") for _, meta in own),
        )


def _facts(meta: dict[str, Any]) -> dict[str, str]:
    placement = meta["config"]["placement"]
    chosen = {key: placement[key] for key in _OF_PLACEMENT if key in placement}
    facts = meta["environment"] | chosen
    return {key: value if isinstance(value, str) else json.dumps(value) for key, value in facts.items()}


def _models(metas: Iterable[dict[str, Any]]) -> Iterable[Model]:
    found: dict[Model, None] = {}
    for meta in metas:
        models, placement = meta["models"], meta["config"]["placement"]
        found.setdefault(_model("target", models["target"], placement.get("target")))
        for draft, planned in zip_longest(objects_of(models, "drafts"), placement.get("drafts") or ()):
            if draft is not None:
                found.setdefault(_model("draft", draft, planned))
    return found


def _model(role: str, model: dict[str, Any], planned: object) -> Model:
    description = text_of(model, "description")
    remarks = [meaning for mark, meaning in _WEIGHTS if mark in description]
    if isinstance(planned, dict) and str(planned.get("path", "")).startswith(_SHIPPED):
        remarks.insert(0, _WHAT_SHIPPED)
    label, num_parameters, sha256 = (str(model.get(key, "")) for key in ("label", "num_parameters", "sha256"))
    return Model(role, label, description, num_parameters, sha256, tuple(remarks))
