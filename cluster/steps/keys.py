"""SSH between the hosts: a key pair of each one's own, known to the others. No private key ever travels."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Sequence
from pathlib import PurePosixPath

from cluster.errors import ClusterError
from cluster.facts import read_json
from cluster.hosts import Cluster, Host
from cluster.ssh import Connection, known_as
from cluster.steps.step import SHORT_S

KEY, KNOWN_HOSTS, CONFIG = "id_ed25519", "known_hosts", "config"
AUTHORIZED_KEYS = ".ssh/authorized_keys"
PUBLIC_KEY = re.compile(r"ssh-ed25519 [A-Za-z0-9+/=]+ [A-Za-z0-9@.:_-]+")


def ssh_folder(cluster: Cluster, host: Host) -> PurePosixPath:
    """Where a host keeps what it needs to log in to the others: ``ssh -F <folder>/config <address>``."""
    return cluster.work_dir_of(host) / "ssh"


class KeyPair:
    """A host's own key, made there."""

    name = "key pair"

    def is_done(self, connection: Connection) -> bool:
        key = str(ssh_folder(connection.cluster, connection.host) / KEY)
        # Made under another name and renamed: the private key first, the public one says that both are there.
        return connection.try_run(["test", "-s", f"{key}.pub", "-a", "-s", key], timeout_s=SHORT_S).status == 0

    def apply(self, connection: Connection) -> None:
        key = str(ssh_folder(connection.cluster, connection.host) / KEY)
        connection.run(["rm", "-f", "--", f"{key}.new", f"{key}.new.pub"], timeout_s=SHORT_S)
        comment = f"treespec@{connection.host.address}"
        words = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", comment, "-f", f"{key}.new"]
        connection.run(words, timeout_s=SHORT_S)
        connection.run(["mv", "--", f"{key}.new", key], timeout_s=SHORT_S)
        connection.run(["mv", "--", f"{key}.new.pub", f"{key}.pub"], timeout_s=SHORT_S)


class Acquaintance:
    """Each host lets the others log in, and knows their host keys: the ones pinned here, under their data addresses."""

    name = "keys between hosts"

    def __init__(self, connections: Sequence[Connection]) -> None:
        self._connections = connections

    def is_done(self, connection: Connection) -> bool:
        if self._authorize(connection, "look"):
            return False
        folder = ssh_folder(connection.cluster, connection.host)
        return all(
            connection.try_run(["cat", str(folder / name)], timeout_s=SHORT_S).stdout == text
            for name, text in self._files(connection).items()
        )

    def apply(self, connection: Connection) -> None:
        self._authorize(connection, "append")
        folder = ssh_folder(connection.cluster, connection.host)
        for name, text in self._files(connection).items():
            connection.run(["tee", str(folder / f"{name}.new")], timeout_s=SHORT_S, stdin=text)
            connection.run(["mv", "--", str(folder / f"{name}.new"), str(folder / name)], timeout_s=SHORT_S)

    def _authorize(self, connection: Connection, how: str) -> list[str]:
        """The others' keys that authorized_keys lacked."""
        lines = [_public_key(other) for other in self._connections if other is not connection]
        # Commands are all they are for: no terminal, no forwarding.
        words = [how, AUTHORIZED_KEYS, *(f"restrict {line}" for line in lines)]
        python = connection.cluster.python
        missing: list[str] = read_json(connection, python, "append_lines.py", words, timeout_s=SHORT_S)["missing"]
        return missing

    def _files(self, connection: Connection) -> dict[str, str]:
        cluster, others = connection.cluster, [item.host for item in self._connections if item is not connection]
        return {
            KNOWN_HOSTS: "".join(line for other in others for line in _known_lines(cluster, other)),
            CONFIG: _client_settings(cluster, connection.host, others),
        }


def _public_key(connection: Connection) -> str:
    path = ssh_folder(connection.cluster, connection.host) / f"{KEY}.pub"
    text = connection.run(["cat", str(path)], timeout_s=SHORT_S).strip()
    if not PUBLIC_KEY.fullmatch(text):
        raise ClusterError("is not a public key", where=f"{connection.name}: {path}", fix="remove it, and its key")
    return text


def _known_lines(cluster: Cluster, host: Host) -> list[str]:
    """The host's pinned keys, named by its data address."""
    words = ["ssh-keygen", "-F", known_as(host.host, host.port), "-f", str(cluster.known_hosts)]
    done = subprocess.run(words, text=True, capture_output=True, check=False)
    keys = [line.split()[1:3] for line in done.stdout.splitlines() if line and line[0] not in "#@"]
    if not keys:
        raise ClusterError("has no pinned key", where=host.host, received=str(cluster.known_hosts))
    return [f"{known_as(str(host.address), host.port)} {kind} {key}\n" for kind, key in keys]


def _client_settings(cluster: Cluster, own: Host, others: Sequence[Host]) -> str:
    """For the ssh program: ports, and the same strictness as from here."""
    ports = "".join(f"Host {other.address}\n  Port {other.port}\n" for other in others)
    folder = ssh_folder(cluster, own)
    return (
        f"{ports}Host *\n  User {cluster.user}\n  IdentityFile {folder / KEY}\n  IdentitiesOnly yes\n"
        f"  UserKnownHostsFile {folder / KNOWN_HOSTS}\n  StrictHostKeyChecking yes\n  BatchMode yes\n"
        f"  ConnectTimeout {cluster.connect_timeout_s:.0f}\n"
    )
