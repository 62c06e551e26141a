"""Which packages hosts get, in which versions, and how their wheels are fetched."""

from __future__ import annotations

import sys
import zipfile
from importlib import metadata
from pathlib import Path

import pytest

from cluster.errors import ClusterError
from cluster.wheels import fetched, pins, public_pins
from tests.cluster.engine_wheel import build

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The engine as nodes install it."""
    return build(REPOSITORY / "engine", tmp_path_factory.mktemp("wheel"))


def described_wheel(folder: Path, *requirements: str) -> Path:
    """A file that pip would take for the engine's wheel, as far as its requirements go."""
    path = folder / "treespec-0.1.0-py3-none-any.whl"
    lines = [
        "Metadata-Version: 2.3",
        "Name: treespec",
        "Version: 0.1.0",
        *(f"Requires-Dist: {r}" for r in requirements),
    ]
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("treespec-0.1.0.dist-info/METADATA", "\n".join(lines) + "\n")
    return path


class TestWheels:
    def test_pins_are_what_the_engine_needs_in_the_versions_installed_here(self, wheel: Path) -> None:
        found = pins(wheel)
        assert found.keys() >= {"torch", "numpy", "safetensors", "sympy"}  # sympy is needed by torch
        assert not found.keys() & {"treespec", "fabric", "pytest", "transformers"}
        assert found["torch"] == metadata.version("torch")

    def test_only_the_extra_that_hosts_get_counts(self, tmp_path: Path) -> None:
        found = pins(
            described_wheel(
                tmp_path, "psutil; extra == 'torch'", "fabric; extra == 'other'", "attrs<1; python_version<'3'"
            )
        )
        assert found == {"psutil": metadata.version("psutil")}

    def test_what_is_not_installed_here_is_told(self, tmp_path: Path) -> None:
        with pytest.raises(ClusterError, match="no-such-package is not installed here"):
            pins(described_wheel(tmp_path, "no-such-package"))

    def test_what_is_no_wheel_is_told(self, tmp_path: Path) -> None:
        (tmp_path / "x.whl").write_text("no archive")
        for path in (tmp_path / "x.whl", tmp_path / "absent.whl"):
            with pytest.raises(ClusterError, match="is not a wheel"):
                pins(path)

    def test_an_index_is_asked_for_no_local_build(self) -> None:
        assert public_pins({"torch": "2.13.0+cpu", "numpy": "2.4.6"}) == {"torch": "2.13.0", "numpy": "2.4.6"}

    @pytest.mark.slow
    def test_wheels_are_fetched_once_and_whole(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        versions = {"packaging": metadata.version("packaging")}
        folder = fetched(versions, tmp_path)
        assert [path.name.split("-")[0] for path in folder.iterdir()] == ["packaging"]
        monkeypatch.setattr(sys, "executable", "no-interpreter")
        assert fetched(versions, tmp_path) == folder
        assert [path.name for path in tmp_path.iterdir()] == [folder.name]

    @pytest.mark.slow
    def test_what_cannot_be_fetched_is_told_and_nothing_is_kept(self, tmp_path: Path) -> None:
        with pytest.raises(ClusterError, match=r"wheels could not be fetched.*packaging==0\.0\.77"):
            fetched({"packaging": "0.0.77"}, tmp_path)
        assert list(tmp_path.iterdir()) == []
