"""Hashes that are noted beside files hold as long as sizes and times do."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

import pytest

from tests.models.conftest import Download
from tests.models.repositories import OPT
from treespec.config.manifest import MANIFEST, record_of, recorded_hashes


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two files and their manifest."""
    files = {}
    for name in ("config.json", "model.safetensors"):
        (tmp_path / name).write_text(name)
        files[name] = record_of(tmp_path / name, sha256(tmp_path / name)).model_dump()
    (tmp_path / MANIFEST).write_text(json.dumps({"repository": "some/model", "files": files}))
    return tmp_path


def test_unchanged_files_have_their_noted_hashes(folder: Path) -> None:
    names = ("config.json", "model.safetensors")
    assert recorded_hashes(folder) == {name: sha256(folder / name) for name in names}


def test_a_changed_touched_or_missing_file_has_none(folder: Path) -> None:
    status = (folder / "config.json").stat()
    (folder / "config.json").write_text("another length")
    os.utime(folder / "config.json", ns=(status.st_atime_ns, status.st_mtime_ns))
    assert recorded_hashes(folder).keys() == {"model.safetensors"}
    (folder / "model.safetensors").write_text("MODEL.SAFETENSORS")  # of the same length
    os.utime(folder / "model.safetensors", ns=(1, 1))
    assert recorded_hashes(folder) == {}
    (folder / "model.safetensors").unlink()
    assert recorded_hashes(folder) == {}


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"files": []}', '{"files": {"a": 1}}', '{"files": {"a": {"size": 1}}}']
)
def test_a_manifest_that_cannot_be_read_says_nothing(folder: Path, text: str) -> None:
    (folder / MANIFEST).write_text(text)
    assert recorded_hashes(folder) == {}


def test_what_the_download_notes_are_the_hashes_of_the_files(download: Download) -> None:
    assert download.run("opt-30b") == 0
    for folder in (download.cache / OPT, download.cache / f"{OPT}-full-precision"):
        noted = recorded_hashes(folder)
        assert noted == {path.name: sha256(path) for path in folder.iterdir() if path.name != MANIFEST}
