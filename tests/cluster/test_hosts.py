"""cluster.yaml and job files: whatever is wrong with them is one clear line, before anything is started."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from cluster.cli import main
from cluster.errors import ClusterError
from cluster.hosts import Cluster, load_cluster
from cluster.jobs import load_job
from cluster.launchers import LAUNCHERS, HostRun

TWO: dict[str, Any] = {
    "hosts": [
        {"host": "node0", "address": "10.0.0.11", "slots": 4},
        {"host": "node1", "address": "10.0.0.12", "slots": 4, "work_dir": "/data/treespec"},
    ],
    "user": "ubuntu",
    "key": "~/.ssh/id",
    "interface": "ens5",
    "work_dir": "/home/ubuntu/treespec",
}
JOB: dict[str, Any] = {
    "placement": {
        "name": "server_gpu-large",
        "target": {"path": "models/target"},
        "drafts": [{"path": "models/draft"}],
        "tensor_parallel_degree": 4,
        "pipeline_parallel_degree": 2,
    },
    "scenarios": [{"name": "a", "prompts": "prompts/mixed.json"}],
}


def written(folder: Path, data: object) -> Path:
    path = folder / "file.yaml"
    path.write_text(data if isinstance(data, str) else yaml.safe_dump(data))
    return path


def changed(**changes: Any) -> dict[str, Any]:
    return TWO | changes


def host(**changes: Any) -> list[dict[str, Any]]:
    return [TWO["hosts"][0] | changes]


def test_a_cluster_is_read_and_its_hostfile_made(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = written(tmp_path, TWO)
    cluster = load_cluster(path)
    assert not str(cluster.key).startswith("~")
    assert [str(cluster.work_dir_of(item)) for item in cluster.hosts] == ["/home/ubuntu/treespec", "/data/treespec"]
    assert main(["hostfile", "--cluster", str(path), "--ranks", "8"]) == 0
    assert capsys.readouterr().out == "10.0.0.11 slots=4\n10.0.0.12 slots=4\n"
    assert cluster.hostfile(3) == "10.0.0.11 slots=3\n"


@pytest.mark.parametrize(
    ("data", "told"),
    [
        ("hosts: [", "is not valid YAML"),
        ("- a", "refused"),
        (changed(hosts=[]), "hosts: Tuple should have at least 1 item"),
        (changed(colour="red"), "colour: Extra inputs are not permitted"),
        ({key: value for key, value in TWO.items() if key != "interface"}, "interface: Field required"),
        (changed(hosts=host(slots=0)), "hosts.0.slots: Input should be greater than or equal to 1 (received 0)"),
        (changed(hosts=host(address="10.0.0")), "hosts.0.address"),
        (changed(hosts=host(port=99999)), "hosts.0.port"),
        (changed(hosts=host(host="-oProxyCommand=x")), "hosts.0.host: String should match pattern"),
        (changed(user="a b; rm"), "user: String should match pattern"),
        (changed(work_dir="treespec"), "work_dir: must be an absolute path"),
        (changed(work_dir="/home/../etc"), "work_dir: must be an absolute path"),
        (changed(work_dir="/home"), "work_dir: must be an absolute path of at least two parts"),
        (changed(hosts=TWO["hosts"][:1] * 2), "received twice: host node0, port 22"),
        (changed(hosts=[TWO["hosts"][0], TWO["hosts"][0] | {"host": "other"}]), "received twice: address 10.0.0.11"),
        (changed(launcher="ray"), "launcher: Input should be 'torchrun' or 'mpirun' (received 'ray')"),
    ],
)
def test_a_malformed_cluster_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], data: object, told: str
) -> None:
    path = written(tmp_path, data)
    assert main(["hostfile", "--cluster", str(path), "--ranks", "1"]) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert error.startswith(f"error: {path}: ")
    assert told in error


def test_a_cluster_that_is_not_there_names_the_example(tmp_path: Path) -> None:
    with pytest.raises(ClusterError, match=r"cannot be read; received: No such file.*config/cluster.example.yaml"):
        load_cluster(tmp_path / "none.yaml")


def test_too_few_slots_and_uneven_ranks_are_refused() -> None:
    cluster = Cluster.model_validate(TWO)
    with pytest.raises(ClusterError, match=r"too few slots; received: 9 ranks; allowed: at most 8: node0 4, node1 4"):
        cluster.hostfile(9)
    with pytest.raises(ClusterError, match=r"no ranks; received: -2 ranks; allowed: at least 1"):
        cluster.hostfile(-2)
    with pytest.raises(ClusterError, match=r"spread unevenly; received: node0: 4, node1: 2"):
        cluster.hostfile(6)


def test_a_job_tells_where_its_driver_sits(tmp_path: Path) -> None:
    job = load_job(written(tmp_path, JOB), 8)
    assert (job.num_ranks, job.driver, job.scenarios) == (8, 4, ("a",))


@pytest.mark.parametrize(
    ("changes", "ranks", "told"),
    [
        (
            {},
            4,
            "degrees do not give the number of ranks; received: tensor_parallel_degree 4 x pipeline_parallel_degree 2",
        ),
        ({"target": {"path": "/data/llama"}}, 8, "names files outside the project.*received: /data/llama"),
        ({"target": {"path": "../llama"}}, 8, "names files outside the project"),
        ({"target": None}, 8, "is not a job file"),
    ],
)
def test_a_job_that_cannot_run_elsewhere_is_one_line(
    tmp_path: Path, changes: dict[str, Any], ranks: int, told: str
) -> None:
    with pytest.raises(ClusterError, match=told):
        load_job(written(tmp_path, JOB | {"placement": JOB["placement"] | changes}), ranks)


def test_launchers_start_the_same_ranks_with_the_same_rendezvous() -> None:
    cluster = Cluster.model_validate(TWO)
    runs = [HostRun(cluster, cluster.hosts, i, 4, cluster.work_dir_of(h), cluster.work_dir_of(h) / "runs/x")
            for i, h in enumerate(cluster.hosts)]  # fmt: skip
    words = [LAUNCHERS["torchrun"](run, run.folder / "job.yaml") or [] for run in runs]
    for node, line in enumerate(words):
        assert {"--nnodes=2", "--nproc-per-node=4", f"--node-rank={node}", "--master-addr=10.0.0.11"} <= set(line)
    assert words[1][0] == "/data/treespec/venv/bin/python"
    one = LAUNCHERS["mpirun"](runs[0], runs[0].folder / "job.yaml") or []
    assert one[:2] == ["mpirun", "--allow-run-as-root"]
    assert one[2:6] == ["-np", "8", "--hostfile", "/home/ubuntu/treespec/runs/x/hostfile"]
    assert LAUNCHERS["mpirun"](runs[1], runs[1].folder / "job.yaml") is None
    assert all(run.environment()["GLOO_SOCKET_IFNAME"] == "ens5" for run in runs)
