"""The only file that speaks SSH: pinned host keys, one connection per host, commands as words, never as strings."""

from __future__ import annotations

import contextlib
import io
import shlex
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from types import TracebackType
from typing import Self, TypeVar

import fabric
import paramiko

from cluster.errors import ClusterError, HostKeyError, UnreachableError
from cluster.hosts import Cluster, Host

KEEPALIVE_S = 2
SILENCE_MS = 8000  # a peer that acknowledges nothing for so long is gone
LAST_WORDS = 400  # characters of a failed command's output that an error repeats
T = TypeVar("T")


@dataclass(frozen=True)
class Done:
    """A remote command that has ended."""

    status: int
    stdout: str
    stderr: str

    @property
    def last_words(self) -> str:
        """The end of what it said."""
        return " ".join((self.stderr.strip() or self.stdout.strip())[-LAST_WORDS:].split())


class Program:
    """A remote command that is running. Where the connection is lost, it falls silent and its status is -1."""

    def __init__(self, channel: paramiko.Channel) -> None:
        self._channel = channel

    def send(self, data: bytes) -> None:
        """To its stdin."""
        with contextlib.suppress(OSError, paramiko.SSHException):
            self._channel.sendall(data)

    def end_input(self) -> None:
        """Its stdin ends."""
        with contextlib.suppress(OSError, EOFError, paramiko.SSHException):
            self._channel.shutdown_write()

    def read(self, within_s: float | None = None) -> bytes:
        """What it said since; empty once it says no more, or said nothing within the time."""
        self._channel.settimeout(within_s)
        try:
            return self._channel.recv(1 << 16)
        except OSError:
            return b""

    def status(self) -> int:
        """Its exit status, once it has ended; -1: killed, or nobody can tell."""
        return self._channel.recv_exit_status()


class Connection:
    """An open connection to one host; closed by ``with``. Raises UnreachableError where it cannot be opened."""

    def __init__(self, cluster: Cluster, host: Host) -> None:
        self.cluster = cluster
        self.host = host
        self._fabric = _open(cluster, host)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Hang up."""
        self._fabric.close()

    @property
    def name(self) -> str:
        """How messages name the host."""
        return self.host.host

    @property
    def is_open(self) -> bool:
        """Whether the other side was there when last heard of."""
        transport = self._fabric.client.get_transport()
        return transport is not None and transport.is_active()

    def try_run(self, words: Sequence[str], *, timeout_s: float, stdin: str = "") -> Done:
        """Run a command to its end, whatever its status. Raises UnreachableError, and ClusterError at the time limit.

        The time limit holds on the host as well: a command that outlives it is killed there.
        """
        # The remote shell sees quoted words only.
        command = shlex.join(["timeout", "-k", "5", f"{timeout_s:g}", *words])
        started = time.monotonic()
        channel = self._channel(command)
        try:
            channel.sendall(stdin.encode())
            channel.shutdown_write()
            out, err = _drained(channel, started + timeout_s + 2 * SILENCE_MS / 1000)
        except (OSError, EOFError, paramiko.SSHException):
            out, err = None, b""
        if out is None:
            raise UnreachableError("connection lost", where=self.name, received=f"while running {words[0]}")
        status = channel.recv_exit_status()
        if status == 124:
            raise ClusterError(f"{words[0]} took too long", where=self.name, allowed=f"{timeout_s:g} s")
        if status == -1:
            raise UnreachableError("connection lost", where=self.name, received=f"while running {words[0]}")
        return Done(status, out.decode(errors="replace"), err.decode(errors="replace"))

    def run(self, words: Sequence[str], *, timeout_s: float, stdin: str = "", what: str | None = None) -> str:
        """Run a command that has to succeed; returns its stdout. Raises ClusterError with its last words."""
        done = self.try_run(words, timeout_s=timeout_s, stdin=stdin)
        if done.status != 0:
            raise ClusterError(
                f"{what or words[0]} failed", where=self.name, received=f"exit status {done.status}: {done.last_words}"
            )
        return done.stdout

    def start(self, words: Sequence[str]) -> Program:
        """Start a command and talk to it; its stderr comes with its stdout."""
        return Program(self._channel(shlex.join(words), combined=True))

    def _channel(self, command: str, *, combined: bool = False) -> paramiko.Channel:
        transport = self._fabric.client.get_transport()
        try:
            if transport is None or not transport.is_active():
                raise EOFError("closed")
            channel: paramiko.Channel = transport.open_session(timeout=self.cluster.connect_timeout_s)
            channel.set_combine_stderr(combined)
            channel.exec_command(command)
        except (paramiko.SSHException, EOFError, OSError) as error:
            raise UnreachableError(
                "connection lost", where=self.name, received=str(error) or type(error).__name__
            ) from error
        return channel


def connected(cluster: Cluster, hosts: Sequence[Host]) -> list[Connection]:
    """Connections to several hosts at once; the first host's error, in their order, is raised when one fails."""
    with ThreadPoolExecutor(max(1, len(hosts))) as pool:
        futures = [pool.submit(Connection, cluster, host) for host in hosts]
    failed = [error for future in futures if (error := future.exception()) is not None]
    if failed:
        for future in futures:
            if future.exception() is None:
                future.result().close()
        raise failed[0]
    return [future.result() for future in futures]


