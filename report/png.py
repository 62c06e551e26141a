"""The caption that a figure's PNG file carries in its text chunks."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_KEYWORD = "Description"


def is_png(data: bytes) -> bool:
    """Whether this is a PNG from its first chunk to its last: a browser shows nothing of a file that is cut."""
    names = [name for name, _ in _chunks(data)]
    return names[:1] == [b"IHDR"] and names[-1:] == [b"IEND"]


def description(data: bytes) -> str:
    """What the file says of itself, "" where it says nothing. Source: PNG specification, tEXt and iTXt."""
    for name, content in _chunks(data):
        keyword, _, rest = content.partition(b"\0")
        if keyword.decode("latin-1") != _KEYWORD:
            continue
        if name == b"tEXt":
            return rest.decode("latin-1")
        if name == b"iTXt":
            return _international(rest)
    return ""


def _international(rest: bytes) -> str:
    is_compressed, rest = rest[:1] == b"\1", rest[2:]
    _language, _, rest = rest.partition(b"\0")
    _keyword, _, text = rest.partition(b"\0")
    try:
        return (zlib.decompress(text) if is_compressed else text).decode("utf-8", "replace")
    except zlib.error:
        return ""


def _chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Name and content of each whole chunk."""
    place = len(_SIGNATURE) if data.startswith(_SIGNATURE) else len(data)
    while place + 12 <= len(data):
        length, name = struct.unpack(">I4s", data[place : place + 8])
        content = data[place + 8 : place + 8 + length]
        if place + 12 + length > len(data):
            return
        yield name, content
        place += 12 + length
