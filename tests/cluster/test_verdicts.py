"""Verdicts on facts as data: what is wrong is told once, with its fix; what is not wrong passes."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cluster.checks import CHECKS, Row, judge, table
from cluster.errors import ClusterError
from cluster.facts import Clock, Failure, HostFacts, Situation, models_here
from cluster.hosts import Cluster, Host, load_cluster
from cluster.link import Link
from tests.cluster.rows import failures, row

REPOSITORY = Path(__file__).parents[2]
GIB = 1024**3
GPU = {"index": 0, "name": "NVIDIA A10G", "memory_mib": 23028, "driver": "550.1"}
MACHINE: dict[str, Any] = {
    "hostname": "node",
    "resolves_to": ["10.0.0.1"],
    "interfaces": {"lo": ["127.0.0.1/8"], "ens5": ["10.0.0.1/24", "10.0.0.2/24", "fe80::1/64"]},
    "gpus": [GPU | {"index": index} for index in range(4)],
    "cuda": "12.8",
    "memory": {"total": 192 * GIB, "available": 180 * GIB},
    "free_disk": {"/srv/treespec": 500 * GIB},
    "python": "3.11.2",
    "machine": "x86_64",
    "has_venv": True,
    "is_root": False,
    "sudo": True,
    "missing_packages": [],
    "programs": dict.fromkeys(("rsync", "timeout", "flock", "ip", "ssh", "mpirun"), "/usr/bin/x"),
    "limits": {"open_files": 1024, "locked_memory": -1, "shared_memory": 90 * GIB, "cores": 48},
}
ENVIRONMENT: dict[str, Any] = {
    "python": "3.11.2",
    "versions": {"treespec": "0.1.0", "torch": "2.13.0", "numpy": "2.4.6"},
    "engine_sha256": "ab" * 32,
    "import_errors": {},
    "torch": {"cuda": "12.8", "num_gpus": 4, "nccl": "2.27.5"},
}
MODELS = {"models/big": {"models/big/a": [120 * GIB, 1], "models/big/b": [10 * GIB, 1]}, "models/small": {}}
PROJECT = {"models/big/a": [120 * GIB, 9], "models/big/b": [10 * GIB, 9], "prompts/mixed.json": [5, 9]}

Change = Callable[[dict[str, Any]], object]


def described(**changes: object) -> Cluster:
    """Two hosts of four GPUs."""
    hosts = tuple(Host(host=f"node{i}", address=f"10.0.0.{i + 1}", slots=4) for i in range(2))  # type: ignore[arg-type]
    fields = {"hosts": hosts, "user": "me", "key": "/k", "interface": "ens5", "work_dir": "/srv/treespec"}
    return Cluster.model_validate(fields | changes)


def good_facts() -> dict[str, Any]:
    """Of one host, to be spoilt."""
    parts = {"machine": MACHINE, "environment": ENVIRONMENT, "project": PROJECT, "clock": Clock(0.1, 0.05)}
    return copy.deepcopy({"failure": None, **parts})


def situation(cluster: Cluster, change: Change = lambda found: None, *, min_mb_per_s: float = 10) -> Situation:
    """All is well but what ``change`` does to the second host's facts."""
    first, second = cluster.hosts
    spoilt = good_facts()
    change(spoilt)
    links = {pair: Link(50.0, 4000.0) for pair in ((first, second), (second, first))}
    found = {first: HostFacts(**good_facts()), second: HostFacts(**spoilt)}
    return Situation(cluster, MODELS, found, links, min_mb_per_s)