def openssh_words(cluster: Cluster, port: int) -> list[str]:
    """The ssh program under the same rules, for programs such as rsync that bring no SSH of their own."""
    options = {
        "UserKnownHostsFile": cluster.known_hosts,
        "StrictHostKeyChecking": "yes",
        "BatchMode": "yes",
        "IdentitiesOnly": "yes",
        "ConnectTimeout": f"{cluster.connect_timeout_s:.0f}",
        "ServerAliveInterval": KEEPALIVE_S,
        "ServerAliveCountMax": SILENCE_MS // 1000 // KEEPALIVE_S,
    }
    words = ["ssh", "-F", "none", "-i", str(cluster.key), "-p", str(port)]
    return [*words, *(word for name, value in options.items() for word in ("-o", f"{name}={value}"))]


def rsync(
    connection: Connection, sources: Sequence[str], target: str, *, fetch: bool = False, options: Sequence[str] = ()
) -> None:
    """Copy files to a host, or from it with ``fetch``; what is the same already does not travel.

    Every file appears whole under its name. Raises ClusterError naming the host.
    """
    cluster, host = connection.cluster, connection.host
    there = f"{cluster.user}@{host.host if ':' not in host.host else f'[{host.host}]'}:"
    paths = [*(f"{there}{source}" for source in sources), target] if fetch else [*sources, f"{there}{target}"]
    remote_shell = shlex.join(openssh_words(cluster, host.port))
    silence = f"--timeout={cluster.failure_timeout_s:.0f}"
    words = ["rsync", "-rlpt", "--mkpath", silence, *options, "--rsh", remote_shell, "--", *paths]
    try:
        done = subprocess.run(words, text=True, capture_output=True, check=False)
    except FileNotFoundError as error:
        raise ClusterError("rsync is not there", where="this machine", fix="apt-get install rsync") from error
    if done.returncode != 0:
        told = f"rsync, exit status {done.returncode}: {' '.join(done.stderr.split())[-LAST_WORDS:]}"
        if not fetch and _is_full(connection, target):
            told = f"No space left on device; {told}"  # the receiving rsync does not always come to say so
        raise ClusterError("files could not be copied", where=host.host, received=told)


def _is_full(connection: Connection, target: str) -> bool:
    try:
        done = connection.try_run(
            ["stat", "-f", "-c", "%a", "--", target], timeout_s=connection.cluster.connect_timeout_s
        )
    except ClusterError:
        return False
    return done.stdout.strip() == "0"


def on_every(connections: Sequence[Connection], task: Callable[[Connection], T]) -> list[T]:
    """``task`` on all hosts at once; the first error in their order is raised after all have ended."""
    with ThreadPoolExecutor(max(1, len(connections))) as pool:
        return [future.result() for future in [pool.submit(task, connection) for connection in connections]]


def _open(cluster: Cluster, host: Host) -> fabric.Connection:
    for path, what, fix in (
        (cluster.key, "private key", "name another one as key in cluster.yaml"),
        (cluster.known_hosts, "file of known hosts", "python -m cluster accept-keys"),
    ):
        if not path.is_file():
            raise ClusterError(f"{what} is not there", where=host.host, received=str(path), fix=fix)
    connection = fabric.Connection(
        host.host,
        user=cluster.user,
        port=host.port,
        connect_timeout=cluster.connect_timeout_s,
        config=fabric.Config(lazy=True),  # the user's own SSH configuration does not count
        connect_kwargs={
            "key_filename": str(cluster.key),
            "allow_agent": False,
            "look_for_keys": False,
            "banner_timeout": cluster.connect_timeout_s,
            "auth_timeout": cluster.connect_timeout_s,
        },
    )
    # fabric accepts unknown hosts unless told otherwise, and loads no known ones.
    connection.client.load_host_keys(str(cluster.known_hosts))
    connection.client.set_missing_host_key_policy(paramiko.RejectPolicy())
    try:
        connection.open()
    except paramiko.BadHostKeyException as error:
        raise _changed_key(cluster, host, error.key, error.expected_key) from error
    except paramiko.AuthenticationException as error:
        raise UnreachableError(
            "refuses the key",
            where=host.host,
            received=f"user {cluster.user}, key {cluster.key}",
            fix=f"add {cluster.key}.pub to the login's authorized_keys there",
        ) from error
    except paramiko.SSHException as error:
        if "not found in known_hosts" in str(error):
            raise HostKeyError(
                "is not a known host",
                where=host.host,
                allowed=f"hosts of {cluster.known_hosts}",
                fix="python -m cluster accept-keys, which shows the fingerprints to compare and asks",
            ) from error
        raise UnreachableError("cannot be reached", where=host.host, received=str(error)) from error
    except (OSError, EOFError) as error:
        reason = "no answer" if isinstance(error, TimeoutError) else str(error) or type(error).__name__
        raise UnreachableError(
            "cannot be reached",
            where=host.host,
            received=f"{reason} at port {host.port}",
            fix="is it up, is the port open?",
        ) from error
    _notice_silence(connection)
    return connection


