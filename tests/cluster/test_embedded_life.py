"""The embedded cluster from `up` to `down`: started once, ended wholly, whatever happens in between."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Any

import pytest

from cluster.embedded import requirements
from cluster.embedded.processes import observed
from cluster.embedded.requirements import Kind, obstacle
from cluster.embedded.testbed import EmbeddedCluster
from cluster.errors import ClusterError
from cluster.ssh import Connection
from tests.cluster.remains import (
    CHECKOUT,
    assert_nothing_is_left,
    command,
    interface_index,
    namespaces_of,
    pids,
    state,
    wait_for,
)

pytestmark = pytest.mark.ssh
ORDINARY, ORDINARY_ID = "treespec-test", 54321
AS_ORDINARY = ["setpriv", f"--reuid={ORDINARY_ID}", f"--regid={ORDINARY_ID}", "--clear-groups"]


class TestUpAndDown:
    def test_outlive_their_commands_and_leave_nothing(self, kind: Kind, tmp_path: Path) -> None:
        folder = tmp_path / "two"
        up = command("up", "--folder", str(folder), "--kind", kind)
        assert (up.returncode, up.stdout) == (0, f"{folder}/cluster.yaml\n"), up.stderr
        cluster = EmbeddedCluster(folder).cluster
        for host in cluster.hosts:
            with Connection(cluster, host) as connection:
                connection.run(["sh", "-c", "mkdir -p ~/deep/er && touch ~/deep/er/file"], timeout_s=10)
                connection.start(["sleep", "65.7"])
        assert all(os.getsid(pid) == pid for pid in pids(folder)), "a terminal's hang-up would reach them"
        namespaces = set().union(*(namespaces_of(pid) for pid in pids(folder)))
        index = interface_index(folder)
        assert bool(namespaces) == bool(index) == (kind == "namespaces")
        down = command("down", "--folder", str(folder))
        assert down.returncode == 0, down.stderr
        assert_nothing_is_left(folder, namespaces, index)
        assert command("down", "--folder", str(folder)).stderr.strip().endswith("nothing was up")

    def test_up_twice_changes_nothing_and_says_so(self, kind: Kind, tmp_path: Path) -> None:
        said: list[str] = []
        with EmbeddedCluster(tmp_path, kind=kind) as first:
            files = {
                path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file() and path.suffix != ".log"
            }
            assert len(files) >= 8
            second = EmbeddedCluster(tmp_path, say=said.append)
            assert second.up() is False
            assert said == [f"{tmp_path}: already up ({kind})"]
            assert {path: path.read_bytes() for path in files} == files
            assert all(process.is_alive for process in first.machines.state.processes.values())
            other: Kind = "loopback" if kind == "namespaces" else "namespaces"
            with pytest.raises(ClusterError, match=f"another kind.*received: {kind}; allowed: {other}.*cluster down"):
                EmbeddedCluster(tmp_path, kind=other).up()

    def test_two_at_once_in_one_folder_start_one_cluster(self, kind: Kind, tmp_path: Path) -> None:
        words = [sys.executable, "-m", "cluster", "up", "--folder", str(tmp_path), "--kind", kind]
        both = [subprocess.Popen(words, cwd=CHECKOUT, stderr=subprocess.PIPE, text=True) for _ in range(2)]
        try:
            said = sorted(up.communicate(timeout=60)[1] for up in both)
            assert said == [f"{tmp_path}: already up ({kind})\n", f"{tmp_path}: up ({kind})\n"]
        finally:
            EmbeddedCluster(tmp_path).down()
        assert_nothing_is_left(tmp_path)

    @pytest.mark.kill
    @pytest.mark.parametrize("dead", [[0], [1], [0, 1], [2]])
    def test_half_dead_is_started_anew(self, kind: Kind, dead: list[int], tmp_path: Path) -> None:
        said: list[str] = []
        with EmbeddedCluster(tmp_path, kind=kind) as two:
            former = pids(tmp_path)
            if max(dead) >= len(former):
                pytest.skip(f"a cluster of kind {kind} has {len(former)} processes")
            for i in dead:
                os.kill(former[i], signal.SIGKILL)
            # A signal that was sent has not yet ended anything.
            wait_for(lambda: not any((process := observed(former[i])) and process.is_alive for i in dead))
            assert EmbeddedCluster(tmp_path, kind=kind, say=said.append).up() is True
            assert "ending what is left" in said[0]
            assert not set(former) & set(pids(tmp_path))
            assert not any(process.is_alive for pid in former if (process := observed(pid)))
            for host in two.cluster.hosts:
                Connection(two.cluster, host).close()

    def test_of_a_former_boot_is_started_anew_and_strangers_are_spared(self, kind: Kind, tmp_path: Path) -> None:
        stranger = subprocess.Popen(["sleep", "65.8"])
        try:
            for change in (
                {"boot_id": "11111111-2222-3333-4444-555555555555", "start_ticks": None},
                {"boot_id": None, "start_ticks": 7},  # the same boot, but another process has that pid now
            ):
                as_of_a_dead_cluster(tmp_path, kind, stranger.pid, change)
                two = EmbeddedCluster(tmp_path, kind=kind)
                assert two.up() is True
                assert stranger.poll() is None
                as_of_a_dead_cluster(tmp_path, kind, stranger.pid, change, save=False)
                assert two.down() is True
                as_of_a_dead_cluster(tmp_path, kind, stranger.pid, change)
                assert EmbeddedCluster(tmp_path).down() is True
                assert stranger.poll() is None
                assert_nothing_is_left(tmp_path)
        finally:
            stranger.kill()
            stranger.wait()

    @pytest.mark.kill
    def test_what_was_not_recorded_in_time_is_ended_too(self, kind: Kind, tmp_path: Path) -> None:
        EmbeddedCluster(tmp_path, kind=kind).up()
        namespaces = set().union(*(namespaces_of(pid) for pid in pids(tmp_path)))
        (tmp_path / "state.json").write_text(json.dumps({**state(tmp_path), "processes": {}, "complete": False}))
        assert EmbeddedCluster(tmp_path).down() is True
        assert_nothing_is_left(tmp_path, namespaces)

    def test_foreign_files_are_not_overwritten(self, kind: Kind, tmp_path: Path) -> None:
        (tmp_path / "id").write_text("somebody's key")
        with pytest.raises(ClusterError, match="holds a id that is not of an embedded cluster"):
            EmbeddedCluster(tmp_path, kind=kind).up()
        assert (tmp_path / "id").read_text() == "somebody's key"
        (tmp_path / "state.json").write_text("{}")
        with pytest.raises(ClusterError, match="not the state of an embedded cluster"):
            EmbeddedCluster(tmp_path).down()


def as_of_a_dead_cluster(folder: Path, kind: Kind, pid: int, change: dict[str, Any], *, save: bool = True) -> None:
    """state.json of a cluster whose processes are gone and whose pids others have."""
    process = observed(pid)
    assert process is not None
    content = {
        "kind": kind,
        "boot_id": change["boot_id"] or Path("/proc/sys/kernel/random/boot_id").read_text().strip(),
        "disk_bytes": 1 << 30,
        "third_byte": 0 if kind == "namespaces" else None,
        "port": 22,
        "processes": {
            name: {"pid": pid, "start_ticks": change["start_ticks"] or process.start_ticks}
            for name in ("rack", "node0", "node1")
        },
        "complete": True,
    }
    if save:
        (folder / "state.json").write_text(json.dumps(content))


class TestWhatIsMissing:
    def test_missing_programs_are_named_with_the_apt_line(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        monkeypatch.setenv("PATH", str(tmp_path))
        monkeypatch.setattr(requirements, "SYSTEM_FOLDERS", str(tmp_path))
        with pytest.raises(ClusterError) as caught:
            EmbeddedCluster(tmp_path / "two").up()
        assert "\n" not in str(caught.value)
        for kind in ("namespaces: not there: sshd", "loopback: not there: sshd"):
            assert kind in str(caught.value)
        assert "apt-get install openssh-client openssh-server rsync)" in str(caught.value)
        assert_nothing_is_left(tmp_path / "two")

    def test_auto_falls_back_to_loopback_and_says_why(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        if hindrance := obstacle("loopback"):
            pytest.skip(str(hindrance))
        for name in requirements.LOOPBACK_PROGRAMS:
            (tmp_path / name).symlink_to(requirements.program(name))
        for name in ("env", "timeout"):
            (tmp_path / name).symlink_to(f"/usr/bin/{name}")
        monkeypatch.setenv("PATH", str(tmp_path))
        monkeypatch.setattr(requirements, "SYSTEM_FOLDERS", str(tmp_path))
        said: list[str] = []
        with EmbeddedCluster(tmp_path / "two", say=said.append) as two:
            assert two.machines.kind == "loopback"
        why = "namespaces: not there: " if os.geteuid() == 0 else "need root"
        assert why in said[0]
        assert os.geteuid() != 0 or "apt-get install iproute2" in said[0]


def test_ordinary_user_gets_the_loopback_kind(tmp_path_factory: pytest.TempPathFactory) -> None:
    if os.geteuid() != 0:
        pytest.skip("run by an ordinary user, all tests of the loopback kind show this already")
    python, environment = ordinary_python()
    # A login that only a mount namespace knows: this machine gets no user.
    passwd = tmp_path_factory.mktemp("ordinary") / "passwd"
    line = f"{ORDINARY}:x:{ORDINARY_ID}:{ORDINARY_ID}::/tmp:/bin/sh\n"
    passwd.write_text(Path("/etc/passwd").read_text() + line)
    passwd.chmod(0o644)
    shown = ["unshare", "--mount", "sh", "-c", 'mount --bind "$0" /etc/passwd && exec "$@"', str(passwd)]
    before = [*shown, *AS_ORDINARY, "env", *environment, python]
    folder = Path(subprocess.run([*AS_ORDINARY, "mktemp", "-d"], capture_output=True, text=True).stdout.strip())
    try:
        up = command("up", "--folder", str(folder), before=before)
        assert up.returncode == 0, up.stderr
        assert "need root" in up.stderr and "two sshd on loopback" in up.stderr
        cluster = EmbeddedCluster(folder).cluster
        assert cluster.user == ORDINARY
        for node, host in enumerate(cluster.hosts):
            with Connection(cluster, host) as connection:
                assert connection.run(["id", "-u"], timeout_s=10).strip() == str(ORDINARY_ID)
                home = connection.run(["printenv", "HOME"], timeout_s=10).strip()
                assert home == f"{folder}/node{node}/home"
                connection.run(["touch", f"{cluster.work_dir_of(host)}/mine"], timeout_s=10)
        down = command("down", "--folder", str(folder), before=before)
        assert down.returncode == 0, down.stderr
        assert_nothing_is_left(folder)
    finally:
        if (folder / "state.json").exists():
            EmbeddedCluster(folder).down()
        subprocess.run(["rm", "-r", str(folder)], check=True)


def ordinary_python() -> tuple[str, list[str]]:
    """An interpreter that an ordinary user may run and that finds our packages, with its environment."""
    environment = [f"PYTHONPATH={sysconfig.get_path('purelib')}", "PYTHONDONTWRITEBYTECODE=1", "HOME=/tmp"]
    for python in (sys.executable, "/usr/bin/python3"):
        tried = subprocess.run(
            [*AS_ORDINARY, "env", *environment, python, "-c", "import cluster.cli"],
            cwd=CHECKOUT,
            capture_output=True,
            text=True,
        )
        if tried.returncode == 0:
            return python, environment
    pytest.skip(f"no Python here that an ordinary user may run with our packages: {tried.stderr.strip()[-200:]}")
