"""The part of the hub that its client needs to list and fetch models, on this machine, with faults on demand."""

from __future__ import annotations

import hashlib
import json
import re
import threading
import urllib.parse
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

API = re.compile(r"/api/models/([^/]+/[^/]+)/revision/([^/]+)")
RESOLVE = re.compile(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)")
LARGE_BYTES = 10_000  # from here on, the hub stores files by their sha256


@dataclass(frozen=True)
class Asked:
    """A request."""

    path: str
    range: str | None
    authorization: str | None

    @property
    def file(self) -> str | None:
        """The name of the file asked for; None for a listing."""
        match = RESOLVE.fullmatch(self.path)
        return match[3] if match else None


@dataclass
class Answer:
    """What to answer instead, to requests whose path holds ``path``, so many times."""

    path: str
    status: int
    headers: Mapping[str, str] = field(default_factory=dict)
    times: int = 1_000_000


@dataclass
class HubServer:
    """Repositories as ``{name: {file: content}}``; a repository's commit is a function of what it holds."""

    repositories: dict[str, dict[str, bytes]] = field(default_factory=dict)
    gated: set[str] = field(default_factory=set)
    token: str = "hf_right"
    answers: list[Answer] = field(default_factory=list)
    cuts: dict[str, list[int]] = field(default_factory=dict)  # file -> bytes after which each next answer ends
    damaged: dict[str, int] = field(default_factory=dict)  # file -> how many answers have a byte flipped
    sent_instead: dict[str, bytes] = field(default_factory=dict)  # file -> other content than is listed
    ignores_ranges: bool = False
    redirect_to: str = ""  # another server, as large files are kept elsewhere
    gate: threading.Event | None = None  # large files stop half-way until it is set
    asked: list[Asked] = field(default_factory=list)
    url: str = ""

    def commit(self, repository: str) -> str:
        """The only revision it has, besides the branch main."""
        files = sorted(self.repositories[repository].items())
        return hashlib.sha1(b"".join(name.encode() + content for name, content in files)).hexdigest()

    def ranges(self, file: str) -> list[str | None]:
        """From where on a file was asked for, each time."""
        return [asked.range for asked in self.asked if asked.file == file]

    def files_asked(self) -> list[str]:
        """In their order."""
        return [asked.file for asked in self.asked if asked.file is not None]


@contextmanager
def serving(server: HubServer) -> Iterator[HubServer]:
    """Serve on a free port of this machine until the end."""
    http = ThreadingHTTPServer(("127.0.0.1", 0), _handler(server))
    http.daemon_threads = True
    server.url = f"http://127.0.0.1:{http.server_address[1]}"
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        http.shutdown()
        http.server_close()
        thread.join()


def _handler(server: HubServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
            """Quiet."""

        def do_GET(self) -> None:
            path = urllib.parse.unquote(urllib.parse.urlsplit(self.path).path)
            server.asked.append(Asked(path, self.headers.get("Range"), self.headers.get("Authorization")))
            for answer in server.answers:
                if answer.path in path and answer.times > 0:
                    answer.times -= 1
                    return self.say(answer.status, b"{}", answer.headers)
            match = API.fullmatch(path) or RESOLVE.fullmatch(path)
            if match is None or match[1] not in server.repositories:
                known = self.headers.get("Authorization") is not None
                return self.refuse(404 if known else 401, "RepoNotFound")
            if match[1] in server.gated and self.headers.get("Authorization") != f"Bearer {server.token}":
                return self.refuse(403 if self.headers.get("Authorization") else 401, "GatedRepo")
            if match[2] not in ("main", server.commit(match[1])):
                return self.refuse(404, "RevisionNotFound")
            if match.re is API:
                return self.say(200, json.dumps(self.listing(match[1])).encode(), {"Content-Type": "application/json"})
            if match[3] not in server.repositories[match[1]]:
                return self.refuse(404, "EntryNotFound")
            return self.send_file(server.repositories[match[1]][match[3]], match[3])

        def listing(self, repository: str) -> dict[str, Any]:
            with_sizes = "blobs=" in self.path
            siblings = []
            for name, content in server.repositories[repository].items():
                entry: dict[str, Any] = {"rfilename": name}
                if with_sizes:
                    entry |= {"size": len(content), "blobId": _blob_id(content)}
                if with_sizes and len(content) > LARGE_BYTES:
                    sha256 = hashlib.sha256(content).hexdigest()
                    entry["lfs"] = {"sha256": sha256, "size": len(content), "pointerSize": 134}
                siblings.append(entry)
            return {"id": repository, "sha": server.commit(repository), "private": False, "siblings": siblings}

        def send_file(self, content: bytes, name: str) -> None:
            is_large = len(content) > LARGE_BYTES
            if server.redirect_to and is_large:
                return self.say(302, b"", {"Location": server.redirect_to + self.path})
            content = server.sent_instead.get(name, content)
            if server.damaged.get(name, 0) > 0:
                server.damaged[name] -= 1
                content = content[:-1] + bytes([content[-1] ^ 1])
            headers, status, total = {"Accept-Ranges": "bytes"}, 200, len(content)
            asked = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range") or "")
            if asked is not None and not server.ignores_ranges:
                start, status = int(asked[1]), 206
                if start >= total:
                    return self.say(416, b"", {"Content-Range": f"bytes */{total}"})
                content = content[start:]
                headers["Content-Range"] = f"bytes {start}-{total - 1}/{total}"
            self.send_head(status, len(content), headers)
            if server.cuts.get(name):
                self.wfile.write(content[: server.cuts[name].pop(0)])
                self.close_connection = True
                return None
            half = len(content) // 2 if is_large and server.gate is not None else 0
            self.wfile.write(content[:half])
            if half and server.gate is not None:
                self.wfile.flush()
                server.gate.wait(60)
            self.wfile.write(content[half:])
            return None

        def refuse(self, status: int, code: str) -> None:
            self.say(status, b"{}", {"X-Error-Code": code, "X-Error-Message": "refused"})

        def say(self, status: int, body: bytes, headers: Mapping[str, str]) -> None:
            self.send_head(status, len(body), headers)
            self.wfile.write(body)

        def send_head(self, status: int, num_bytes: int, headers: Mapping[str, str]) -> None:
            self.send_response(status)
            for name, value in {"Content-Length": str(num_bytes), **headers}.items():
                self.send_header(name, value)
            self.end_headers()

    return Handler


def _blob_id(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