def _changed_key(cluster: Cluster, host: Host, shown: paramiko.PKey, pinned: paramiko.PKey) -> HostKeyError:
    forget = f"ssh-keygen -R {known_as(host.host, host.port)} -f {cluster.known_hosts}"
    return HostKeyError(
        "shows another host key than the pinned one",
        where=host.host,
        received=_fingerprint(shown),
        allowed=f"{_fingerprint(pinned)} in {cluster.known_hosts}",
        fix=f"find out why; if the host was made anew: {forget}, then python -m cluster accept-keys",
    )


def _notice_silence(connection: fabric.Connection) -> None:
    """Keepalives alone do not notice a cut link: the kernel has to give up on what is never acknowledged."""
    transport = connection.client.get_transport()
    assert transport is not None
    transport.set_keepalive(KEEPALIVE_S)
    if isinstance(transport.sock, socket.socket):
        transport.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, SILENCE_MS)


def _drained(channel: paramiko.Channel, deadline: float) -> tuple[bytes | None, bytes]:
    """Both outputs to their end; (None, ...) if the deadline comes first."""
    err = io.BytesIO()

    def read_err() -> None:
        while data := channel.recv_stderr(1 << 16):
            err.write(data)

    reader = threading.Thread(target=read_err, daemon=True)
    reader.start()
    out = io.BytesIO()
    while True:
        channel.settimeout(max(0.1, deadline - time.monotonic()))
        try:
            data = channel.recv(1 << 16)
        except TimeoutError:
            channel.close()
            return None, err.getvalue()
        if not data:
            break
        out.write(data)
    reader.join(max(0.1, deadline - time.monotonic()))
    return out.getvalue(), err.getvalue()


def known_as(name: str, port: int) -> str:
    """How known_hosts names a host that is reached by this name or address."""
    return name if port == 22 else f"[{name}]:{port}"


def _fingerprint(key: paramiko.PKey) -> str:
    return f"{key.get_name()} {key.fingerprint}"


def host_key(host: Host, timeout_s: float) -> paramiko.PKey:
    """The key that a host shows, without logging in. Raises UnreachableError."""
    try:
        with socket.create_connection((host.host, host.port), timeout_s) as sock:
            transport = paramiko.Transport(sock)
            try:
                transport.start_client(timeout=timeout_s)
                return transport.get_remote_server_key()
            finally:
                transport.close()
    except (OSError, EOFError, paramiko.SSHException) as error:
        raise UnreachableError("cannot be reached", where=host.host, received=str(error)) from error


def is_pinned(cluster: Cluster, host: Host, key: paramiko.PKey) -> bool:
    """Whether exactly this key is known for the host. Raises HostKeyError where another one of its kind is."""
    keys = paramiko.HostKeys()
    if cluster.known_hosts.is_file():
        keys.load(str(cluster.known_hosts))
    known = keys.lookup(known_as(host.host, host.port))
    pinned = known.get(key.get_name()) if known is not None else None
    if pinned is not None and pinned != key:
        raise _changed_key(cluster, host, key, pinned)
    return pinned is not None


def pin(cluster: Cluster, host: Host, key: paramiko.PKey) -> None:
    """Add a host's key to the pinned ones; what is pinned already stays as it is."""
    cluster.known_hosts.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    with open(cluster.known_hosts, "a", encoding="utf-8") as file:
        file.write(f"{known_as(host.host, host.port)} {key.get_name()} {key.get_base64()}\n")


def described_key(key: paramiko.PKey) -> str:
    """A key as people compare it."""
    return _fingerprint(key)
