"""Checks of real hosts with something wrong with them: it is a row of its own, in bounded time, never a traceback."""

from __future__ import annotations

import json
import subprocess
import threading
import time
from pathlib import Path, PurePosixPath

import pytest
import yaml

from cluster import facts as facts_module
from cluster.checks import Row, judge
from cluster.cli import main
from cluster.embedded.testbed import EmbeddedCluster
from cluster.facts import gather
from cluster.hosts import Cluster
from tests.cluster.rows import failures, row

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture
def bare(embedded: EmbeddedCluster) -> Cluster:
    """The embedded hosts, with a work folder in which nothing is."""
    changes = {"work_dir": PurePosixPath("/srv/checked"), "connect_timeout_s": 3.0}
    return embedded.cluster.model_copy(update=changes)


def rows_of(cluster: Cluster) -> list[Row]:
    """Looked at and judged."""
    return judge(gather(cluster, {}, 0.0))


@pytest.mark.ssh
class TestHosts:
    def test_bare_machines_lack_what_provisioning_brings(self, bare: Cluster, embedded: EmbeddedCluster) -> None:
        rows = rows_of(bare)
        names = [str(host.address) for host in bare.hosts]
        assert failures(rows) == {(name, check) for name in names for check in ("environment", "project")}
        for host, other in (names, names[::-1]):
            assert f"to {other} " in row(rows, "speed", host).detail
        end = time.monotonic() + 5
        while any(embedded.processes(node, "serve") for node in (0, 1)):
            assert time.monotonic() < end, "a server of the measurement is left"
            time.sleep(0.05)

    def test_the_command_tells_all_and_fails(
        self, bare: Cluster, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(REPOSITORY)
        file, report = tmp_path / "cluster.yaml", tmp_path / "new/report.json"
        file.write_text(yaml.safe_dump(bare.model_dump(mode="json", exclude_none=True)))
        words = ["check", "--cluster", str(file), "--models", "models/embedded/llama/draft", "--output", str(report)]
        assert main(words) == 1
        captured = capsys.readouterr()
        assert "fix: python -m cluster provision" in captured.out
        assert "4 of 44 checks failed" in captured.err
        written = json.loads(report.read_text())
        assert written["ok"] is False
        assert len(written["checks"]) == 44
        assert [item["machine"]["hostname"] for item in written["hosts"]] == ["node0", "node1"]
        assert all(item["mb_per_s"] > 0 for item in written["links"]) and len(written["links"]) == 2
        assert [path.name for path in report.parent.iterdir()] == ["report.json"]

    def test_a_dead_host_is_a_row(self, bare: Cluster, embedded: EmbeddedCluster) -> None:
        embedded.kill_node(1)
        try:
            started = time.monotonic()
            rows = rows_of(bare)
        finally:
            embedded.start_node(1)
        assert time.monotonic() - started < 30
        dead = str(bare.hosts[1].address)
        assert {item for item in failures(rows) if item[0] == dead} == {(dead, "reachable")}
        assert row(rows, "reaches others", str(bare.hosts[0].address)).ok is None

    def test_a_host_that_dies_while_it_is_looked_at_is_a_row(self, bare: Cluster, embedded: EmbeddedCluster) -> None:
        sleeper = "/srv/sleeper"
        for node in (0, 1):
            embedded.execute(node, ["tee", sleeper], "#!/bin/sh\nexec sleep 97\n")
            embedded.execute(node, ["chmod", "755", sleeper])

        def kill() -> None:
            while not embedded.processes(1, "sleep 97"):
                time.sleep(0.05)
            embedded.kill_node(1)

        killer = threading.Thread(target=kill)
        killer.start()
        try:
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(facts_module, "PROBE_S", 4.0)
                started = time.monotonic()
                rows = rows_of(bare.model_copy(update={"python": sleeper}))
                took = time.monotonic() - started
        finally:
            killer.join()
            embedded.start_node(1)
            for node in (0, 1):
                embedded.execute(node, ["rm", "-f", sleeper])
        hanging, dead = (str(host.address) for host in bare.hosts)
        assert failures(rows) == {(hanging, "python"), (dead, "python")}
        assert "took too long; allowed: 4 s" in row(rows, "python", hanging).detail
        assert "connection lost" in row(rows, "python", dead).detail
        assert took < 30
        assert embedded.processes(0, "sleep 97") == []

    def test_another_host_key(self, bare: Cluster, embedded: EmbeddedCluster) -> None:
        embedded.restart_sshd_with_new_host_key(1)
        try:
            rows = rows_of(bare)
        finally:
            embedded.restore_host_key(1)
        name = str(bare.hosts[1].address)
        assert {item for item in failures(rows) if item[0] == name} == {(name, "host key")}
        assert "accept-keys" in row(rows, "host key", name).fix

    def test_no_host_is_known(self, bare: Cluster, tmp_path: Path) -> None:
        for known_hosts in (tmp_path / "none", tmp_path / "empty"):
            (tmp_path / "empty").touch()
            rows = rows_of(bare.model_copy(update={"known_hosts": known_hosts}))
            assert {name for _, name in failures(rows)} == {"host key"}

    def test_a_refused_key(self, bare: Cluster, tmp_path: Path) -> None:
        key = tmp_path / "other"
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)], check=True)
        rows = rows_of(bare.model_copy(update={"key": key}))
        assert {name for _, name in failures(rows)} == {"login"}
        assert "authorized_keys" in row(rows, "login", bare.hosts[0].host).fix

    def test_no_python(self, bare: Cluster) -> None:
        rows = rows_of(bare.model_copy(update={"python": "python9"}))
        assert {name for _, name in failures(rows)} == {"python"}
        assert "python9" in row(rows, "python", bare.hosts[0].host).detail
        assert row(rows, "clock", bare.hosts[0].host).ok is True

    def test_a_name_that_resolves_to_the_host_itself_only(self, bare: Cluster, embedded: EmbeddedCluster) -> None:
        hosts = embedded.execute(1, ["cat", "/etc/hosts"]).stdout
        embedded.execute(1, ["tee", "/etc/hosts"], "127.0.0.1 localhost\n127.0.1.1 node1\n")
        try:
            rows = rows_of(bare)
        finally:
            embedded.execute(1, ["tee", "/etc/hosts"], hosts)
        name = str(bare.hosts[1].address)
        assert {check for host, check in failures(rows)} == {"environment", "project", "name resolution"}
        assert row(rows, "name resolution", name).fix == f"in its /etc/hosts: {name} node1 (instead of 127.0.1.1)"

    def test_a_full_disk(self, bare: Cluster, embedded: EmbeddedCluster) -> None:
        embedded.fill_disk(1)
        try:
            rows = rows_of(bare)
        finally:
            embedded.free_disk(1)
        assert {host for host, check in failures(rows) if check == "disk"} == {str(bare.hosts[1].address)}

    def test_an_address_that_is_not_the_host_s(self, bare: Cluster) -> None:
        first, second = bare.hosts
        wrong = bare.model_copy(update={"hosts": (first, second.model_copy(update={"address": first.address + 88}))})
        rows = rows_of(wrong)
        assert row(rows, "interface", second.host).ok is False
        assert row(rows, "reaches others", second.host).detail == "interface failed"
        assert "nothing can listen on" in row(rows, "reaches others", first.host).detail

    def test_a_slow_network(self, bare: Cluster, embedded: EmbeddedCluster) -> None:
        embedded.limit_rate(50)
        try:
            rows = judge(gather(bare, {}, min_mb_per_s=10))
        finally:
            embedded.limit_rate(None)
        assert {check for _, check in failures(rows)} == {"environment", "project", "speed"}
