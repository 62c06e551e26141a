"""A folder of one's own in pytorch_model*.bin made into one in safetensors: the same numbers in the same precision."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from model_store.catalogue import Catalogue
from model_store.layout import is_weights, written_name
from model_store.progress import Progress
from model_store.weight_files import TensorLayout, WeightFile, opened, pieces_of, write_safetensors
from model_store.weight_index import INDEX, index_text, require_promised
from treespec.config import hash_file
from treespec.errors import CheckpointError, OutputError
from treespec.log import say
from treespec.model.conversion.folder import Identity, NewFolder, is_finished, new_folder, require_space

SETTINGS = {"weights": "safetensors"}


def convert_folder(folder: Path, output: Path, catalogue: Catalogue) -> Path:
    """Make ``output``, or find it made already from the same files. Raises TreespecError; then there is no output."""
    conversion = OwnConversion.planned(folder, catalogue)
    identity = Identity(conversion.sha256(), SETTINGS)
    if is_finished(output, identity):
        say(f"{output} is this conversion already, every file as it was written")
        return output
    require_space(output, conversion.num_bytes)
    with new_folder(output, identity) as made:
        if made is not None:
            conversion.write(made)
    return output


@dataclass(frozen=True)
class OwnConversion:
    """What will be written, known before anything is."""

    folder: Path
    names: tuple[str, ...]  # of the files that are copied
    weights: dict[str, dict[str, TensorLayout]]  # of each file of weights

    @classmethod
    def planned(cls, folder: Path, catalogue: Catalogue) -> OwnConversion:
        """Raises CheckpointError for a folder that is no model in pickles, or whose weights are not whole."""
        names = sorted(path.name for path in folder.iterdir() if path.is_file()) if folder.is_dir() else []
        if "config.json" not in names:
            received = "no config.json" if folder.is_dir() else "no such folder"
            raise CheckpointError("not a folder of a model", where=str(folder), received=received, fix="check the path")
        weights = catalogue.weights_of(names) or []
        if any(name.endswith(".safetensors") for name in weights):
            raise CheckpointError(
                "nothing to convert", where=str(folder), received="safetensors", fix="use the folder as it is"
            )
        if not weights:
            allowed = ", ".join(pattern for kind in catalogue.weights for pattern in kind if pattern.endswith(".bin"))
            raise CheckpointError("folder holds no weights that can be converted", where=str(folder), allowed=allowed)
        layouts = {name: _layouts(folder / name) for name in weights if is_weights(name)}
        planned = cls(folder, tuple(catalogue.described(names)), layouts)
        for index in (folder / name for name in weights if not is_weights(name)):
            require_promised(index, planned._places())
        return planned

    @property
    def num_bytes(self) -> int:
        """Of the weights: the rest is small."""
        return sum(layout.num_bytes for layouts in self.weights.values() for layout in layouts.values())

    def sha256(self) -> str:
        """Of names and contents of all files that are read (hex)."""
        listing = [f"{name} {hash_file(self.folder / name)}" for name in (*self.names, *self.weights)]
        return hashlib.sha256("\n".join(listing).encode()).hexdigest()

    def write(self, made: NewFolder) -> None:
        """Every file, verified. Raises OSError, TreespecError."""
        for name in self.names:
            made.write(name, (self.folder / name).read_bytes())
        if [written_name(name) for name in self.weights] != ["model.safetensors"]:
            made.write(INDEX, index_text(self._places(), self.num_bytes).encode())
        for name in self.weights:
            with opened(self.folder / name) as file:
                path = made.path / written_name(name)
                made.digests[path.name] = _write(file, path)
                require_equal(file, path)

    def _places(self) -> dict[str, str]:
        return {key: written_name(name) for name, layouts in self.weights.items() for key in layouts}


def require_equal(file: WeightFile, path: Path) -> None:
    """Read a written file back and compare it bit by bit. Raises OutputError."""
    with opened(path) as written:
        same = written.layouts == file.layouts and all(
            torch.equal(_bits(piece), _bits(other))
            for name in file.layouts
            for piece, other in zip(pieces_of(file, name), pieces_of(written, name), strict=True)
        )
    if not same:
        raise OutputError("a file is not what was written", where=str(path), fix="check the disk")


def _layouts(path: Path) -> dict[str, TensorLayout]:
    with opened(path) as file:
        return file.layouts


def _write(file: WeightFile, path: Path) -> str:
    progress = Progress(path.name, sum(layout.num_bytes for layout in file.layouts.values()))

    def pieces(name: str) -> Iterator[Tensor]:
        for piece in pieces_of(file, name):
            progress.advance(piece.nbytes)
            yield piece

    sha256 = write_safetensors(path, file.layouts, pieces)
    progress.finish()
    return sha256


def _bits(piece: Tensor) -> Tensor:
    return piece.contiguous().view(torch.uint8)
