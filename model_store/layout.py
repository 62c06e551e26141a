"""A model's folder: which files it is made of, and which of them are as they should be. Knows no tensors."""

from __future__ import annotations

from pathlib import Path

from model_store.lock import LockedModel
from model_store.manifest import Precision, damaged_files, read_manifest
from treespec.config.manifest import FileRecord

WEIGHTS = (".safetensors", ".bin")


def partial_of(target: Path) -> Path:
    """Where a folder grows."""
    return target.with_name(f".{target.name}.partial")


def is_weights(name: str) -> bool:
    """Whether a file holds tensors."""
    return name.endswith(WEIGHTS)


def written_name(name: str) -> str:
    """Of the file that a repository's file becomes."""
    return (
        name.replace("pytorch_model", "model").removesuffix(".bin") + ".safetensors" if name.endswith(".bin") else name
    )


def whole_files(
    folder: Path, source: LockedModel | None, precision: Precision, *, verify: bool
) -> dict[str, FileRecord]:
    """The files of a folder that were made of this source and are as they were made; none where that is unknown."""
    manifest = read_manifest(folder)
    if source is None or manifest is None or manifest.source != source or manifest.precision != precision:
        return {}
    damaged = damaged_files(folder, manifest.files, verify=verify)
    return {name: record for name, record in manifest.files.items() if name not in damaged}
