"""What a run is: placements and scenarios, validated without torch."""

from treespec.config.fingerprint import RECORD_EPOCH, fingerprints, hash_file, hash_model
from treespec.config.run import (
    Inflation,
    ModelRef,
    Placement,
    RunConfig,
    Scenario,
    load_run_config,
    validate_run_config,
)
from treespec.config.strict import StrictModel

__all__ = [
    "RECORD_EPOCH",
    "Inflation",
    "ModelRef",
    "Placement",
    "RunConfig",
    "Scenario",
    "StrictModel",
    "fingerprints",
    "hash_file",
    "hash_model",
    "load_run_config",
    "validate_run_config",
]