class TestVerdicts:
    def test_all_is_well(self) -> None:
        rows = judge(situation(described()))
        assert [item for item in rows if item.ok is not True] == []
        assert len(rows) == 2 * len(CHECKS)

    def test_every_check_needs_only_earlier_ones(self) -> None:
        names = [check.name for check in CHECKS]
        assert len(set(names)) == len(names)
        for place, check in enumerate(CHECKS):
            assert set(check.needs) <= set(names[:place])

    @pytest.mark.parametrize(
        ("name", "change", "words", "fix"),
        [
            ("clock", lambda f: f.update(clock=Clock(-2.2, 0.1)), "2.20 s behind", "NTP"),
            ("python", lambda f: f["machine"].update(python="3.9.19"), "3.9.19; allowed: 3.11", "python"),
            (
                "python",
                lambda f: (f["machine"].update(has_venv=False), f.update(environment=None)),
                "lacks venv",
                "apt-get install python3-venv",
            ),
            (
                "sudo",
                lambda f: f["machine"].update(missing_packages=["rsync"], sudo=False),
                "asks for a password",
                "apt-get install rsync",
            ),
            ("sudo", lambda f: f["machine"].update(missing_packages=["rsync"], sudo=None), "not there", "as root"),
            ("packages", lambda f: f["machine"].update(missing_packages=["rsync"]), "missing: rsync", "provision"),
            ("programs", lambda f: f["machine"]["programs"].update(flock=None), "missing: flock", "install util-linux"),
            ("gpus", lambda f: f["machine"].update(gpus=None), "nvidia-smi", "driver"),
            ("gpus", lambda f: f["machine"]["gpus"].pop(), "3 x NVIDIA A10G, 23028 MiB, driver 550.1", "slots"),
            ("gpus", lambda f: f["machine"]["gpus"][3].update(name="T4"), "T4", "one kind"),
            (
                "gpus",
                lambda f: [gpu.update(driver="535.2") for gpu in f["machine"]["gpus"]],
                "driver 535.2, CUDA 12.8; node0: 4 x NVIDIA A10G, 23028 MiB, driver 550.1",
                "one kind",
            ),
            ("memory", lambda f: f["machine"]["memory"].update(available=60 * GIB), "65 GiB of the largest", "hosts"),
            ("disk", lambda f: f["machine"].update(free_disk={"/srv/treespec": GIB // 8}), "0.25 GiB needed", "free"),
            (
                "disk",
                lambda f: (f["machine"].update(free_disk={"/srv/treespec": 100 * GIB}), f.update(project=None)),
                "130.25 GiB needed",
                "free some",
            ),
            ("limits", lambda f: f["machine"]["limits"].update(open_files=256), "allowed: 1024", "nofile"),
            (
                "name resolution",
                lambda f: f["machine"].update(resolves_to=["127.0.1.1"]),
                "127.0.1.1",
                "10.0.0.2 node (instead of 127.0.1.1)",
            ),
            ("name resolution", lambda f: f["machine"].update(resolves_to=None), "nothing", "10.0.0.2 node"),
            ("interface", lambda f: f["machine"]["interfaces"].pop("ens5"), "no interface ens5; there: lo", "ip addr"),
            (
                "interface",
                lambda f: f["machine"]["interfaces"].update(ens5=["10.0.0.9/24"]),
                "10.0.0.9/24, not 10.0.0.2",
                "ip addr",
            ),
            ("interface", lambda f: f["machine"].update(interfaces=None), "ip", "iproute2"),
            ("environment", lambda f: f.update(environment=None), "/srv/treespec/venv", "provision"),
            (
                "environment",
                lambda f: f["environment"].update(import_errors={"torch": "OSError: libgomp.so.1"}),
                "torch: OSError: libgomp.so.1",
                "provision",
            ),
            (
                "same versions",
                lambda f: f["environment"]["versions"].update(numpy="2.0.0"),
                "numpy 2.0.0 (node0: 2.4.6)",
                "provision",
            ),
            ("same versions", lambda f: f["environment"].update(engine_sha256="cd" * 32), "wheel cdcdcdcdcdcd", "prov"),
            ("nccl", lambda f: f["environment"]["torch"].update(num_gpus=0, nccl=None), "uses 0 GPUs", "driver"),
            ("nccl", lambda f: f["environment"]["torch"].update(nccl="2.20.1"), "2.20.1; node0: 2.27.5", "provision"),
            ("project", lambda f: f.update(project=None), "/srv/treespec/project", "provision"),
            ("models", lambda f: f["project"].update({"models/big/a": [5, 1]}), "cut short: models/big/a", "provision"),
        ],
    )
    def test_what_is_wrong_is_told_with_its_fix(self, name: str, change: Change, words: str, fix: str) -> None:
        rows = judge(situation(described(), change))
        found = row(rows, name)
        assert found.ok is False
        assert words in found.detail
        assert fix in found.fix
        assert all(item.ok for item in rows if item.host == "node0" and "others" not in item.name)

    @pytest.mark.parametrize(
        ("name", "change"),
        [
            ("clock", lambda f: f.update(clock=Clock(4.0, 3.0))),  # the round trip lets one tell no better
            ("sudo", lambda f: f["machine"].update(sudo=None)),  # nothing is missing
            ("sudo", lambda f: f["machine"].update(missing_packages=["x"], sudo=None, is_root=True)),
            ("python", lambda f: f["machine"].update(has_venv=False)),  # the environment is there already
            ("python", lambda f: f["machine"].update(python="3.12.0rc1")),
            ("packages", lambda f: f["machine"].update(missing_packages=None)),
            ("memory", lambda f: f["machine"].update(memory=None)),
            ("disk", lambda f: f["machine"].update(free_disk={"/srv/treespec": None})),
        ],
    )
    def test_what_is_not_wrong_passes(self, name: str, change: Change) -> None:
        assert row(judge(situation(described(), change)), name).ok is True

    def test_a_cpu_needs_no_gpu(self) -> None:
        def without(found: dict[str, Any]) -> None:
            found["machine"].update(gpus=None, cuda=None)
            found["environment"]["torch"] = {"cuda": None, "num_gpus": 0, "nccl": None}

        assert failures(judge(situation(described(device="cpu"), without))) == set()

    def test_hosts_of_mixed_gpus_are_refused_even_where_they_are_alike(self) -> None:
        found = situation(described())
        for facts in found.hosts.values():
            assert facts.machine is not None
            facts.machine["gpus"][3]["name"] = "T4"
        assert failures(judge(found)) == {("node0", "gpus"), ("node1", "gpus")}

    def test_mpirun_needs_its_program(self) -> None:
        rows = judge(situation(described(launcher="mpirun"), lambda f: f["machine"]["programs"].update(mpirun=None)))
        assert "openmpi-bin" in row(rows, "programs").fix

    def test_shared_models_take_no_disk(self) -> None:
        def little(found: dict[str, Any]) -> None:
            found["machine"]["free_disk"] = {"/srv/treespec": GIB}
            found["project"] = {}

        assert row(judge(situation(described(), little)), "disk").ok is False
        assert row(judge(situation(described(shared_dir="/mnt/shared"), little)), "disk").ok is True

    def test_loopback_addresses_are_the_loopback_interface_s(self) -> None:
        hosts = [{"host": f"127.0.0.{i}", "address": f"127.0.0.{i}", "slots": 1} for i in (2, 3)]
        rows = judge(
            situation(
                described(hosts=hosts, interface="lo", device="cpu"),
                lambda f: f["machine"].update(resolves_to=["127.0.0.1"]),
            )
        )
        assert failures(rows) == set()

    def test_links(self) -> None:
        cluster = described()
        first, second = cluster.hosts
        good = situation(cluster)
        cut = {**good.links, (first, second): Link(error="timed out")}
        rows = judge(Situation(cluster, MODELS, good.hosts, cut, 10))
        assert failures(rows) == {("node0", "reaches others")}
        assert row(rows, "reaches others", "node0").detail == "10.0.0.2: timed out"
        assert row(rows, "speed", "node0") == Row("node0", "speed", None, "reaches others failed", "")
        slow = {**good.links, (second, first): Link(40_000.0, 9.0)}
        rows = judge(Situation(cluster, MODELS, good.hosts, slow, 10))
        assert failures(rows) == {("node1", "speed")}
        assert row(rows, "speed").detail == "to node0 40000 us round trip, 9 MB/s; allowed: 10 MB/s"

    @pytest.mark.parametrize("stage", ["reachable", "host key", "login", "answers", "python", "environment", "project"])
    def test_a_failure_is_one_row_and_what_rests_on_it_is_not_checked(self, stage: str) -> None:
        def fail(found: dict[str, Any]) -> None:
            order = ["answers", "python", "environment", "project"]
            unknown = ["clock", "machine", "environment", "project"]
            found.update(dict.fromkeys(unknown[order.index(stage) if stage in order else 0 :]))
            found["failure"] = Failure(stage, "it broke", "mend it")

        rows = judge(situation(described(), fail))
        assert failures(rows) >= {("node1", stage)}
        assert row(rows, stage) == Row("node1", stage, False, "it broke", "mend it")
        assert not failures(rows) - {("node1", stage), ("node1", "project")}
        if stage not in ("environment", "project"):
            assert row(rows, "models").ok is None and row(rows, "models").detail == f"{stage} failed"
            assert row(rows, "speed").detail == f"{stage} failed"


def test_the_table_is_aligned_and_holds_the_fixes() -> None:
    lines = table([Row("a", "x", True, "fine", ""), Row("node10", "speed", False, "slow", "hurry")]).splitlines()
    assert [line.rstrip() for line in lines] == [
        "host    check          found",
        "a       x      ok      fine",
        "node10  speed  FAILED  slow",
        "                       fix: hurry",
    ]


class TestModels:
    @pytest.mark.parametrize("folder", ["../elsewhere", "models/nowhere"])
    def test_a_folder_that_hosts_cannot_hold_is_refused(self, folder: str) -> None:
        with pytest.raises(ClusterError, match="fix"):
            models_here([Path(folder)])

    def test_an_absolute_path_is_refused(self, tmp_path: Path) -> None:
        (tmp_path / "file").touch()
        with pytest.raises(ClusterError, match="relative to the repository"):
            models_here([tmp_path])

    def test_sizes_are_those_of_the_files_even_through_links(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / "blobs").mkdir()
        (tmp_path / "blobs/1").write_bytes(bytes(7))
        (tmp_path / "models/a/deep").mkdir(parents=True)
        (tmp_path / "models/a/deep/w").symlink_to(tmp_path / "blobs/1")
        (tmp_path / "models/b").symlink_to(tmp_path / "models/a")
        monkeypatch.chdir(tmp_path)
        found = models_here([Path("models/a"), Path("models/b")])
        assert [list(files) for files in found.values()] == [["models/a/deep/w"], ["models/b/deep/w"]]
        assert Situation(described(), found, {}, {}).size_of("models/b") == 7


def test_the_example_is_two_machines_of_four_gpus() -> None:
    example = load_cluster(REPOSITORY / "config/cluster.example.yaml")
    assert [host.slots for host in example.hosts] == [4, 4]
    assert example.device == "cuda"
    text = (REPOSITORY / "config/cluster.example.yaml").read_text()
    assert [name for name in Cluster.model_fields if f"{name}:" not in text] == []
