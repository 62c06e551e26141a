"""The embedded cluster is what it claims to be: two hosts, apart from each other and from this machine."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from cluster.embedded import network
from cluster.embedded.processes import observed
from cluster.embedded.testbed import EmbeddedCluster
from cluster.errors import ClusterError, HostKeyError, UnreachableError
from cluster.hosts import Cluster
from cluster.ssh import Connection, openssh_words
from tests.cluster.remains import CHECKOUT, wait_for

pytestmark = pytest.mark.ssh
NOTICED_WITHIN_S = 30.0


def said(embedded: EmbeddedCluster, node: int, *words: str) -> str:
    done = embedded.execute(node, words)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def over_ssh(cluster: Cluster, node: int, *words: str) -> str:
    with Connection(cluster, cluster.hosts[node]) as connection:
        return connection.run(words, timeout_s=120).strip()


class TestTwoHosts:
    def test_have_names_of_their_own_that_resolve_to_their_addresses(self, embedded: EmbeddedCluster) -> None:
        for node, host in enumerate(embedded.cluster.hosts):
            assert said(embedded, node, "hostname") == over_ssh(embedded.cluster, node, "hostname") == f"node{node}"
            for other in (0, 1):
                assert said(embedded, other, "getent", "hosts", f"node{node}").split() == [
                    str(host.address),
                    f"node{node}",
                ]
        assert socket.gethostname() not in ("node0", "node1")

    @pytest.mark.parametrize("folder", ["/srv", "/usr/local", "/tmp", "/var/tmp", "/run", "/dev/shm", "~"])
    def test_have_files_of_their_own(self, embedded: EmbeddedCluster, folder: str) -> None:
        path = f"{said(embedded, 0, 'sh', '-c', f'echo {folder}')}/treespec_{os.getpid()}"
        said(embedded, 0, "touch", path)
        assert said(embedded, 0, "ls", path) == path
        assert embedded.execute(1, ["ls", path]).returncode != 0
        assert not Path(path).exists()
        said(embedded, 0, "rm", path)

    @pytest.mark.parametrize("folder", ["/tmp", "/var/tmp", "/dev/shm"])
    def test_do_not_see_what_others_leave_here(self, embedded: EmbeddedCluster, folder: str) -> None:
        with tempfile.NamedTemporaryFile(dir=folder) as file:
            assert embedded.execute(0, ["ls", file.name]).returncode != 0

    def test_have_processes_of_their_own(self, embedded: EmbeddedCluster) -> None:
        cluster = embedded.cluster
        with Connection(cluster, cluster.hosts[0]) as connection:
            sleeping = connection.start(["sleep", "98.7"])
            wait_for(lambda: embedded.processes(0, "sleep 98.7") != [])
            assert embedded.processes(1, "sleep 98.7") == []
            inner = said(embedded, 0, "pgrep", "-x", "sleep").splitlines()
            assert inner
            assert not set(inner) & {str(pid) for pid in embedded.processes(0, "sleep 98.7")}
            assert embedded.execute(1, ["pgrep", "-x", "sleep"]).returncode == 1
            sleeping.end_input()
        kill(embedded, 0, "sleep 98.7")

    def test_have_namespaces_of_their_own(self, embedded: EmbeddedCluster) -> None:
        for kind in ("net", "mnt", "pid", "uts", "ipc"):
            seen = [said(embedded, node, "readlink", f"/proc/self/ns/{kind}") for node in (0, 1)]
            assert len({*seen, os.readlink(f"/proc/self/ns/{kind}")}) == 3

    def test_reach_each_other_and_this_machine_and_nothing_else(self, embedded: EmbeddedCluster) -> None:
        first, second = (str(host.address) for host in embedded.cluster.hosts)
        assert said(embedded, 0, "ip", "route").split()[0] == f"{first.rsplit('.', 1)[0]}.0/24"
        assert "default" not in said(embedded, 0, "ip", "route")
        attempt = f"import socket; socket.create_connection(({second!r}, 22), 3)"
        said(embedded, 0, "python3", "-c", attempt)
        outside = embedded.execute(0, ["python3", "-c", attempt.replace(second, "192.0.2.77")])
        assert "Network is unreachable" in outside.stderr

    def test_do_not_see_the_checkout_nor_our_environment(self, embedded: EmbeddedCluster) -> None:
        assert (CHECKOUT / "cluster").is_dir()
        for node in (0, 1):
            # A checkout that lies in a folder which is hidden as a whole is not even an empty one.
            assert embedded.execute(node, ["ls", "-A", str(CHECKOUT)]).stdout == ""
            assert embedded.execute(node, ["test", "-e", str(CHECKOUT / "cluster")]).returncode == 1
            with Connection(embedded.cluster, embedded.cluster.hosts[node]) as connection:
                assert connection.try_run(["ls", "-A", str(CHECKOUT)], timeout_s=10).stdout == ""
            assert said(embedded, node, "find", "/srv", "/tmp", "-mindepth", "1") == ""

    def test_do_not_see_the_private_key_of_their_login(self, embedded: EmbeddedCluster) -> None:
        assert embedded.cluster.key.is_file()
        assert embedded.execute(0, ["ls", str(embedded.cluster.key)]).returncode != 0

    @pytest.mark.slow
    def test_make_an_environment_with_the_named_interpreter(self, embedded: EmbeddedCluster) -> None:
        for python in (embedded.cluster.python, "python3"):
            over_ssh(embedded.cluster, 1, python, "-m", "venv", "/srv/treespec_venv")
            prefix = "import sys; print(sys.prefix)"
            assert said(embedded, 1, "/srv/treespec_venv/bin/python", "-c", prefix) == "/srv/treespec_venv"
            said(embedded, 1, "/srv/treespec_venv/bin/python", "-m", "pip", "--version")
            said(embedded, 1, "rm", "-r", "/srv/treespec_venv")

    def test_take_files_by_rsync(self, embedded: EmbeddedCluster, tmp_path: Path) -> None:
        (tmp_path / "sent").write_text("over ssh")
        words = ["rsync", "-e", " ".join(openssh_words(embedded.cluster, 22)), str(tmp_path / "sent")]
        place = f"{embedded.cluster.user}@{embedded.cluster.hosts[1].host}:/srv/received"
        subprocess.run([*words, place], check=True, timeout=20)
        assert said(embedded, 1, "cat", "/srv/received") == "over ssh"
        said(embedded, 1, "rm", "/srv/received")

    def test_send_no_faster_than_the_limit(self, embedded: EmbeddedCluster) -> None:
        def seconds() -> float:
            started = time.monotonic()
            over_ssh(embedded.cluster, 0, "head", "-c", "4000000", "/dev/zero")
            return time.monotonic() - started

        try:
            embedded.limit_rate(10)
            assert seconds() > 2.5  # 32 Mbit at 10 Mbit/s, less what the bucket holds
        finally:
            embedded.limit_rate(None)
        assert seconds() < 2.5


class TestKeys:
    def test_unknown_host_is_refused_with_the_command_to_accept_it(
        self, embedded: EmbeddedCluster, tmp_path: Path
    ) -> None:
        (tmp_path / "known_hosts").write_text("")
        stranger = embedded.cluster.model_copy(update={"known_hosts": tmp_path / "known_hosts"})
        with pytest.raises(HostKeyError, match=r"not a known host.*python -m cluster accept-keys") as caught:
            Connection(stranger, stranger.hosts[0])
        assert_one_line(caught.value, stranger.hosts[0].host)

    @pytest.mark.parametrize("kind", ["embedded", "loopback"])
    def test_changed_host_key_is_refused_with_the_command_to_accept_it(
        self, kind: str, request: pytest.FixtureRequest
    ) -> None:
        two: EmbeddedCluster = request.getfixturevalue(kind)
        cluster = two.cluster
        try:
            two.restart_sshd_with_new_host_key(1)
            with pytest.raises(HostKeyError, match=r"another host key.*ssh-keygen -R .*accept-keys") as caught:
                Connection(cluster, cluster.hosts[1])
            assert_one_line(caught.value, cluster.hosts[1].host)
            over_ssh(cluster, 0, "true")
        finally:
            two.restore_host_key(1)
        over_ssh(cluster, 1, "true")

    def test_wrong_key_of_the_login_is_one_line(self, embedded: EmbeddedCluster, tmp_path: Path) -> None:
        words = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(tmp_path / "other")]
        subprocess.run(words, check=True)
        stranger = embedded.cluster.model_copy(update={"key": tmp_path / "other"})
        with pytest.raises(UnreachableError, match="refuses the key") as caught:
            Connection(stranger, stranger.hosts[0])
        assert_one_line(caught.value, stranger.hosts[0].host)


class TestFaults:
    def test_cut_link_is_noticed_while_a_command_runs(self, embedded: EmbeddedCluster) -> None:
        cluster = embedded.cluster
        with Connection(cluster, cluster.hosts[1]) as connection:
            cutter = threading.Timer(1.0, embedded.cut_link, [1])
            cutter.start()
            started = time.monotonic()
            try:
                with pytest.raises(UnreachableError, match="connection lost") as caught:
                    connection.try_run(["sleep", "65.4"], timeout_s=120)
            finally:
                cutter.join()
                embedded.mend_link(1)
        assert 1.0 < time.monotonic() - started < NOTICED_WITHIN_S
        assert_one_line(caught.value, cluster.hosts[1].host)
        assert over_ssh(cluster, 1, "hostname") == "node1"
        kill(embedded, 1, "sleep 65.4")

    def test_cut_link_is_noticed_when_connecting(self, embedded: EmbeddedCluster) -> None:
        cluster = embedded.cluster.model_copy(update={"connect_timeout_s": 2.0})
        embedded.cut_link(0)
        try:
            with pytest.raises(UnreachableError, match="cannot be reached"):
                Connection(cluster, cluster.hosts[0])
            assert over_ssh(cluster, 1, "hostname") == "node1"
        finally:
            embedded.mend_link(0)
        assert over_ssh(cluster, 0, "hostname") == "node0"

    def test_full_disk_is_one_nodes_own(self, embedded: EmbeddedCluster, tmp_path: Path) -> None:
        write = ["dd", "if=/dev/zero", "of=/srv/treespec_filler", "bs=64k", "count=1"]
        embedded.fill_disk(0)
        try:
            refused = embedded.execute(0, write)
            assert refused.returncode != 0
            assert "No space left on device" in refused.stderr
            said(embedded, 1, *write)
            (tmp_path / "here").write_bytes(bytes(65536))
        finally:
            embedded.free_disk(0)
        for node in (0, 1):
            said(embedded, node, *write)
            said(embedded, node, "rm", "/srv/treespec_filler")

    @pytest.mark.kill
    def test_crashed_node_takes_its_processes_and_keeps_its_disk(self, own: EmbeddedCluster) -> None:
        cluster = own.cluster
        address = str(cluster.hosts[1].address)
        knock = ("python3", "-c", f"import socket; socket.create_connection(({address!r}, 22), 3)")
        said(own, 0, *knock)
        said(own, 1, "touch", "/srv/kept", "/usr/local/kept", "/tmp/cleared")
        with Connection(cluster, cluster.hosts[1]) as connection:
            connection.start(["sleep", "65.5"])
            wait_for(lambda: own.processes(1, "sleep 65.5") != [])
            running = [observed(pid) for pid in own.processes(1, "")]
            own.kill_node(1)
            assert not any(process.is_alive for process in running if process)
        assert own.processes(1, "") == []
        with pytest.raises(ClusterError, match="node1: is off"):
            own.execute(1, ["true"])
        with pytest.raises(UnreachableError):
            Connection(cluster.model_copy(update={"connect_timeout_s": 2.0}), cluster.hosts[1])
        assert over_ssh(cluster, 0, "hostname") == "node0"
        own.start_node(1)
        said(own, 0, *knock)  # nobody's neighbour table is out of date
        assert over_ssh(cluster, 1, "ls", "/srv/kept", "/usr/local/kept").split() == ["/srv/kept", "/usr/local/kept"]
        assert said(own, 1, "ls", "/tmp") == ""


class TestLoopback:
    def test_hosts_have_homes_and_work_folders_of_their_own(self, loopback: EmbeddedCluster) -> None:
        cluster = loopback.cluster
        homes = [over_ssh(cluster, node, "printenv", "HOME") for node in (0, 1)]
        assert homes == [said(loopback, node, "printenv", "HOME") for node in (0, 1)]
        folders = {*homes, *(str(cluster.work_dir_of(host)) for host in cluster.hosts)}
        assert len(folders) == 4
        assert all(Path(folder).is_relative_to(loopback.folder) for folder in folders)

    @pytest.mark.kill
    def test_crashed_node_takes_its_processes(self, loopback: EmbeddedCluster) -> None:
        cluster = loopback.cluster
        with Connection(cluster, cluster.hosts[1]) as connection:
            connection.start(["sleep", "65.6"])
            connection.start(["setsid", "--fork", "sleep", "65.61"])  # no child of sshd any more
            wait_for(lambda: len(loopback.processes(1, "sleep 65.61")) == 1)
            wait_for(lambda: loopback.processes(1, "sleep 65.6") != loopback.processes(1, "sleep 65.61"))
            assert loopback.processes(0, "sleep 65.6") == []
            running = [observed(pid) for pid in loopback.processes(1, "")]
            assert len(running) > 3  # sshd, its child for the connection, both commands
            loopback.kill_node(1)
            assert not any(process.is_alive for process in running if process)
        with pytest.raises(UnreachableError):
            Connection(cluster, cluster.hosts[1])
        loopback.start_node(1)
        over_ssh(cluster, 1, "true")

    def test_what_it_cannot_do_is_said(self, loopback: EmbeddedCluster) -> None:
        for fault in (loopback.cut_link, loopback.mend_link, loopback.fill_disk, loopback.free_disk):
            with pytest.raises(ClusterError, match=r"of their own; received: kind loopback; allowed: kind namespaces"):
                fault(0)
        with pytest.raises(ClusterError, match="no interfaces of their own"):
            loopback.limit_rate(100)


def test_a_subnet_that_another_cluster_holds_is_left_to_it(
    embedded: EmbeddedCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(network, "_routed", list)  # as if both had looked at the same time
    with EmbeddedCluster(tmp_path, kind="namespaces") as other:
        assert not {host.host for host in other.cluster.hosts} & {host.host for host in embedded.cluster.hosts}
        assert over_ssh(other.cluster, 0, "hostname") == over_ssh(embedded.cluster, 0, "hostname") == "node0"


@pytest.fixture
def own(embedded: EmbeddedCluster, tmp_path: Path) -> Iterator[EmbeddedCluster]:
    """Beside the shared one, which shows that two can be up at once."""
    with EmbeddedCluster(tmp_path / "own", kind="namespaces", disk_gib=0.25) as cluster:
        assert cluster.cluster.hosts[0].host != embedded.cluster.hosts[0].host
        yield cluster


def kill(embedded: EmbeddedCluster, node: int, text: str) -> None:
    pids = embedded.processes(node, text)
    assert pids
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):  # `timeout` ends with its command
            os.kill(pid, signal.SIGKILL)


def assert_one_line(error: ClusterError, host: str) -> None:
    assert str(error).startswith(f"{host}: ")
    assert "\n" not in str(error)
