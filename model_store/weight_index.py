"""The index of weights in several files: what one promises, compared with what there is, and ours written."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from model_store.layout import written_name
from treespec.errors import CheckpointError

INDEX = "model.safetensors.index.json"


def index_text(places: Mapping[str, str], num_bytes: int) -> str:
    """The index of tensors by the file that each is in."""
    index = {"metadata": {"total_size": num_bytes}, "weight_map": dict(sorted(places.items()))}
    return json.dumps(index, indent=1) + "\n"


def require_promised(index: Path, places: Mapping[str, str]) -> None:
    """Compare tensors and the written files they are in with an index. Raises CheckpointError for what is lacking."""
    try:
        promised = dict(json.loads(index.read_text(encoding="utf-8"))["weight_map"])
    except (ValueError, KeyError, TypeError) as error:
        raise CheckpointError("weight index is damaged", where=str(index), received=str(error)) from error
    if lacking := sorted(key for key, file in promised.items() if places.get(key) != written_name(str(file))):
        received = f"{', '.join(lacking[:3])}{' ...' if len(lacking) > 3 else ''}"
        raise CheckpointError("weight files lack what their index promises", where=str(index), received=received)
