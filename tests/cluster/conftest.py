"""Two hosts on this machine for the tests that need some; ended whatever ends the tests."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import NoReturn

import pytest

from cluster.embedded.requirements import Kind, obstacle
from cluster.embedded.testbed import EmbeddedCluster
from tests.cluster.runs import MODELS, PROMPTS, REPOSITORY


@pytest.fixture(scope="session", autouse=True)
def _terminated_tests_clean_up() -> Iterator[None]:
    """SIGTERM, which `timeout` sends, would skip every fixture's end."""

    def stop(number: int, frame: FrameType | None) -> NoReturn:
        signal.signal(number, signal.SIG_IGN)
        pytest.exit("terminated", returncode=128 + number)

    former = signal.signal(signal.SIGTERM, stop)
    yield
    signal.signal(signal.SIGTERM, former)


@pytest.fixture(scope="session")
def embedded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedCluster]:
    """Hosts in namespaces, shared by all tests: who breaks something mends it."""
    yield from _up(tmp_path_factory, "namespaces")


@pytest.fixture(scope="session")
def loopback(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedCluster]:
    """Two sshd on loopback, shared by all tests."""
    yield from _up(tmp_path_factory, "loopback")


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The engine as hosts install it."""
    folder = tmp_path_factory.mktemp("wheel")
    words = ["-m", "hatchling", "build", "--target", "wheel", "--directory", str(folder)]
    subprocess.run([sys.executable, *words], cwd=REPOSITORY / "engine", check=True, capture_output=True)
    return next(folder.glob("*.whl"))


@pytest.fixture(scope="session")
def provisioned(embedded: EmbeddedCluster, wheel: Path) -> EmbeddedCluster:
    """The embedded hosts with the engine, the shipped models and prompts: provisioned as a user would."""
    words = ["-m", "cluster", "provision", "--cluster", str(embedded.folder / "cluster.yaml"), "--wheel", str(wheel)]
    words += ["--models", *MODELS, "--prompts", PROMPTS]
    done = subprocess.run([sys.executable, *words], cwd=REPOSITORY, text=True, capture_output=True)
    assert done.returncode == 0, done.stderr
    return embedded


@pytest.fixture(params=["namespaces", "loopback"])
def kind(request: pytest.FixtureRequest) -> Kind:
    """Each kind that is possible here."""
    wanted: Kind = request.param
    _skip_impossible(wanted)
    return wanted


def _up(tmp_path_factory: pytest.TempPathFactory, kind: Kind) -> Iterator[EmbeddedCluster]:
    _skip_impossible(kind)
    with EmbeddedCluster(tmp_path_factory.mktemp(kind), kind=kind) as cluster:
        yield cluster


def _skip_impossible(kind: Kind) -> None:
    if hindrance := obstacle(kind):
        pytest.skip(f"no embedded cluster of kind {kind}: {hindrance}")
