"""Provisioning: hosts get what they lack, once; what goes wrong names the host and leaves nothing half made."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path, PurePosixPath

import pytest
import yaml

from cluster.checks import judge
from cluster.cli import main
from cluster.embedded.testbed import EmbeddedCluster
from cluster.errors import ClusterError, UnreachableError
from cluster.facts import gather, models_here
from cluster.hosts import Cluster
from cluster.listing import listing
from cluster.provision import Cargo, provision
from cluster.ssh import Connection, connected
from cluster.steps.environment import Engine, Environment
from cluster.steps.files import CopiedFiles, SharedModels
from cluster.steps.keys import Acquaintance, KeyPair
from cluster.steps.step import Step
from cluster.steps.system import Folders, Packages
from tests.cluster.engine_wheel import build

REPOSITORY = Path(__file__).parents[2]
WORK_DIR = PurePosixPath("/srv/provisioned")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The engine as nodes install it."""
    return build(REPOSITORY / "engine", tmp_path_factory.mktemp("wheel"))


class TestCargo:
    """What is wrong here is told before any host is touched: there is none at this address."""

    @pytest.fixture
    def nowhere(self, tmp_path: Path) -> Cluster:
        hosts = [{"host": "192.0.2.7", "address": "192.0.2.7", "slots": 1}]
        fields = {"hosts": hosts, "user": "me", "key": tmp_path / "k", "interface": "x", "work_dir": WORK_DIR}
        return Cluster.model_validate(fields)

    def test_no_cuda_build_to_copy(self, nowhere: Cluster, wheel: Path, tmp_path: Path) -> None:
        if not metadata.version("torch").endswith("+cpu"):
            pytest.skip("the torch installed here has CUDA")
        copied = nowhere.model_copy(update={"wheels": "copied"})
        with pytest.raises(ClusterError, match=r"without CUDA.*set wheels: index"):
            provision(copied, Cargo(wheel, [], [], tmp_path))

    @pytest.mark.parametrize("path", ["/etc/hostname", "../prompts/mixed.json", "prompts/absent.json"])
    def test_prompts_that_hosts_cannot_hold(self, nowhere: Cluster, wheel: Path, tmp_path: Path, path: str) -> None:
        with pytest.raises(ClusterError, match=re.escape(path)):
            provision(nowhere, Cargo(wheel, [], [Path(path)], tmp_path))

    def test_models_that_are_not_there(self, nowhere: Cluster, wheel: Path, tmp_path: Path) -> None:
        with pytest.raises(ClusterError, match="download_models"):
            provision(nowhere, Cargo(wheel, [Path("models/absent")], [], tmp_path))

    def test_no_wheel(self, nowhere: Cluster, tmp_path: Path) -> None:
        with pytest.raises(ClusterError, match="is not a wheel"):
            provision(nowhere, Cargo(tmp_path / "x.whl", [], [], tmp_path))


@pytest.fixture
def hosts(embedded: EmbeddedCluster) -> Iterator[list[Connection]]:
    """Connections to hosts without anything of ours in a work folder that is these tests' own."""
    cluster = embedded.cluster.model_copy(update={"work_dir": WORK_DIR})
    connections = connected(cluster, cluster.hosts)
    yield connections
    for node, connection in enumerate(connections):
        connection.close()
        embedded.execute(node, ["rm", "-rf", str(WORK_DIR)])


def bring(step: Step, connection: Connection) -> None:
    """Not there before, there after."""
    assert not step.is_done(connection)
    step.apply(connection)
    assert step.is_done(connection)


def with_changes(connection: Connection, **changes: object) -> Connection:
    """The same host, reached anew under a cluster.yaml that differs."""
    return Connection(connection.cluster.model_copy(update=changes), connection.host)


def said(connection: Connection, *words: str) -> str:
    return connection.run(words, timeout_s=20).strip()


