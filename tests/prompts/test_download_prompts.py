"""``download_prompts.py`` against a server on this machine: what is locked, what is enforced, what goes wrong."""

from __future__ import annotations

import hashlib
import json
import shutil
import socket
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

import download_prompts
from tests.prompts.prompt_server import Answer, PromptServer, prompt_server

CONTENT = {name: json.dumps([f"{name} one", f"{name} two"]).encode() for name in download_prompts.SETS}
OTHER = b'["another prompt"]'


@dataclass
class Download:
    """A folder of its own, and the program over it."""

    root: Path
    server: PromptServer
    monkeypatch: pytest.MonkeyPatch

    @property
    def folder(self) -> Path:
        return self.root / "paper"

    @property
    def lock(self) -> Path:
        return self.root / "paper.lock"

    def run(self, *arguments: str) -> int:
        """The program in this process; its exit status."""
        places = ["--folder", str(self.folder), "--lock", str(self.lock), "--base-url", self.server.url]
        self.monkeypatch.setattr("sys.argv", ["download_prompts.py", *places, *arguments])
        return download_prompts.main()

    def files(self) -> dict[str, bytes]:
        """Everything that lies there."""
        return {str(p.relative_to(self.root)): p.read_bytes() for p in self.root.rglob("*") if p.is_file()}

    def locked(self, name: str) -> dict[str, object]:
        entry: dict[str, object] = json.loads(self.lock.read_text())[name]
        return entry


@pytest.fixture
def download(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Download]:
    """All five sets are served."""
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with prompt_server() as server:
        server.answers |= {f"/prompts/{name}.json": Answer(content) for name, content in CONTENT.items()}
        yield Download(tmp_path, server, monkeypatch)


def told(capsys: pytest.CaptureFixture[str]) -> str:
    """The one error there is."""
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "error:" in line]
    return line


def test_first_download_keeps_and_locks_every_set(download: Download, capsys: pytest.CaptureFixture[str]) -> None:
    assert download.run() == 0
    for name, content in CONTENT.items():
        assert (download.folder / f"{name}.json").read_bytes() == content
        assert download.locked(name) == {
            "url": f"{download.server.url}/{name}.json",
            "sha256": hashlib.sha256(content).hexdigest(),
            "num_bytes": len(content),
            "num_prompts": 2,
        }
    captured = capsys.readouterr()
    assert captured.err.count("2 prompts, locked now") == 5
    expected = {name: f"{download.folder}/{name}.json" for name in CONTENT}
    assert yaml.safe_load(captured.out) == {"prompts": expected}


def test_checksums_lie_beside_the_sets_as_the_workflow_reads_them(download: Download) -> None:
    assert download.run("webqa") == 0
    assert download.run("alpaca") == 0
    check = ["sha256sum", "--check", "--strict", "SHA256SUMS"]
    done = subprocess.run(check, cwd=download.folder, text=True, capture_output=True)
    assert (done.returncode, done.stdout) == (0, "alpaca.json: OK\nwebqa.json: OK\n")


def test_only_what_is_asked_for_is_fetched(download: Download) -> None:
    assert download.run("piqa", "webqa") == 0
    assert download.server.asked == ["/prompts/webqa.json", "/prompts/piqa.json"]
    assert sorted(download.files()) == ["paper.lock", "paper/SHA256SUMS", "paper/piqa.json", "paper/webqa.json"]


def test_what_is_there_as_locked_needs_no_network(download: Download, capsys: pytest.CaptureFixture[str]) -> None:
    download.run()
    download.server.asked.clear()
    before = download.files()
    assert download.run() == 0
    assert download.server.asked == []
    assert download.files() == before
    assert capsys.readouterr().err.count("there already, as locked") == 5


def test_checksums_are_of_the_sets_that_are_here(download: Download) -> None:
    download.run()
    shutil.rmtree(download.folder)  # as in a fresh checkout, which has the lock
    assert download.run("piqa") == 0
    sums = (download.folder / "SHA256SUMS").read_text()
    assert [line.split()[1] for line in sums.splitlines()] == ["piqa.json"]


def test_checksums_that_a_cut_off_run_left_behind_are_mended(download: Download) -> None:
    download.run("chatgpt")
    before = download.files()
    (download.folder / "SHA256SUMS").write_text("")
    assert download.run("chatgpt") == 0
    assert download.files() == before


@pytest.mark.parametrize("damage", ["gone", "changed"])
def test_a_lost_or_changed_file_is_fetched_again_as_locked(damage: str, download: Download) -> None:
    download.run("chatgpt")
    before, path = download.files(), download.folder / "chatgpt.json"
    path.unlink() if damage == "gone" else path.write_bytes(OTHER)
    assert download.run("chatgpt") == 0
    assert download.files() == before


@pytest.mark.parametrize("is_there", [True, False])
def test_changed_content_is_refused(is_there: bool, download: Download, capsys: pytest.CaptureFixture[str]) -> None:
    download.run("chatgpt")
    download.server.answers["/prompts/chatgpt.json"] = Answer(OTHER)
    path = download.folder / "chatgpt.json"
    path.write_bytes(b"[]") if is_there else path.unlink()
    before = download.files()
    capsys.readouterr()
    assert download.run("chatgpt") == 2
    error = told(capsys)
    for part in (
        "prompt set chatgpt is not what was first downloaded",
        f"received: sha256 {hashlib.sha256(OTHER).hexdigest()}, {len(OTHER)} bytes",
        f"allowed: sha256 {hashlib.sha256(CONTENT['chatgpt']).hexdigest()}",
        "--update-lock",
    ):
        assert part in error
    assert download.files() == before


