"""Refuses every attempt to reach another machine and notes it: in the file TREESPEC_NETWORK_LOG names, if it is set.

Python runs a module of this name when it starts: with this folder in PYTHONPATH it covers a program and every Python
program that it starts. Importing it covers the process at hand.
"""

import ipaddress
import os
import sys

LOOK_UPS = {"socket.getaddrinfo", "socket.gethostbyname", "socket.gethostbyaddr"}
CONNECTIONS = {"socket.connect", "socket.sendto", "socket.sendmsg"}


def _is_here(host: object) -> bool:
    if host in (None, "", b"", "localhost", b"localhost"):
        return True
    text = host.decode(errors="replace") if isinstance(host, bytes) else str(host)
    try:
        return ipaddress.ip_address(text).is_loopback
    except ValueError:
        return False


def _watch(event: str, arguments: tuple) -> None:
    if event in LOOK_UPS:
        host = arguments[0]
    elif event in CONNECTIONS and isinstance(arguments[1], tuple):  # other families have no host
        host = arguments[1][0]
    else:
        return
    if _is_here(host):
        return
    if log := os.environ.get("TREESPEC_NETWORK_LOG"):
        with open(log, "a", encoding="utf-8") as file:
            file.write(f"{event} {host} in {sys.argv}\n")
    raise PermissionError(f"network access attempted: {event} {host}")


sys.addaudithook(_watch)
