"""The plan: which scenarios a platform's experiments should have, and the fingerprint each record must carry."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data_parsing.errors import ParsingError

SIZES = ("small", "medium", "large")
ARTIFACT_MODES = {"incremental": "incr_dec", "sequence": "sequence_specinfer", "tree": "tree_specinfer"}
"""Our name of a mode -> the name in the artifact's file names and columns."""

PURPOSES = ("measure", "functional")
"""Functional: the record shows that it works and what it wrote; its times are the scheduler's."""

PEERS = ("transformers",)
"""Third parties that serve the incremental scenarios; each is a mode of its own, named alike everywhere."""

MODES = (*ARTIFACT_MODES, "tree_auto", *PEERS)

FAMILIES = ("server", "offloading")
"""How the names of experiments begin whose latencies are tables, each with tables of its own."""

_OF_DRAFTING = ("mode", "expansion", "drafters")
_OF_WEIGHTS = ("offload", "quantisation")

# The scenario's name becomes a file name, so that nothing may lead out of the raw folder.
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")

_TEXTS = ("scenario", "experiment", "size", "purpose", "mode", "fingerprint", "target")


@dataclass(frozen=True)
class PlannedScenario:
    """One scenario that should have a record."""

    scenario: str
    experiment: str
    size: str
    purpose: str
    mode: str
    batch_size: int
    fingerprint: str
    target: str
    draft: str
    settings: Mapping[str, str]
    """What its name says beyond the artifact's own settings; empty for these."""
    offload: str
    """Where weights are streamed from; "" where they are resident."""
    quantisation: str
    """What weights are rounded to; "" where they are as they are stored."""

    @property
    def family(self) -> str:
        """Which of FAMILIES it belongs to; "" for none."""
        return next((family for family in FAMILIES if self.experiment.startswith(family)), "")

    @property
    def is_artifacts_placement(self) -> bool:
        """Whether its weights are stored and rounded as in the artifact's experiment."""
        return not any(key in self.settings for key in _OF_WEIGHTS)

    @property
    def conditions(self) -> dict[str, str]:
        """The settings that incremental decoding has as well."""
        return {key: value for key, value in self.settings.items() if key not in _OF_DRAFTING}

    @property
    def is_functional(self) -> bool:
        """Whether its times mean nothing."""
        return self.purpose == "functional"


def load_plans(paths: Sequence[Path]) -> tuple[PlannedScenario, ...]:
    """The scenarios of several plan files, in their order; one named twice with the same content counts once."""
    scenarios: dict[str, PlannedScenario] = {}
    for path in paths:
        for planned in _load_plan(path):
            known = scenarios.setdefault(planned.scenario, planned)
            if known != planned:
                raise ParsingError(f"{path}: scenario {planned.scenario!r} is planned twice with different content")
    return tuple(scenarios.values())


def _load_plan(path: Path) -> list[PlannedScenario]:
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ParsingError(f"{path}: plan cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise ParsingError(f"{path}: plan is not valid JSON: {error}") from error
    if not isinstance(data, list):
        raise ParsingError(f"{path}: plan must be a list of scenarios, received {type(data).__name__}")
    return [_scenario(item, f"{path}: scenario {number}") for number, item in enumerate(data)]


def _scenario(item: Any, where: str) -> PlannedScenario:
    if not isinstance(item, dict):
        raise ParsingError(f"{where} must be an object, received {type(item).__name__}")
    texts = {key: _text(item, key, where) for key in _TEXTS}
    if not _NAME.fullmatch(texts["scenario"]):
        raise ParsingError(f"{where}: scenario {texts['scenario']!r} must consist of letters, digits and _ . -")
    for key, allowed in (("size", SIZES), ("purpose", PURPOSES), ("mode", MODES)):
        if texts[key] not in allowed:
            raise ParsingError(f"{where}: {key} {texts[key]!r} is unknown, allowed: {', '.join(allowed)}")
    batch_size = item.get("batch_size")
    if type(batch_size) is not int or batch_size < 1:
        raise ParsingError(f"{where}: batch_size must be a positive integer, received {batch_size!r}")
    settings = item.get("settings", {})
    if not isinstance(settings, dict) or not all(isinstance(value, str) for value in settings.values()):
        raise ParsingError(f"{where}: settings must be an object of texts, received {settings!r}")
    at_will = {key: _text_or_null(item, key, where) for key in ("draft", "offload", "quantisation")}
    return PlannedScenario(**texts, **at_will, batch_size=batch_size, settings=settings)


def _text_or_null(item: dict[str, Any], key: str, where: str) -> str:
    value = item.get(key)
    if value is not None and not isinstance(value, str):
        raise ParsingError(f"{where}: {key} must be a text or null, received {value!r}")
    return value or ""


def _text(item: dict[str, Any], key: str, where: str) -> str:
    value = item.get(key)
    if not isinstance(value, str) or not value:
        received = "nothing" if key not in item else repr(value)
        raise ParsingError(f"{where}: {key} must be a text that is not empty, received {received}")
    return value
