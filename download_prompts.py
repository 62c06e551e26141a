"""Fetch the five prompt sets of the paper; prints the lines that a platform file takes to use them.

python download_prompts.py                        # all five, into prompts/paper/
python download_prompts.py chatgpt webqa          # these
python download_prompts.py chatgpt --update-lock  # accept another content than the one first downloaded

The first download of a set notes its sha256 in the lock file; from then on nothing else is accepted. What is there and
is what was locked is not fetched again, and needs no network.
"""

from __future__ import annotations

import argparse
import hashlib
import http.client
import json
import sys
import urllib.error
import urllib.request
from dataclasses import asdict, dataclass
from pathlib import Path

try:
    from treespec.errors import InputFileError, OutputError, TreespecError
    from treespec.files import write_atomically
    from treespec.log import say
    from treespec.prompts import parse_prompts
except ModuleNotFoundError as missing:  # this Python has not the packages
    print(
        f"error: {missing}; where: {sys.executable}; fix: run make setup, then .venv/bin/python download_prompts.py",
        file=sys.stderr,
    )
    raise SystemExit(2) from None

# The address is FlexFlow's (its README, "Prompt Datasets"); the artifact fetches chatgpt.json from there.
BASE_URL = "https://specinfer.s3.us-east-2.amazonaws.com/prompts"
SETS = {
    "chatbot": "Chatbot Instruction Prompts (CIP)",
    "chatgpt": "ChatGPT Prompts (CP)",
    "webqa": "WebQA",
    "alpaca": "Alpaca",
    "piqa": "PIQA",
}
FOLDER, LOCK = Path("prompts/paper"), Path("prompts/paper.lock")
CHECKSUMS = "SHA256SUMS"  # the workflow compares prompts with the list of this name beside them
MAX_BYTES = 256 * 1000 * 1000


@dataclass(frozen=True)
class LockedFile:
    """What was got at the first download."""

    url: str
    sha256: str
    num_bytes: int
    num_prompts: int


@dataclass(frozen=True)
class Downloader:
    """Where sets come from and where they go."""

    folder: Path
    lock: Path
    base_url: str
    timeout_s: float

    def fetch(self, name: str, *, update_lock: bool) -> str:
        """Have a set in the folder as locked; says what was done. Raises TreespecError, and keeps what was there."""
        path, url = self.folder / f"{name}.json", f"{self.base_url}/{name}.json"
        locked = read_lock(self.lock)
        expected = None if update_lock else locked.get(name)
        if expected is not None and path.is_file() and _sha256(path.read_bytes()) == expected.sha256:
            self._write_checksums()  # which a run that was cut off may have left behind
            return f"{expected.num_prompts} prompts, there already, as locked"
        content = _get(url, self.timeout_s)
        received = LockedFile(url, _sha256(content), len(content), len(parse_prompts(content, url)))
        if expected is not None and received.sha256 != expected.sha256:
            raise InputFileError(
                f"prompt set {name} is not what was first downloaded",
                where=url,
                received=f"sha256 {received.sha256}, {received.num_bytes} bytes",
                allowed=f"sha256 {expected.sha256}, {expected.num_bytes} bytes, noted in {self.lock}",
                fix="with --update-lock it is accepted; results of before are then of other prompts",
            )
        _make_folder(self.folder)
        if expected is None:
            write_lock(self.lock, locked | {name: received})
        write_atomically(path, content.decode("utf-8"))
        self._write_checksums()
        return f"{received.num_prompts} prompts, {'as locked' if expected else 'locked now'}, sha256 {received.sha256}"

    def _write_checksums(self) -> None:
        """The list that is checked before every experiment, of the sets that are here."""
        locked = sorted(read_lock(self.lock).items())
        here = [f"{file.sha256}  {name}.json\n" for name, file in locked if (self.folder / f"{name}.json").is_file()]
        write_atomically(self.folder / CHECKSUMS, "".join(here))


