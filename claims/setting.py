"""What the measurements were made on: the platform, its devices, its models."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import pandas as pd
import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from claims.claim import Hardware, Models, Rule
from claims.errors import ClaimError

SYNTHETIC = "synthetic weights"
"""The engine's mark in the description of a model whose weights are made up."""


class Platform(BaseModel):
    """What claims need to know of a platform file; its other keys are others' business."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    device: Literal["cpu", "cuda"]
    num_nodes: int
    devices_per_node: int


def load_platform(path: Path) -> Platform:
    """The platform of a file. Raises ClaimError."""
    try:
        return Platform.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ClaimError(f"{path}: platform cannot be read: {' '.join(str(error).split())}") from error
    except ValidationError as error:
        what = "; ".join(f"{'.'.join(map(str, item['loc']))}: {item['msg']}" for item in error.errors())
        raise ClaimError(f"{path}: not a platform: {what}") from error


def is_hardware(hardware: Hardware, platform: Platform, rows: pd.DataFrame) -> bool:
    """Whether the platform, and every device that a row was measured on, is of the class."""
    fits = (
        platform.device == hardware.device
        and platform.num_nodes >= hardware.num_nodes
        and platform.devices_per_node >= hardware.devices_per_node
    )
    return fits and all(re.search(hardware.device_name, device) for device in cells_of(rows, "device"))


def are_models(models: Sequence[Models], rows: pd.DataFrame) -> bool:
    """Whether every row has one of the targets, as it is stored, and its draft if it has a draft model."""
    if rows.empty or not {"target", "draft", "quantisation"} <= set(rows):
        return False
    drafts: dict[str, set[str]] = {}
    for pair in models:
        drafts.setdefault(pair.target, {""}).add(pair.draft)
    return all(
        draft in drafts.get(target, ()) and not quantisation
        for target, draft, quantisation in zip(rows["target"], rows["draft"], rows["quantisation"], strict=True)
    )


def synthetic(rows: pd.DataFrame) -> list[str]:
    """The descriptions of models whose weights are made up."""
    described = {text for column in ("target_description", "draft_description") for text in cells_of(rows, column)}
    return sorted(text for text in described if SYNTHETIC in text)


def band_applies(rule: Rule, is_paper_hardware: bool, is_paper_models: bool) -> bool:
    """Whether the published range belongs to what was measured here."""
    on = rule.band_on is None or is_paper_hardware
    return on and (rule.band_with is None or is_paper_models)


def cells_of(rows: pd.DataFrame, column: str) -> list[str]:
    """The different cells of a column that are not blank; none where there is no such column."""
    return sorted(set(rows[column]) - {""}) if column in rows else []
