"""A web server on this machine that answers as it is told."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Answer:
    """What is sent for a path."""

    content: bytes = b""
    status: int = 200
    delay_s: float = 0.0
    sent: int | None = None  # bytes after which the connection is closed; None: all
    announces_length: bool = True


@dataclass
class PromptServer:
    """Answers by path, the address, and the paths that were asked for."""

    url: str
    answers: dict[str, Answer] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)


@contextmanager
def prompt_server() -> Iterator[PromptServer]:
    """A server on a port of its own."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            told.asked.append(self.path)
            answer = told.answers.get(self.path, Answer(b"no such key", 404))
            time.sleep(answer.delay_s)
            with suppress(ConnectionError):  # whoever asked may have given up
                self.send_response(answer.status)
                if answer.announces_length:
                    self.send_header("Content-Length", str(len(answer.content)))
                self.end_headers()
                self.wfile.write(answer.content[: answer.sent])

        def log_message(self, *_: object) -> None:
            """Nothing on stderr."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    told = PromptServer(f"http://127.0.0.1:{server.server_port}/prompts")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield told
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
