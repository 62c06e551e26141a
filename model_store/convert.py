"""A folder in the Hugging Face layout, in one precision, made of a repository's files."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from model_store.disk import require_room
from model_store.errors import unwritable
from model_store.layout import is_weights, partial_of, whole_files, written_name
from model_store.lock import LockedModel
from model_store.manifest import Manifest, Precision, recorded, write_manifest
from model_store.progress import Progress
from model_store.weight_files import TensorLayout, WeightFile, opened, pieces_of, write_safetensors
from model_store.weight_index import INDEX, index_text, require_promised
from treespec.config.manifest import FileRecord
from treespec.errors import CheckpointError
from treespec.files import write_atomically

# bfloat16 is of half the width as well, and holds values that float16 does not.
CAST = {
    "half": {torch.float32: torch.float16, torch.float64: torch.float16},
    "full": {torch.float16: torch.float32, torch.bfloat16: torch.float32, torch.float64: torch.float32},
}
TABLES = (".inv_freq",)  # every reader computes them for itself: kept as they are


@dataclass(frozen=True)
class Conversion:
    """Makes ``target`` of the files of ``source``, which lie whole in ``originals``."""

    repository: str
    precision: Precision
    originals: Path
    source: LockedModel
    target: Path
    _files: dict[str, FileRecord] = field(default_factory=dict, init=False)

    @property
    def partial(self) -> Path:
        """Where the folder grows; it has its name only once it is whole."""
        return partial_of(self.target)

    def run(self) -> None:
        """Go on where an earlier run stopped. Raises CheckpointError, OutputError."""
        self._take_up()
        weights = [
            name for name in sorted(self.source.files) if is_weights(name) and written_name(name) not in self._files
        ]
        plans = {name: self._planned(name) for name in weights}
        require_room(self.partial, sum(_num_bytes(plan) for plan in plans.values() if plan is not None))
        for name, plan in plans.items():
            if plan is None:
                self._link(name)
            else:
                self._convert(name, plan)
        self._write_index_and_config()
        for name in self.source.files:
            if written_name(name) not in self._files and not name.endswith(".index.json"):
                self._link(name)
        self._note()
        os.rename(self.partial, self.target)

    def _take_up(self) -> None:
        """What is there already and right is kept; a finished folder that is not right any more is taken apart."""
        try:
            if self.target.exists():
                shutil.rmtree(self.partial, ignore_errors=True)
                os.rename(self.target, self.partial)
            self.partial.mkdir(parents=True, exist_ok=True)
            self._files.update(whole_files(self.partial, self.source, self.precision, verify=True))
            for path in self.partial.iterdir():
                if path.name not in self._files:
                    path.unlink()
        except OSError as error:
            raise unwritable(error, self.partial) from error

    def _planned(self, name: str) -> dict[str, TensorLayout] | None:
        """The tensors of a file as they shall be written; None where the file serves as it is."""
        with opened(self.originals / name) as file:
            planned = {key: TensorLayout(old.shape, self._dtype(key, old)) for key, old in file.layouts.items()}
            return None if name.endswith(".safetensors") and planned == file.layouts else planned

    def _dtype(self, name: str, stored: TensorLayout) -> torch.dtype:
        return stored.dtype if name.endswith(TABLES) else CAST[self.precision].get(stored.dtype, stored.dtype)

    def _convert(self, name: str, planned: dict[str, TensorLayout]) -> None:
        written = written_name(name)
        progress = Progress(f"{self.repository}, {written}, {self.precision} precision", _num_bytes(planned))
        path = self.partial / written
        with opened(self.originals / name) as file:

            def pieces(key: str) -> Iterator[Tensor]:
                for piece in _cast(file, key, planned[key].dtype, self.originals / name):
                    progress.advance(piece.nbytes)
                    yield piece

            try:
                sha256 = write_safetensors(path, planned, pieces)
            except OSError as error:
                raise unwritable(error, path) from error
            self._files[written] = recorded(path, sha256)
        progress.finish()
        self._note()

    def _link(self, name: str) -> None:
        """The same file under a second name: it costs no room. A copy where the file system has no such links."""
        path = self.partial / name
        try:
            path.unlink(missing_ok=True)
            try:
                os.link(self.originals / name, path)
            except OSError:
                shutil.copy2(self.originals / name, path)
        except OSError as error:
            raise unwritable(error, path) from error
        self._files[name] = recorded(path, self.source.files[name].sha256)

    def _write_index_and_config(self) -> None:
        """Of the weights as they are here, once it is known that they are what the repository's own index promises."""
        places: dict[str, str] = {}
        num_bytes: Counter[torch.dtype] = Counter()
        weights = sorted(name for name in self.source.files if is_weights(name))
        for name in weights:
            with opened(self.partial / written_name(name)) as file:
                places |= dict.fromkeys(file.layouts, written_name(name))
                for layout in file.layouts.values():
                    num_bytes[layout.dtype] += layout.num_bytes
        for name in self.source.files:
            if name.endswith(".index.json"):
                require_promised(self.originals / name, places)
        if list(map(written_name, weights)) != ["model.safetensors"]:
            self._write(INDEX, index_text(places, num_bytes.total()))
        if any(self._files[written_name(name)].sha256 != self.source.files[name].sha256 for name in weights):
            self._write_config(str(max(num_bytes, key=num_bytes.__getitem__)).removeprefix("torch."))

    def _write_config(self, dtype: str) -> None:
        """config.json, with the precision that it names set to what most of the weights have now."""
        path = self.originals / "config.json"
        try:
            config = dict(json.loads(path.read_text(encoding="utf-8")))
        except (ValueError, TypeError) as error:
            raise CheckpointError("configuration is damaged", where=str(path), received=str(error)) from error
        named = {key: dtype for key in ("dtype", "torch_dtype") if key in config}
        self._write("config.json", json.dumps(config | named, indent=2) + "\n")

    def _write(self, name: str, text: str) -> None:
        write_atomically(self.partial / name, text)
        self._files[name] = recorded(self.partial / name, _sha256(text))

    def _note(self) -> None:
        files = dict(sorted(self._files.items()))
        manifest = Manifest(repository=self.repository, precision=self.precision, source=self.source, files=files)
        write_manifest(self.partial, manifest)


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _cast(file: WeightFile, name: str, dtype: torch.dtype, path: Path) -> Iterator[Tensor]:
    for stored in pieces_of(file, name):
        cast = stored.to(dtype)
        if cast is not stored and not bool(cast.isfinite().all()) and bool(stored.isfinite().all()):
            raise CheckpointError(
                f"tensor {name!r} holds values beyond {str(dtype).removeprefix('torch.')}",
                where=str(path),
                fix="use --full-precision-only",
            )
        yield cast


def _num_bytes(layouts: dict[str, TensorLayout]) -> int:
    return sum(layout.num_bytes for layout in layouts.values())
