"""What a run is: placements and scenarios, validated without torch."""

from treespec.config.drafting import Drafting, NgramDrafting, PluginDrafting, SsmDrafting, SuffixDrafting
from treespec.config.fingerprint import RECORD_EPOCH, fingerprints, hash_file, hash_model
from treespec.config.models import Inflation, ModelRef
from treespec.config.quantisation import Quantisation
from treespec.config.run import Placement, RunConfig, Scenario, load_run_config, validate_run_config
from treespec.config.sampling import Sampling
from treespec.config.strict import StrictModel

__all__ = [
    "RECORD_EPOCH",
    "Drafting",
    "Inflation",
    "ModelRef",
    "NgramDrafting",
    "Placement",
    "PluginDrafting",
    "Quantisation",
    "RunConfig",
    "Sampling",
    "Scenario",
    "SsmDrafting",
    "StrictModel",
    "SuffixDrafting",
    "fingerprints",
    "hash_file",
    "hash_model",
    "load_run_config",
    "validate_run_config",
]
