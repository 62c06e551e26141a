"""Lines that a file of the login must hold, such as those of authorized_keys. Standard library only.

Sent over stdin to ``python3 -I - look|append FILE LINE...``; prints a JSON object with the lines that were missing.
FILE is relative to the login's home. What is there stays; lines are appended in one write: two at once lose none.
"""

from __future__ import annotations

import json
import os
import sys


def missing_lines(path: str, lines: list[str]) -> tuple[list[str], str]:
    """Those that the file lacks, and what has to come before them for the last line to be whole."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            text = file.read()
    except FileNotFoundError:
        text = ""
    there = text.splitlines()
    return [line for line in lines if line not in there], "" if not text or text.endswith("\n") else "\n"


def append(path: str, text: str) -> None:
    """Make the file and its folder, for the login only, where they are not there."""
    os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
    handle = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        os.write(handle, text.encode())
    finally:
        os.close(handle)


if __name__ == "__main__":
    own = os.path.join(os.path.expanduser("~"), sys.argv[2])
    missing, start = missing_lines(own, sys.argv[3:])
    if missing and sys.argv[1] == "append":
        append(own, start + "".join(f"{line}\n" for line in missing))
    json.dump({"missing": missing}, sys.stdout)
