"""Host keys as consoles show them, and what counts as an answer at port 22."""

from __future__ import annotations

import socket
import threading

import pytest

from cluster.aws.console_keys import parse_console
from cluster.aws.instances import speaks_ssh
from tests.cluster.aws.lab import console, key_mark, key_text


def test_the_last_boot_counts() -> None:
    shown = parse_console(console("ssh-rsa", "old") + console("ssh-ed25519", "new"))
    assert shown.fingerprints == (f"ED25519 {key_mark('ssh-ed25519', 'new')}",)
    assert shown.keys == (f"ssh-ed25519 {key_text('ssh-ed25519', 'new')}",)


def test_a_key_that_does_not_have_its_fingerprint_is_not_pinned() -> None:
    text, key = console("ssh-ed25519", "one"), key_text("ssh-ed25519", "one")
    torn = text.replace(key, key[:-8] + "AAAAAAAA")
    assert torn != text
    shown = parse_console(torn)
    assert shown.keys == () and len(shown.fingerprints) == 1


@pytest.mark.parametrize("text", ["", "no keys", "-----END SSH HOST KEY KEYS-----\nssh-ed25519 AAAA"])
def test_a_console_without_keys(text: str) -> None:
    shown = parse_console(text)
    assert (shown.fingerprints, shown.keys) == ((), ())


@pytest.mark.parametrize(("greeting", "is_ssh"), [(b"SSH-2.0-x\r\n", True), (b"HTTP/1.1 400\r\n", False), (b"", False)])
def test_only_an_ssh_servers_greeting_counts(greeting: bytes, is_ssh: bool) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def greet() -> None:
            connection, _ = server.accept()
            with connection:
                connection.sendall(greeting)

        thread = threading.Thread(target=greet)
        thread.start()
        assert speaks_ssh("127.0.0.1", server.getsockname()[1], 5) is is_ssh
        thread.join()


def test_a_closed_port_is_no_answer() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    assert not speaks_ssh("127.0.0.1", port, 1)
