"""One file from the hub to the disk: resumed where it was cut, and in place only once its hash is right."""

from __future__ import annotations

import hashlib
import os
import re
from contextlib import closing
from pathlib import Path
from time import sleep

import httpx2

from model_store.errors import HubError, unreachable, unwritable
from model_store.hub import Hub, RemoteFile
from model_store.progress import Progress
from treespec.log import say

CHUNK_BYTES = 1 << 20


class Digest:
    """The hashes by which the hub knows files, over content that comes in pieces."""

    def __init__(self, file: RemoteFile) -> None:
        self._file = file
        self.restart()

    def restart(self) -> None:
        """Forget what has come."""
        self.num_bytes = 0
        self._sha256 = hashlib.sha256()
        self._blob = hashlib.sha1(b"blob %d\0" % self._file.size, usedforsecurity=False)

    def update(self, piece: bytes) -> None:
        """The next bytes."""
        self.num_bytes += len(piece)
        self._sha256.update(piece)
        if self._file.blob_id is not None:
            self._blob.update(piece)

    @property
    def sha256(self) -> str:
        """Of all bytes so far (hex)."""
        return self._sha256.hexdigest()

    def mismatch(self) -> str | None:
        """How the content differs from what the hub has; None where it does not."""
        file = self._file
        if self.num_bytes != file.size:
            return f"{self.num_bytes} bytes where {file.size} are right"
        if file.sha256 is not None and self.sha256 != file.sha256:
            return f"sha256 {self.sha256} where {file.sha256} is right"
        if file.blob_id is not None and self._blob.hexdigest() != file.blob_id:
            return f"git hash {self._blob.hexdigest()} where {file.blob_id} is right"
        return None


def digest_of(path: Path, file: RemoteFile) -> Digest:
    """Of a file on the disk. Raises OSError."""
    digest = Digest(file)
    with open(path, "rb") as content:
        while piece := content.read(CHUNK_BYTES):
            digest.update(piece)
    return digest


def part_of(folder: Path, file: RemoteFile) -> Path:
    """Where a file grows; named by its content too, so that another revision's part is not gone on with."""
    return folder / f".{file.name}.{(file.sha256 or file.blob_id or '')[:16]}.part"


def fetch(hub: Hub, file: RemoteFile, folder: Path) -> str:
    """Bring a file into a folder and return its sha256. Raises HubError, OutputError; what has arrived stays."""
    part = part_of(folder, file)
    for stale in folder.glob(f".{file.name}.*.part"):
        if stale != part:
            stale.unlink()
    for _ in range(2):
        digest, mismatch = _grow(hub, file, part)
        if mismatch is None:
            os.replace(part, folder / file.name)
            return digest.sha256
        part.unlink()
        say(f"{file}: damaged on its way, {mismatch}; fetched anew")
    fix = "try again; if it stays so, the hub or something between is at fault"
    raise HubError("file arrives damaged, twice", where=f"{file}, at {hub.name}", received=mismatch, fix=fix)


def _grow(hub: Hub, file: RemoteFile, part: Path) -> tuple[Digest, str | None]:
    """Fetch what a part lacks, over as many connections as it takes; its digest, and how it is wrong if it is."""
    digest = _begun(file, part)
    progress = Progress(str(file), file.size, digest.num_bytes)
    num_failures = 0
    while digest.num_bytes < file.size:
        num_before = digest.num_bytes
        cut = _append(hub, file, part, digest, progress)
        if cut is None:
            break
        num_failures = 1 if digest.num_bytes > num_before else num_failures + 1
        if num_failures == hub.patience.max_tries:
            raise unreachable(cut, f"{file}, at {hub.name}") from cut
        say(f"{file}: cut at {digest.num_bytes} of {file.size} bytes ({type(cut).__name__}); going on")
        sleep(hub.patience.first_wait_s * 2 ** (num_failures - 1))
    mismatch = digest.mismatch()
    if mismatch is None:
        progress.finish()
    return digest, mismatch


def _begun(file: RemoteFile, part: Path) -> Digest:
    """The digest of what earlier runs have brought."""
    try:
        part.touch()
        digest = digest_of(part, file)
        if digest.num_bytes > file.size:
            part.write_bytes(b"")
            digest.restart()
    except OSError as error:
        raise unwritable(error, part) from error
    return digest


def _append(hub: Hub, file: RemoteFile, part: Path, digest: Digest, progress: Progress) -> httpx2.TransportError | None:
    """Write what one connection brings, into the digest too; how the connection ended if it did before its time."""
    try:
        with closing(hub.stream(file, digest.num_bytes)) as response:
            if digest.num_bytes and not _goes_on_at(response, digest.num_bytes):
                progress.advance(-digest.num_bytes)
                digest.restart()
            _write(response, file, part, digest, progress)
    except httpx2.TransportError as cut:
        return cut
    return None


def _write(response: httpx2.Response, file: RemoteFile, part: Path, digest: Digest, progress: Progress) -> None:
    try:
        with open(part, "r+b") as content:
            content.truncate(digest.num_bytes)
            content.seek(digest.num_bytes)
            # As they come: pieces of a set size would be lost where the connection is cut inside one.
            for piece in response.iter_bytes():
                # One byte more than there should be is enough to tell that it is wrong.
                kept = piece[: file.size + 1 - digest.num_bytes]
                content.write(kept)
                digest.update(kept)
                progress.advance(len(kept))
            content.flush()
            os.fsync(content.fileno())
    except OSError as error:
        raise unwritable(error, part) from error


def _goes_on_at(response: httpx2.Response, offset: int) -> bool:
    """Whether an answer begins where it was asked to: a server may send the whole file instead."""
    start = re.match(r"bytes (\d+)-", response.headers.get("Content-Range", ""))
    return response.status_code == 206 and start is not None and int(start[1]) == offset