def test_update_lock_takes_and_enforces_the_new_content(download: Download, capsys: pytest.CaptureFixture[str]) -> None:
    download.run("chatgpt", "webqa")
    webqa = download.locked("webqa")
    download.server.answers["/prompts/chatgpt.json"] = Answer(OTHER)
    assert download.run("chatgpt", "--update-lock") == 0
    assert (download.folder / "chatgpt.json").read_bytes() == OTHER
    assert download.locked("chatgpt")["sha256"] == hashlib.sha256(OTHER).hexdigest()
    assert download.locked("webqa") == webqa
    download.server.answers["/prompts/chatgpt.json"] = Answer(CONTENT["chatgpt"])
    (download.folder / "chatgpt.json").unlink()
    assert download.run("chatgpt") == 2


def closed_port() -> str:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{free.getsockname()[1]}/prompts"


FAILURES: dict[str, tuple[Answer, Sequence[str], Sequence[str]]] = {
    "not found": (Answer(b"no such key", 404), (), ["HTTP 404 Not Found"]),
    "forbidden": (Answer(b"", 403), (), ["HTTP 403 Forbidden"]),
    "overloaded": (Answer(b"", 503), (), ["HTTP 503 Service Unavailable"]),
    "silent": (Answer(OTHER, delay_s=1.0), ("--timeout-s", "0.2"), ["no answer within 0.2 s", "try again"]),
    "cut": (Answer(OTHER, sent=5), (), ["came in part", f"5 of {len(OTHER)} bytes"]),
    "cut without a word": (Answer(OTHER, sent=5, announces_length=False), (), ["not valid JSON"]),
    "a page of a hotel": (Answer(b"<html>Please log in</html>"), (), ["not valid JSON", "line 1 column 1"]),
    "no prompts": (Answer(b"[]"), (), ["prompt file is empty"]),
    "another kind of data": (Answer(b'{"detail": "moved"}'), (), ["keys ['detail']"]),
    "no text": (Answer(b"\xff\xfe\x00"), (), ["not UTF-8"]),
}


@pytest.mark.parametrize(("answer", "options", "parts"), FAILURES.values(), ids=FAILURES)
def test_a_failure_is_one_line_and_leaves_nothing(
    answer: Answer,
    options: Sequence[str],
    parts: Sequence[str],
    download: Download,
    capsys: pytest.CaptureFixture[str],
) -> None:
    download.server.answers["/prompts/chatgpt.json"] = answer
    assert download.run("chatgpt", *options) == 2
    error = told(capsys)
    assert [part for part in (f"{download.server.url}/chatgpt.json", *parts) if part not in error] == []
    assert download.files() == {}


def test_no_network_is_told(download: Download, capsys: pytest.CaptureFixture[str]) -> None:
    assert download.run("chatgpt", "--base-url", closed_port()) == 2
    error = told(capsys)
    assert "Connection refused" in error
    assert "try again where the network is" in error


def test_a_name_that_is_not_known_is_told(download: Download, capsys: pytest.CaptureFixture[str]) -> None:
    assert download.run("chatgpt", "--base-url", "http://prompts.invalid") == 2
    assert "prompt set cannot be downloaded; where: http://prompts.invalid/chatgpt.json" in told(capsys)


def test_a_failed_set_keeps_its_file_and_the_others_come(
    download: Download, capsys: pytest.CaptureFixture[str]
) -> None:
    download.run("chatgpt")
    download.server.answers["/prompts/chatgpt.json"] = Answer(b"", 404)
    capsys.readouterr()
    assert download.run("--update-lock") == 2
    captured = capsys.readouterr()
    assert captured.err.count("error:") == 1
    assert sorted(yaml.safe_load(captured.out)["prompts"]) == ["alpaca", "chatbot", "piqa", "webqa"]
    assert (download.folder / "chatgpt.json").read_bytes() == CONTENT["chatgpt"]
    assert sorted(json.loads(download.lock.read_text())) == sorted(CONTENT)


def test_a_set_too_large_is_refused(download: Download, capsys: pytest.CaptureFixture[str]) -> None:
    download.monkeypatch.setattr(download_prompts, "MAX_BYTES", len(CONTENT["chatgpt"]) - 1)
    assert download.run("chatgpt") == 2
    assert "too large" in told(capsys)
    assert download.files() == {}


@pytest.mark.parametrize("text", ["{", "[]", '{"chatgpt": {"sha256": "0"}}', '{"chatgpt": 3}'])
def test_a_damaged_lock_is_not_overwritten(text: str, download: Download, capsys: pytest.CaptureFixture[str]) -> None:
    download.lock.write_text(text)
    assert download.run("chatgpt") == 2
    assert "lock file is damaged" in told(capsys)
    assert download.files() == {"paper.lock": text.encode()}


def test_a_place_that_cannot_be_written_is_told(download: Download, capsys: pytest.CaptureFixture[str]) -> None:
    download.folder.write_text("a file")
    assert download.run("chatgpt") == 2
    assert "folder cannot be made" in told(capsys)


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (("poems",), "unknown sets: poems; allowed: chatbot, chatgpt, webqa, alpaca, piqa"),
        (("--base-url", "file:///etc"), "an address of the web"),
    ],
)
def test_bad_arguments_are_refused(
    arguments: Sequence[str], part: str, download: Download, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        download.run(*arguments)
    assert caught.value.code == 2
    assert part in capsys.readouterr().err


def test_addresses_are_the_artifacts() -> None:
    assert download_prompts.BASE_URL == "https://specinfer.s3.us-east-2.amazonaws.com/prompts"
    assert list(download_prompts.SETS) == ["chatbot", "chatgpt", "webqa", "alpaca", "piqa"]