@pytest.mark.ssh
class TestSteps:
    def test_packages_that_are_there_are_left_alone(self, hosts: list[Connection]) -> None:
        assert Packages().is_done(hosts[0])
        with with_changes(hosts[0], packages=()) as none_wanted:
            assert Packages().is_done(none_wanted)

    def test_packages_that_apt_does_not_know(self, hosts: list[Connection]) -> None:
        with with_changes(hosts[1], packages=("rsync", "no-such-package-at-all")) as lacking:
            assert not Packages().is_done(lacking)
            pattern = (
                rf"{hosts[1].name}: system packages could not be installed.*as root there: apt-get install no-such"
            )
            with pytest.raises(ClusterError, match=pattern):
                Packages().apply(lacking)

    def test_packages_that_were_removed_are_missing(self, hosts: list[Connection]) -> None:
        fake = "/usr/local/bin/dpkg-query"
        hosts[0].run(["tee", fake], timeout_s=9, stdin="#!/bin/sh\necho rsync deinstall ok config-files\n")
        said(hosts[0], "chmod", "755", fake)
        try:
            assert not Packages().is_done(hosts[0])
        finally:
            said(hosts[0], "rm", fake)

    def test_folders_that_cannot_be_made(self, hosts: list[Connection]) -> None:
        with with_changes(hosts[0], work_dir=PurePosixPath("/proc/treespec")) as wrong:
            assert not Folders().is_done(wrong)
            with pytest.raises(ClusterError, match=rf"{hosts[0].name}: mkdir /proc/treespec failed"):
                Folders().apply(wrong)

    def test_hosts_log_in_to_each_other_with_keys_of_their_own(self, hosts: list[Connection]) -> None:
        acquaintance = Acquaintance(hosts)
        for step in (Folders(), KeyPair(), acquaintance):
            for connection in hosts:
                bring(step, connection)
        config = str(WORK_DIR / "ssh/config")
        for own, other in (hosts, hosts[::-1]):
            assert said(own, "ssh", "-F", config, str(other.host.address), "hostname") == said(other, "hostname")
        keys = [said(connection, "cat", str(WORK_DIR / "ssh/id_ed25519")) for connection in hosts]
        assert keys[0] != keys[1]
        assert {said(connection, "stat", "-c", "%a", str(WORK_DIR / "ssh")) for connection in hosts} == {"700"}

    def test_hosts_refuse_neighbours_with_another_host_key_or_an_unknown_one(
        self, hosts: list[Connection], embedded: EmbeddedCluster
    ) -> None:
        for step in (Folders(), KeyPair(), Acquaintance(hosts)):
            for connection in hosts:
                step.apply(connection)
        words = ["ssh", "-F", str(WORK_DIR / "ssh/config"), str(hosts[1].host.address), "hostname"]
        embedded.restart_sshd_with_new_host_key(1)
        try:
            changed = hosts[0].try_run(words, timeout_s=20)
        finally:
            embedded.restore_host_key(1)
        said(hosts[0], "truncate", "-s", "0", str(WORK_DIR / "ssh/known_hosts"))
        unknown = hosts[0].try_run(words, timeout_s=20)
        for done in (changed, unknown):
            assert done.status == 255
            assert "Host key verification failed" in done.stderr

    def test_a_key_that_was_lost_is_made_and_made_known_again(self, hosts: list[Connection]) -> None:
        acquaintance = Acquaintance(hosts)
        for step in (Folders(), KeyPair(), acquaintance):
            for connection in hosts:
                step.apply(connection)
        said(hosts[0], "rm", str(WORK_DIR / "ssh/id_ed25519.pub"))
        bring(KeyPair(), hosts[0])
        assert acquaintance.is_done(hosts[0])
        bring(acquaintance, hosts[1])

    def test_files_keep_their_paths_and_links_become_files(
        self, hosts: list[Connection], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / "disk/blobs").mkdir(parents=True)
        (tmp_path / "disk/blobs/1").write_text("weights")
        (tmp_path / "disk/a model").mkdir()
        (tmp_path / "disk/a model/w").symlink_to(tmp_path / "disk/blobs/1")
        (tmp_path / "models").symlink_to(tmp_path / "disk")
        monkeypatch.chdir(tmp_path)
        Folders().apply(hosts[0])
        step = CopiedFiles("models", Path(), ["models/a model"], "project")
        bring(step, hosts[0])
        assert said(hosts[0], "find", str(WORK_DIR / "project"), "-type", "f") == f"{WORK_DIR}/project/models/a model/w"
        (tmp_path / "disk/blobs/1").write_text("WEIGHTS")
        os.utime(tmp_path / "disk/blobs/1", (1, 1))
        bring(step, hosts[0])
        assert said(hosts[0], "cat", f"{WORK_DIR}/project/models/a model/w") == "WEIGHTS"

    def test_nothing_to_copy_is_done(self, hosts: list[Connection]) -> None:
        assert CopiedFiles("models", Path(), [], "project").is_done(hosts[0])

    def test_shared_models_are_linked(self, hosts: list[Connection], monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(REPOSITORY)
        model = "models/embedded/llama/draft"
        shared = WORK_DIR / "shared"
        step = SharedModels(shared, [model])
        Folders().apply(hosts[0])
        with pytest.raises(
            ClusterError, match=rf"{hosts[0].name}: the shared folder lacks {model}/.*copy {model} there"
        ):
            step.is_done(hosts[0])
        CopiedFiles("shared", Path(), [model], "shared").apply(hosts[0])
        bring(step, hosts[0])
        assert said(hosts[0], "ls", str(WORK_DIR / "project" / model)).split() == sorted(os.listdir(model))
        # Back to copies: they must not land in the shared folder.
        copied = CopiedFiles("models", Path(), [model], "project")
        bring(copied, hosts[0])
        assert said(hosts[0], "stat", "-c", "%F", str(WORK_DIR / "project/models")) == "directory"
        with pytest.raises(ClusterError, match=r"cannot be linked.*rm -r"):
            step.apply(hosts[0])

    def test_a_full_disk_is_told_with_its_host(
        self, hosts: list[Connection], embedded: EmbeddedCluster, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(REPOSITORY)
        step = CopiedFiles("models", Path(), ["models/embedded/llama/target"], "project")
        Folders().apply(hosts[1])
        embedded.fill_disk(1)
        try:
            with pytest.raises(ClusterError, match=rf"{hosts[1].name}: .*No space left on device"):
                step.apply(hosts[1])
        finally:
            embedded.free_disk(1)
        bring(step, hosts[1])

    def test_no_venv_module(self, hosts: list[Connection]) -> None:
        Folders().apply(hosts[0])
        python = str(WORK_DIR / "python")
        hosts[0].run(["tee", python], timeout_s=9, stdin="#!/bin/sh\necho No module named venv >&2\nexit 1\n")
        said(hosts[0], "chmod", "755", python)
        with with_changes(hosts[0], python=python) as without:
            pattern = rf"{hosts[0].name}: .*No module named venv; fix: apt-get install python3-venv"
            with pytest.raises(ClusterError, match=pattern):
                Environment({}).apply(without)

    def test_pip_fails_and_leaves_nothing_half_made(self, hosts: list[Connection]) -> None:
        Folders().apply(hosts[0])
        step = Environment({"no-such-package": "1.0"})
        with pytest.raises(ClusterError, match=rf"{hosts[0].name}: pip install.*no-such-package==1\.0"):
            step.apply(hosts[0])
        assert hosts[0].try_run(["test", "-e", str(WORK_DIR / "venv")], timeout_s=9).status == 1
        assert not step.is_done(hosts[0])

    def test_an_environment_that_was_cut_off_is_made_anew(self, hosts: list[Connection]) -> None:
        Folders().apply(hosts[0])
        bundled = said(hosts[0], hosts[0].cluster.python, "-c", "import ensurepip; print(ensurepip.version())")
        step = Environment({"pip": bundled})  # comes with the environment: nothing is fetched
        bring(step, hosts[0])
        said(hosts[0], "rm", str(WORK_DIR / "venv/complete"))
        bring(step, hosts[0])
        assert not Environment({"pip": "0.1"}).is_done(hosts[0])
        said(hosts[0], "rm", str(WORK_DIR / "venv/bin/python"))
        assert not step.is_done(hosts[0])

    def test_wheels_for_another_python_are_not_copied(
        self, hosts: list[Connection], wheel: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("cluster.provision.fetched", lambda versions, cache: tmp_path)
        monkeypatch.setattr("cluster.provision.platform_tag", lambda: "3.99 vax")
        with pytest.raises(ClusterError, match=r"do not fit; received: Python 3\.\d+ .*allowed: Python 3\.99 vax"):
            provision(hosts[0].cluster, Cargo(wheel, [], [], tmp_path))

    def test_an_unreachable_host_is_told_before_anything_is_changed(
        self, hosts: list[Connection], wheel: Path, embedded: EmbeddedCluster, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("cluster.provision.fetched", lambda versions, cache: REPOSITORY / "prompts")
        embedded.restart_sshd_with_new_host_key(1)
        try:
            with pytest.raises(UnreachableError, match=hosts[1].name):
                provision(hosts[0].cluster, Cargo(wheel, [], [], REPOSITORY))
        finally:
            embedded.restore_host_key(1)
        assert hosts[0].try_run(["test", "-e", str(WORK_DIR)], timeout_s=9).status == 1


@pytest.mark.ssh
@pytest.mark.slow
def test_from_nothing_to_a_passed_check(
    hosts: list[Connection],
    wheel: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(REPOSITORY)
    file, model, prompts = tmp_path / "cluster.yaml", "models/embedded/llama/draft", "prompts/mixed.json"
    cluster = hosts[0].cluster
    file.write_text(yaml.safe_dump(cluster.model_dump(mode="json", exclude_none=True)))
    cache = ["--cache", str(tmp_path / "cache")]
    words = ["provision", "--cluster", str(file), "--models", model, "--prompts", prompts, *cache, "--wheel"]

    assert main([*words, str(wheel)]) == 0
    steps = [
        "packages",
        "folders",
        "key pair",
        "keys between hosts",
        "wheels",
        "environment",
        "engine",
        "project",
        "models",
    ]
    lines = capsys.readouterr().out.splitlines()
    assert [line.partition(": ")[0] for line in lines] == [f"{item.name}  {step}" for step in steps for item in hosts]
    assert {line.rpartition(": ")[2] for line in lines[:2]} == {"done already"}
    assert all(re.search(r": done in [\d.]+ s$", line) for line in lines[2:])

    assert main([*words, str(wheel)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 19 and lines[-1] == "nothing to do"
    assert all(line.endswith(": done already") for line in lines[:-1])

    assert main(["check", "--cluster", str(file), "--models", model]) == 0
    assert "all checks passed" in capsys.readouterr().err

    # Another build of the engine, and a package that one host has lost: that is redone and nothing else.
    source = shutil.copytree(REPOSITORY / "engine", tmp_path / "engine", ignore=shutil.ignore_patterns("tests"))
    (source / "treespec/py.typed").write_text("another build\n")
    said(hosts[1], str(WORK_DIR / "venv/bin/python"), "-m", "pip", "uninstall", "-qy", "filelock")
    checked = {item.name: item for item in judge(gather(cluster, models_here([Path(model)]), 0)) if item.ok is False}
    assert checked["same versions"].detail.startswith("filelock none (")
    assert main([*words, str(build(source, tmp_path / "new"))]) == 0
    changed = [line for line in capsys.readouterr().out.splitlines() if "done in" in line]
    assert [line.partition(": ")[0] for line in changed] == [
        f"{hosts[1].name}  environment",
        f"{hosts[0].name}  engine",
        f"{hosts[1].name}  engine",
    ]
    assert listing(str(tmp_path / "cache"), ["."]) != {}
    assert not Engine(wheel).is_done(hosts[0])
