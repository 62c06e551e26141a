"""The plan: which scenarios a platform's experiments should have, and the fingerprint each record must carry."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data_parsing.errors import ParsingError
from data_parsing.plans.plan_drafting import PlannedDrafting, planned_drafting

SIZES = ("small", "medium", "large")
ARTIFACT_MODES = {"incremental": "incr_dec", "sequence": "sequence_specinfer", "tree": "tree_specinfer"}
"""Our name of a mode -> the name in the artifact's file names and columns."""

PURPOSES = ("measure", "functional")
"""Functional: the record shows that it works and what it wrote; its times are the scheduler's."""

PEERS = ("transformers",)
"""Third parties that serve the incremental scenarios; each is a mode of its own, named alike everywhere."""

MODES = (*ARTIFACT_MODES, "tree_auto", *PEERS)
"""Those of the artifact's two experiments; other experiments name their own."""

FAMILIES = ("server", "offloading")
"""The long tables of the artifact's two experiments, which have the artifact's own tables beside them."""

_OF_WEIGHTS = ("offload", "quantisation")
_CONDITIONS = (
    *("placement", "target", "offload", "quantisation", "device", "dtype", "prompt_set", "prompts", "sampling"),
    *("batch_composition", "max_tokens_per_batch", "max_new_tokens", "ignore_eos", "stop_strings"),
)
"""Keys of a scenario in the plan that say what is asked and of which models, and nothing of how it is drafted."""

# Scenarios and tables become file names, so that nothing may lead out of their folders.
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")

_TEXTS = ("scenario", "experiment", "size", "purpose", "mode", "fingerprint", "target")
_TEXTS_AT_WILL = ("draft", "offload", "quantisation", "placement", "prompt_set", "verifier", "tree_layout")


@dataclass(frozen=True)
class PlannedScenario:
    """One scenario that should have a record; a text that the plan does not give is ""."""

    scenario: str
    experiment: str
    table: str
    """The long table it is a row of."""
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
    placement: str
    """The job that measures it: models, precision and ranks."""
    prompt_set: str
    verifier: str
    tree_layout: str
    temperature: float | None
    drafting: PlannedDrafting
    conditions: str
    """Equal for two scenarios of an experiment and size that differ at most in batch size and in how they draft."""

    @property
    def is_artifacts_placement(self) -> bool:
        """Whether its weights are stored and rounded as in the artifact's experiment."""
        return not any(key in self.settings for key in _OF_WEIGHTS)

    @property
    def is_incremental(self) -> bool:
        """Whether it is our engine without drafts: what others are compared with."""
        return self.mode == "incremental" or (self.drafting.is_nothing and self.mode not in MODES)

    @property
    def drafts(self) -> bool:
        """Whether it speculates."""
        return not self.is_incremental and self.mode not in PEERS

    @property
    def decoding(self) -> str:
        """greedy or stochastic; "" where the plan gives no temperature."""
        if self.temperature is None:
            return ""
        return "stochastic" if self.temperature else "greedy"

    @property
    def is_functional(self) -> bool:
        """Whether its times mean nothing."""
        return self.purpose == "functional"


@dataclass(frozen=True)
class Plan:
    """Every planned scenario, and the long tables to write whether or not they have any."""

    tables: tuple[str, ...]
    scenarios: tuple[PlannedScenario, ...]


def load_plans(paths: Sequence[Path]) -> Plan:
    """Several plan files in their order as one; a scenario that is planned twice with the same content counts once."""
    scenarios: dict[str, PlannedScenario] = {}
    tables: dict[str, None] = {}
    for path in paths:
        table, of_file = _load_plan(path)
        tables[table] = None
        for planned in of_file:
            known = scenarios.setdefault(planned.scenario, planned)
            if known != planned:
                raise ParsingError(f"{path}: scenario {planned.scenario!r} is planned twice with different content")
    return Plan(tuple(tables), tuple(scenarios.values()))


def _load_plan(path: Path) -> tuple[str, list[PlannedScenario]]:
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ParsingError(f"{path}: plan cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise ParsingError(f"{path}: plan is not valid JSON: {error}") from error
    if not isinstance(data, dict) or not isinstance(data.get("scenarios"), list):
        raise ParsingError(f"{path}: plan must be an object with a table and a list of scenarios")
    table = _text(data, "table", str(path))
    if not _NAME.fullmatch(table):
        raise ParsingError(f"{path}: table {table!r} must consist of letters, digits and _ . -")
    items = enumerate(data["scenarios"])
    return table, [_scenario(item, table, f"{path}: scenario {number}") for number, item in items]


def _scenario(item: Any, table: str, where: str) -> PlannedScenario:
    if not isinstance(item, dict):
        raise ParsingError(f"{where} must be an object, received {type(item).__name__}")
    texts = {key: _text(item, key, where) for key in _TEXTS}
    allowed_by_key = {"size": SIZES, "purpose": PURPOSES} | ({"mode": MODES} if table in FAMILIES else {})
    for key, allowed in allowed_by_key.items():
        if texts[key] not in allowed:
            raise ParsingError(f"{where}: {key} {texts[key]!r} is unknown, allowed: {', '.join(allowed)}")
    for key in ("scenario", "mode"):
        if not _NAME.fullmatch(texts[key]):
            raise ParsingError(f"{where}: {key} {texts[key]!r} must consist of letters, digits and _ . -")
    batch_size = item.get("batch_size")
    if type(batch_size) is not int or batch_size < 1:
        raise ParsingError(f"{where}: batch_size must be a positive integer, received {batch_size!r}")
    settings = item.get("settings", {})
    if not isinstance(settings, dict) or not all(isinstance(value, str) for value in settings.values()):
        raise ParsingError(f"{where}: settings must be an object of texts, received {settings!r}")
    return PlannedScenario(
        **texts,
        **{key: _text_or_null(item, key, where) for key in _TEXTS_AT_WILL},
        table=table,
        batch_size=batch_size,
        settings=settings,
        temperature=_temperature(item, where),
        drafting=planned_drafting(item, where),
        conditions=json.dumps({key: item.get(key) for key in _CONDITIONS}, sort_keys=True),
    )


def _temperature(item: dict[str, Any], where: str) -> float | None:
    sampling = item.get("sampling")
    if sampling is None:
        return None
    value = sampling.get("temperature") if isinstance(sampling, dict) else None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < float("inf"):
        raise ParsingError(f"{where}: sampling must have a temperature from 0, received {sampling!r}")
    return float(value)


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
