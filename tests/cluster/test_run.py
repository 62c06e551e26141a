"""Jobs over real SSH on two embedded hosts: the tokens of one process, and every failure bounded, named and clean."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from shutil import which

import pytest

from cluster.embedded.testbed import EmbeddedCluster
from cluster.errors import ClusterError
from tests.cluster.runs import BOUND_S, REPOSITORY, ClusterRun, scenario, tree

pytestmark = [pytest.mark.ssh, pytest.mark.slow]
ENDLESS = 100_000  # repeats


@pytest.fixture
def hosts(provisioned: EmbeddedCluster) -> Iterator[EmbeddedCluster]:
    """Provisioned hosts; whatever a test broke is mended after it."""
    yield provisioned
    for node in (0, 1):
        start_if_dead(provisioned, node)
        provisioned.mend_link(node)
        provisioned.free_disk(node)
        provisioned.restore_host_key(node)


def start_if_dead(hosts: EmbeddedCluster, node: int) -> None:
    if not hosts.processes(node, "sshd"):
        hosts.start_node(node)


def name(hosts: EmbeddedCluster, node: int) -> str:
    """How messages name a host."""
    return hosts.cluster.hosts[node].host


def test_two_hosts_write_the_tokens_of_one_process(hosts: EmbeddedCluster, tmp_path: Path) -> None:
    run = ClusterRun(tmp_path, hosts, [scenario("a"), tree("b")], tensor=4, pipeline=2, slots=4)
    assert run.run() == 0, "\n".join(run.lines)
    assert run.complete() == ["a", "b"]
    alone = ClusterRun(tmp_path, hosts, [scenario("a"), tree("b")], tensor=1, pipeline=1)
    assert alone.words
    words = ["-m", "treespec", "run", "--config", str(tmp_path / "job.yaml"), "--output-dir", str(tmp_path / "alone")]
    subprocess.run([sys.executable, *words], cwd=REPOSITORY, check=True, capture_output=True)
    alone.results = tmp_path / "alone"
    assert {name: run.tokens(name) for name in ("a", "b")} == {name: alone.tokens(name) for name in ("a", "b")}
    before = run.identity("a"), run.identity("b")
    again = ClusterRun(tmp_path, hosts, run.scenarios, tensor=4, pipeline=2, slots=4)
    assert again.run() == 0
    assert "0 records are new" in again.lines
    assert (run.identity("a"), run.identity("b")) == before
    assert run.leftovers() == []


@pytest.mark.skipif(which("mpirun") is None, reason="no mpirun: apt-get install openmpi-bin")
def test_mpirun_starts_the_same_ranks(hosts: EmbeddedCluster, tmp_path: Path) -> None:
    scenarios = [scenario("a"), tree("b")]
    run = ClusterRun(tmp_path, hosts, scenarios, cluster_changes={"launcher": "mpirun"})
    assert run.run() == 0, "\n".join(run.lines)
    assert run.complete() == ["a", "b"]
    assert run.leftovers() == []


def kill_rank(run: ClusterRun) -> None:
    os.kill(run.ranks(1)[0], signal.SIGKILL)


def kill_launcher(run: ClusterRun) -> None:
    os.kill(run.launchers(1)[0], signal.SIGKILL)


def kill_keeper(run: ClusterRun) -> None:
    os.kill(run.keepers(1)[0], signal.SIGKILL)


def kill_node(run: ClusterRun) -> None:
    run.hosts.kill_node(1)


def cut_link(run: ClusterRun) -> None:
    run.hosts.cut_link(1)


@pytest.mark.kill
@pytest.mark.parametrize(
    ("strike", "told"),
    [
        (kill_rank, "the run ended here: rank 1 was killed by signal 9"),
        (kill_launcher, "the run ended here: the launcher was killed by signal 9"),
        (kill_keeper, "the run ended here: the keeper was killed"),
        (kill_node, "the run ended here: the connection was lost"),
        (cut_link, "the run ended here: the connection was lost"),
    ],
)
def test_what_strikes_one_host_ends_the_run_everywhere(
    hosts: EmbeddedCluster, tmp_path: Path, strike: Callable[[ClusterRun], None], told: str
) -> None:
    run = ClusterRun(tmp_path, hosts, [scenario("a", max_requests_per_batch=1), tree("b", num_repeats=ENDLESS)])
    run.start()
    run.wait_for("b, repeat 3")
    strike(run)
    started = time.monotonic()
    assert run.finish() == 1
    assert time.monotonic() - started < BOUND_S
    assert len(run.errors()) == 1, run.errors()
    assert run.errors()[0].startswith(f"error: {name(hosts, 1)}: {told}")
    assert "Traceback" not in "\n".join(line for line in run.lines if not line.startswith("["))
    start_if_dead(hosts, 1)
    hosts.mend_link(1)
    if strike is cut_link:
        time.sleep(22)  # the keeper that nobody could reach ends its ranks after a third of failure_timeout_s
    assert run.leftovers() == []
    assert "b" not in run.complete()


@pytest.mark.kill
def test_a_rerun_completes_only_what_is_missing(hosts: EmbeddedCluster, tmp_path: Path) -> None:
    run = ClusterRun(tmp_path, hosts, [scenario("a", max_requests_per_batch=1), tree("b", num_repeats=200)])
    run.start()
    run.wait_for("b, repeat 3")
    kill_rank(run)
    assert run.finish() == 1
    assert run.complete() == ["a"]
    first = run.identity("a")
    again = ClusterRun(tmp_path, hosts, run.scenarios)
    assert again.run() == 0, "\n".join(again.lines)
    assert run.complete() == ["a", "b"]
    assert run.identity("a") == first
    assert "1 records are new" in again.lines


@pytest.mark.kill
def test_a_killed_controller_leaves_nothing_running_and_loses_no_record(hosts: EmbeddedCluster, tmp_path: Path) -> None:
    run = ClusterRun(tmp_path, hosts, [scenario("a", max_requests_per_batch=1), tree("b", num_repeats=200)])
    run.start()
    run.wait_for("b, repeat 3")
    run.process.kill()
    run.finish()
    assert run.leftovers() == []
    assert run.complete() == []
    again = ClusterRun(tmp_path, hosts, run.scenarios)
    assert again.run() == 0, "\n".join(again.lines)
    assert run.complete() == ["a", "b"]
    assert any("1 of 2 scenarios are done" in line for line in again.lines), "what the killed run had finished was lost"


def refused(run: ClusterRun) -> str:
    """The one line that a run ends with that starts nothing."""
    started = time.monotonic()
    assert run.run() == 1
    assert time.monotonic() - started < BOUND_S
    assert run.leftovers() == []
    assert run.complete() == []
    assert len(run.lines) == 1, run.lines
    return run.lines[0]


def test_a_full_disk_is_named(hosts: EmbeddedCluster, tmp_path: Path) -> None:
    hosts.fill_disk(1)
    told = refused(ClusterRun(tmp_path, hosts, [scenario("a")]))
    assert told.startswith(f"error: {name(hosts, 1)}: ")
    assert "No space left on device" in told


def test_a_disk_that_fills_up_during_the_run(hosts: EmbeddedCluster, tmp_path: Path) -> None:
    run = ClusterRun(tmp_path, hosts, [scenario("a", num_repeats=150)])
    run.start()
    run.wait_for("a, repeat 3")
    hosts.fill_disk(1)
    assert run.finish() == 1
    assert len(run.errors()) == 1
    assert run.errors()[0].startswith(f"error: {name(hosts, 1)}: ")
    assert "No space left on device" in run.errors()[0]
    assert run.complete() == []
    hosts.free_disk(1)
    assert run.leftovers() == []


def test_records_that_find_no_room_here_stay_there_until_they_do(hosts: EmbeddedCluster, tmp_path: Path) -> None:
    run = ClusterRun(tmp_path, hosts, [scenario("a")])
    run.results.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8k", "tmpfs", str(run.results)], check=True)
    try:
        (run.results / "filler").write_bytes(b"x" * 4096)
        assert run.run() == 1
        assert len(run.errors()) == 1
        assert "its records are still there" in run.errors()[0]
        assert run.complete() == []
    finally:
        subprocess.run(["umount", str(run.results)], check=True)
    again = ClusterRun(tmp_path, hosts, run.scenarios)
    assert again.run() == 0
    assert again.complete() == ["a"]
    assert any("1 of 1 scenarios are done" in line for line in again.lines), "it was measured again"


def test_hosts_are_not_taken_down_under_a_run(hosts: EmbeddedCluster, tmp_path: Path) -> None:
    run = ClusterRun(tmp_path, hosts, [scenario("a", num_repeats=ENDLESS)])
    run.start()
    run.wait_for("a, repeat 3")
    with pytest.raises(ClusterError, match="a run goes on here"):
        hosts.require_idle()
    run.process.send_signal(signal.SIGINT)
    assert run.finish() == 130
    assert run.leftovers() == []
    hosts.require_idle()


def test_a_changed_host_key_is_refused(hosts: EmbeddedCluster, tmp_path: Path) -> None:
    hosts.restart_sshd_with_new_host_key(1)
    told = refused(ClusterRun(tmp_path, hosts, [scenario("a")]))
    assert told.startswith(
        f"error: {name(hosts, 1)}: shows another host key than the pinned one; received: ssh-ed25519 "
    )
    assert "ssh-keygen -R" in told


def test_a_key_that_the_host_refuses(hosts: EmbeddedCluster, tmp_path: Path) -> None:
    key = tmp_path / "other"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)], check=True)
    told = refused(ClusterRun(tmp_path, hosts, [scenario("a")], cluster_changes={"key": str(key)}))
    assert told.startswith(f"error: {name(hosts, 0)}: refuses the key; received: user ")
    assert "PRIVATE" not in told


def test_a_host_that_lacks_the_environment(hosts: EmbeddedCluster, tmp_path: Path) -> None:
    home = hosts.cluster.work_dir
    hosts.execute(1, ["mv", f"{home}/venv", f"{home}/away"])
    try:
        told = refused(ClusterRun(tmp_path, hosts, [scenario("a")]))
    finally:
        hosts.execute(1, ["mv", f"{home}/away", f"{home}/venv"])
    assert told.startswith(f"error: {name(hosts, 1)}: lacks the environment")
    assert told.endswith("fix: python -m cluster provision")


@pytest.mark.parametrize(
    ("tensor", "pipeline", "slots", "told"),
    [
        (3, 1, 3, "the engine refuses the job; received: .*attention heads cannot be divided among the ranks"),
        (1, 9, 9, "the engine refuses the job; received: .*more pipeline stages than layers"),
        (2, 2, 1, "hostfile: too few slots; received: 4 ranks"),
    ],
)
def test_degrees_that_do_not_fit_start_nothing(
    hosts: EmbeddedCluster, tmp_path: Path, tensor: int, pipeline: int, slots: int, told: str
) -> None:
    run = ClusterRun(tmp_path, hosts, [scenario("a")], tensor=tensor, pipeline=pipeline, slots=slots)
    assert re.search(told, refused(run))
