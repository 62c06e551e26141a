"""Both ends of a measured connection. Standard library only.

``python3 -c SOURCE serve ADDRESS`` prints the port it chose and serves until its stdin ends: it cannot outlive the one
who started it. ``python3 -I - measure FROM TO PORT`` prints what it measured as a JSON object.
"""

from __future__ import annotations

import json
import socket
import sys
import threading
import time
from statistics import median

MESSAGE_BYTES = 64
NUM_ROUND_TRIPS = 200
CHUNK_BYTES = 256 * 1024
STREAM_BYTES = 64 * 1024 * 1024
LIMIT_S = 1.0  # each of the two measurements goes on for so long at most
SILENCE_S = 5.0
PING, STREAM = b"p", b"s"  # first byte of a message


def opened(kind: socket.socket) -> socket.socket:
    """With small messages sent at once and a bound on silence."""
    kind.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    kind.settimeout(SILENCE_S)
    return kind


def received(connection: socket.socket, num_bytes: int) -> bytes:
    """So many bytes. Raises ConnectionError where the other side ends before."""
    data = b""
    while len(data) < num_bytes:
        part = connection.recv(num_bytes - len(data))
        if not part:
            raise ConnectionError("the other side hung up")
        data += part
    return data


def answer(connection: socket.socket) -> None:
    """Echo pings; then take in the stream and tell how much came."""
    with opened(connection):
        try:
            while (message := received(connection, MESSAGE_BYTES))[:1] == PING:
                connection.sendall(message)
            num_bytes = 0
            while data := connection.recv(CHUNK_BYTES):
                num_bytes += len(data)
            connection.sendall(num_bytes.to_bytes(8, "big"))
        except OSError:
            return  # the other end tells


def accept_all(server: socket.socket) -> None:
    """A thread per client, until the process ends."""
    while True:
        connection, _ = server.accept()
        threading.Thread(target=answer, args=(connection,), daemon=True).start()


def serve(address: str) -> None:
    """Listen on this address only, until stdin ends."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.create_server((address, 0), family=family) as server:
        threading.Thread(target=accept_all, args=(server,), daemon=True).start()
        print(server.getsockname()[1], flush=True)
        sys.stdin.buffer.read()


def round_trips(connection: socket.socket) -> list[float]:
    """Seconds per small message and its echo."""
    taken: list[float] = []
    end = time.perf_counter() + LIMIT_S
    while len(taken) < NUM_ROUND_TRIPS and (started := time.perf_counter()) < end:
        connection.sendall(PING * MESSAGE_BYTES)
        received(connection, MESSAGE_BYTES)
        taken.append(time.perf_counter() - started)
    return taken


def streamed(connection: socket.socket) -> tuple[int, float]:
    """Bytes sent one after another, and the seconds until the other side had them all."""
    connection.sendall(STREAM * MESSAGE_BYTES)
    chunk, num_bytes = bytes(CHUNK_BYTES), 0
    started = time.perf_counter()
    while num_bytes < STREAM_BYTES and time.perf_counter() - started < LIMIT_S:
        connection.sendall(chunk)
        num_bytes += CHUNK_BYTES
    connection.shutdown(socket.SHUT_WR)
    arrived = int.from_bytes(received(connection, 8), "big")
    if arrived != num_bytes:
        raise ConnectionError(f"{arrived} of {num_bytes} bytes arrived")
    return num_bytes, time.perf_counter() - started


def measure(own: str, other: str, port: int) -> dict[str, float | str]:
    """From one address to another: median round trip, and megabytes per second of one stream."""
    try:
        with opened(socket.create_connection((other, port), SILENCE_S, source_address=(own, 0))) as connection:
            latency_s = median(round_trips(connection))
            num_bytes, stream_s = streamed(connection)
    except OSError as error:
        return {"error": str(error) or type(error).__name__}
    return {"round_trip_us": latency_s * 1e6, "mb_per_s": num_bytes / stream_s / 1e6}


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        serve(sys.argv[2])
    else:
        json.dump(measure(sys.argv[2], sys.argv[3], int(sys.argv[4])), sys.stdout)
