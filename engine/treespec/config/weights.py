"""What stands in a model folder in the place of weights that can be read, told by the files' names; torch-free."""

from __future__ import annotations

from pathlib import Path

from treespec.errors import CheckpointError

PICKLES = "pytorch_model*.bin"
ALLOWED = "model.safetensors, or shards with model.safetensors.index.json"
POINTER = b"version https://git-lfs.github.com/spec/"  # how git-lfs begins what it checks out for a file it did not get
NUM_NAMED = 3


def missing_weights(folder: Path) -> CheckpointError:
    """The error for a folder without safetensors; where there are pickles, it names the command that converts them."""
    what, where, fix = "model folder holds no weights", str(folder), "check the path of the model"
    if not folder.is_dir():
        return CheckpointError(what, where=where, received="no such folder", allowed=ALLOWED, fix=fix)
    pickles = sorted(path.name for path in folder.glob(PICKLES))
    if not pickles:
        received = _listed(sorted(path.name for path in folder.glob("*.safetensors"))) or "no *.safetensors file"
        return CheckpointError(what, where=where, received=received, allowed=ALLOWED, fix=fix)
    return CheckpointError(
        f"{what} in safetensors",
        where=where,
        received=_listed(pickles),
        allowed=ALLOWED,
        fix=f"in the repository, .venv/bin/python download_models.py --convert {folder} NEW_FOLDER makes them",
    )


def refuse_pointer(path: Path) -> None:
    """Raises CheckpointError for a file that git-lfs has not fetched, OSError for one that cannot be read."""
    with open(path, "rb") as file:
        if file.read(len(POINTER)) != POINTER:
            return
    raise CheckpointError(
        "file is not here: git cloned a pointer in its place",
        where=str(path),
        received=f"a Git LFS pointer of {path.stat().st_size} bytes",
        fix="run git lfs install, then git lfs pull, in that folder",
    )


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - NUM_NAMED} more" if len(names) > NUM_NAMED else ""
    return ", ".join(names[:NUM_NAMED]) + more
