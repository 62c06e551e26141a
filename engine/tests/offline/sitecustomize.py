"""Imported by every Python process that has this folder on PYTHONPATH: connecting anywhere is refused.

Each attempt is also written to the file that TREESPEC_CONNECTIONS names, for libraries that swallow the refusal.
"""

from __future__ import annotations

import os
import socket
from typing import Any, NoReturn

CONNECTIONS = "TREESPEC_CONNECTIONS"


def refuse_connection(_socket: socket.socket, address: Any) -> NoReturn:
    """In place of ``socket.socket.connect``."""
    _refuse(f"connect {address}")


def refuse_name(host: Any, *_args: Any, **_options: Any) -> NoReturn:
    """In place of ``socket.getaddrinfo``."""
    _refuse(f"look-up {host}")


def _refuse(attempt: str) -> NoReturn:
    if CONNECTIONS in os.environ:
        with open(os.environ[CONNECTIONS], "a", encoding="utf-8") as file:
            file.write(attempt + "\n")
    raise OSError(f"the network is off limits here: {attempt}")


if __name__ == "sitecustomize":
    socket.socket.connect = refuse_connection  # type: ignore[assignment,method-assign]
    socket.socket.connect_ex = refuse_connection  # type: ignore[assignment,method-assign]
    socket.getaddrinfo = refuse_name
