"""Which files lie below some paths of a folder: path -> [bytes, seconds of the last change]. Standard library only.

Imported here, and sent over stdin to ``python3 -I - ROOT PATH...`` there: what rsync compares, on both sides.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Iterator


def listing(root: str, paths: Iterable[str]) -> dict[str, list[int]]:
    """Files at or below ``root/path`` by their path relative to root; links are followed, absent paths left out."""
    found = {}
    for path in paths:
        for file in _files(os.path.join(root, path)):
            status = os.stat(file)
            found[os.path.relpath(file, root)] = [status.st_size, int(status.st_mtime)]
    return found


def _files(path: str) -> Iterator[str]:
    if os.path.isfile(path):
        yield path
    for folder, _, names in os.walk(path, followlinks=True):
        yield from (file for name in names if os.path.isfile(file := os.path.join(folder, name)))


if __name__ == "__main__":
    json.dump(listing(sys.argv[1], sys.argv[2:]), sys.stdout)
