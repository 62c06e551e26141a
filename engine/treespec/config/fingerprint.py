"""Record identity: the same fingerprint means the same measured configuration on the same data."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from treespec.config.manifest import recorded_hashes
from treespec.config.models import ModelRef
from treespec.config.run import RunConfig, Scenario
from treespec.config.weights import missing_weights
from treespec.errors import InputFileError

RECORD_EPOCH = 2
"""Raised by hand when a change of the code changes results or timing; older records are then superseded."""

_NOT_IDENTITY_PLACEMENT = {
    "name",
    "target",
    "drafts",
    "plugins",
    "rank_timeout_s",
    "load_timeout_s",
    "converted_models",
    "measure_costs",
}
_NOT_IDENTITY_SCENARIO = {"prompts"}
_LATER_WORDS = ("tree_layout",)
"""Words of scenarios younger than the first records: left out where they have their default, so those stay current."""

_MODEL_FILES = ("*.safetensors", "synthetic.json", "config.json", "generation_config.json")
_TOKENIZER_FILES = (
    *("tokenizer.model", "vocab.json", "merges.txt"),
    *("tokenizer_config.json", "added_tokens.json", "special_tokens_map.json"),
)
"""Where there is no ``tokenizer.json``, which holds everything."""


def fingerprints(config: RunConfig) -> dict[str, str]:
    """Scenario name -> sha256 (hex) of the resolved scenario, its placement, weights, prompts and RECORD_EPOCH.

    Paths are left out: the same files elsewhere are the same experiment. A folder that is absent but can be had from
    the hub counts as just that, so that a plan made before the download is another one. Raises CheckpointError or
    InputFileError naming a file that is missing.
    """
    placement = config.placement
    target = _model_identity(placement.target)
    drafts = [_model_identity(draft) for draft in placement.drafts]
    shared = {
        "epoch": RECORD_EPOCH,
        "placement": placement.model_dump(mode="json", exclude=_NOT_IDENTITY_PLACEMENT),
        "target": target,
        "plugins": [hash_file(path) for path in placement.plugins],
    }
    prompts = {path: hash_file(path) for path in {scenario.prompts for scenario in config.scenarios}}
    return {
        scenario.name: _digest(
            shared
            | {
                "drafts": drafts if scenario.draft_models else [],
                "scenario": _scenario_identity(scenario),
                "prompts": prompts[scenario.prompts],
            }
        )
        for scenario in config.scenarios
    }


def _digest(identity: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()


def _scenario_identity(scenario: Scenario) -> dict[str, Any]:
    unsaid = {word for word in _LATER_WORDS if getattr(scenario, word) == Scenario.model_fields[word].default}
    return scenario.model_dump(mode="json", exclude=_NOT_IDENTITY_SCENARIO | unsaid)


def _model_identity(model: ModelRef) -> dict[str, Any]:
    inflation = model.inflation.model_dump(mode="json") if model.inflation else None
    absent = model.hub_id is not None and not model.path.exists()
    files = f"absent, from the hub as {model.hub_id}" if absent else hash_model(model.path)
    quantisation = model.quantisation.model_dump(mode="json") if model.quantisation else None
    return {"files": files, "label": model.name, "inflation": inflation, "quantisation": quantisation}


def hash_model(folder: Path) -> str:
    """One sha256 over the names and contents of a model folder's configuration, tokenizer and weights."""
    files = sorted({file for pattern in _MODEL_FILES for file in folder.glob(pattern)} | _tokenizer_files(folder))
    if not any(file.suffix == ".safetensors" or file.name == "synthetic.json" for file in files):
        raise missing_weights(folder)
    recorded = recorded_hashes(folder)
    listing = "\n".join(f"{file.name} {recorded.get(file.name) or hash_file(file)}" for file in files)
    return hashlib.sha256(listing.encode()).hexdigest()


def _tokenizer_files(folder: Path) -> set[Path]:
    whole = folder / "tokenizer.json"
    return {whole} if whole.exists() else {folder / name for name in _TOKENIZER_FILES if (folder / name).exists()}


def hash_file(path: Path) -> str:
    """sha256 (hex) of a file's content."""
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise InputFileError("file cannot be read", where=str(path), received=error.strerror) from error