def read_lock(path: Path) -> dict[str, LockedFile]:
    """What was locked so far, by set. Raises InputFileError."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        return {name: LockedFile(**entry) for name, entry in data.items()}
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise InputFileError("lock file cannot be read", where=str(path), received=error.strerror) from error
    except (ValueError, TypeError, AttributeError) as error:
        raise InputFileError(
            "lock file is damaged", where=str(path), received=str(error), fix="restore it with git"
        ) from error


def write_lock(path: Path, locked: dict[str, LockedFile]) -> None:
    """Write the lock file. Raises OutputError."""
    text = json.dumps({name: asdict(file) for name, file in sorted(locked.items())}, indent=1)
    write_atomically(path, text + "\n")


def _make_folder(path: Path) -> None:
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError("folder cannot be made", where=str(path), received=error.strerror) from error


def _get(url: str, timeout_s: float) -> bytes:
    """The content behind an address, whole. Raises InputFileError."""
    try:
        with urllib.request.urlopen(url, timeout=timeout_s) as response:
            content: bytes = response.read(MAX_BYTES + 1)
            announced = response.headers.get("Content-Length")
    except urllib.error.HTTPError as error:
        received = f"HTTP {error.code} {error.reason}"
        raise InputFileError("prompt set cannot be downloaded", where=url, received=received) from error
    except (OSError, http.client.HTTPException) as error:
        raise InputFileError(
            "prompt set cannot be downloaded",
            where=url,
            received=_reason(error, timeout_s),
            fix=f"try again where the network is, or copy a {FOLDER}/ that has been downloaded elsewhere",
        ) from error
    if len(content) > MAX_BYTES:
        raise InputFileError("prompt set is too large", where=url, allowed=f"at most {MAX_BYTES} bytes")
    if announced is not None and announced != str(len(content)):
        received = f"{len(content)} of {announced} bytes"
        raise InputFileError("prompt set came in part", where=url, received=received, fix="try again")
    return content


def _reason(error: Exception, timeout_s: float) -> str:
    inner = error.reason if isinstance(error, urllib.error.URLError) else error
    return f"no answer within {timeout_s:g} s" if isinstance(inner, TimeoutError) else str(inner)


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sets", nargs="*", metavar="SET", help=f"default: all; {', '.join(SETS)}")
    parser.add_argument("--folder", type=Path, default=FOLDER, help=f"where the sets go; default: {FOLDER}")
    parser.add_argument("--lock", type=Path, default=LOCK, help=f"checksums of the first download; default: {LOCK}")
    parser.add_argument("--update-lock", action="store_true", help="fetch anew and lock what comes")
    parser.add_argument("--base-url", default=BASE_URL, help=f"another place with the same files; default: {BASE_URL}")
    parser.add_argument("--timeout-s", type=float, default=30.0, help="longest silence of the server")
    return parser


def main() -> int:
    """Parse the command line and fetch; a set that fails does not keep the others from coming."""
    parser = _parser()
    args = parser.parse_args()
    if unknown := sorted(set(args.sets) - SETS.keys()):
        parser.error(f"unknown sets: {', '.join(unknown)}; allowed: {', '.join(SETS)}")
    if not args.base_url.startswith(("https://", "http://")):
        parser.error(f"--base-url is an address of the web, received {args.base_url}")
    downloader = Downloader(args.folder, args.lock, args.base_url.rstrip("/"), args.timeout_s)
    names = [name for name in SETS if name in args.sets or not args.sets]
    there = []
    for name in names:
        try:
            say(f"{name}: {downloader.fetch(name, update_lock=args.update_lock)}")
            there.append(name)
        except TreespecError as error:
            say(f"error: {error}")
    if there:
        sys.stdout.write("prompts:\n" + "".join(f"  {name}: {args.folder}/{name}.json\n" for name in there))
    return 0 if there == names else 2


if __name__ == "__main__":
    raise SystemExit(main())
