"""Downloads that were cut, killed or spoilt: the next try goes on, and nothing half is taken for whole."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.models.conftest import Download
from tests.models.hub_server import Answer, HubServer
from tests.models.repositories import LLAMA, OPT

HALF = "--half-precision-only"
SHARD = "model-00001-of-00002.safetensors"
BIN = "pytorch_model-00002-of-00002.bin"


def until(holds: Callable[[], bool], timeout_s: float = 60.0) -> None:
    """Wait for something another process does."""
    end, pause = time.monotonic() + timeout_s, threading.Event()
    while not holds():
        assert time.monotonic() < end, "waited in vain"
        pause.wait(0.01)


def parts(download: Download) -> list[Path]:
    return list(download.cache.rglob("*.part"))


def test_a_cut_file_is_gone_on_with(download: Download, hub: HubServer) -> None:
    hub.cuts[SHARD] = [20_000, 10_000]
    assert download.run("llama-7b", HALF) == 0
    assert hub.ranges(SHARD) == [None, "bytes=20000-", "bytes=30000-"]
    assert "cut at 20000 of" in download.err
    assert (download.cache / LLAMA / SHARD).read_bytes() == hub.repositories[LLAMA][SHARD]
    assert parts(download) == []


def test_any_number_of_cuts_is_borne_as_long_as_something_comes(download: Download, hub: HubServer) -> None:
    hub.cuts[SHARD] = [5_000] * 8
    assert download.run("llama-7b", HALF) == 0
    assert download.waits == [1] * 8


def test_a_file_that_stays_cut_is_gone_on_with_by_the_next_run(download: Download, hub: HubServer) -> None:
    hub.cuts[SHARD] = [20_000] + [0] * 10
    assert download.run("llama-7b", HALF) == 2
    assert "the connection to the hub was lost" in download.err
    assert SHARD in download.err
    assert not (download.cache / LLAMA).exists()
    assert not download.lock.exists()
    assert [part.stat().st_size for part in parts(download)] == [20_000]
    assert download.waits == [1, 2, 4, 8]
    hub.cuts.clear()
    hub.asked.clear()
    assert download.run("llama-7b", HALF) == 0
    assert hub.ranges(SHARD) == ["bytes=20000-"]
    assert "config.json" not in hub.files_asked()
    assert "20.0 kB of it were here" in download.err
    assert (download.cache / LLAMA / SHARD).read_bytes() == hub.repositories[LLAMA][SHARD]


def test_a_hub_that_sends_whole_files_only_is_believed(download: Download, hub: HubServer) -> None:
    hub.cuts[SHARD] = [20_000]
    hub.ignores_ranges = True
    assert download.run("llama-7b", HALF) == 0
    assert (download.cache / LLAMA / SHARD).read_bytes() == hub.repositories[LLAMA][SHARD]


def test_a_whole_file_that_is_cut_again_is_not_mixed_with_what_was_there(download: Download, hub: HubServer) -> None:
    hub.cuts[SHARD] = [20_000, 5_000]
    hub.ignores_ranges = True
    assert download.run("llama-7b", HALF) == 0
    assert hub.ranges(SHARD) == [None, "bytes=20000-", "bytes=5000-"]
    assert "damaged" not in download.err


@pytest.mark.parametrize("file", [SHARD, "config.json"])
def test_a_byte_flipped_on_the_way_is_fetched_anew(download: Download, hub: HubServer, file: str) -> None:
    hub.damaged[file] = 1
    assert download.run("llama-7b", HALF) == 0
    assert f"{LLAMA}, {file}: damaged on its way" in download.err
    assert hub.ranges(file) == [None, None]
    assert (download.cache / LLAMA / file).read_bytes() == hub.repositories[LLAMA][file]


@pytest.mark.parametrize("file", [SHARD, "config.json"])
def test_a_file_that_keeps_arriving_damaged_is_never_in_place(download: Download, hub: HubServer, file: str) -> None:
    hub.damaged[file] = 9
    assert download.run("llama-7b", HALF) == 2
    assert f"file arrives damaged, twice; where: {LLAMA}, {file}" in download.err
    assert not [path for path in download.cache.rglob(file) if path.is_file()]
    assert not download.lock.exists()


@pytest.mark.parametrize("change", [lambda content: content + b"x", lambda content: content[:-1]])
def test_a_file_of_another_length_than_listed_is_refused(
    download: Download, hub: HubServer, change: Callable[[bytes], bytes]
) -> None:
    hub.sent_instead["config.json"] = change(hub.repositories[LLAMA]["config.json"])
    assert download.run("llama-7b", HALF) == 2
    assert "bytes where" in download.err
    assert not [path for path in download.cache.rglob("config.json") if path.is_file()]


def flip(path: Path) -> None:
    """A disk's own error: neither size nor time tell of it."""
    status = path.stat()
    with open(path, "r+b") as file:
        file.seek(status.st_size - 1)
        last = file.read(1)
        file.seek(status.st_size - 1)
        file.write(bytes([last[0] ^ 1]))
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


@pytest.mark.parametrize("repository", [LLAMA, OPT])
def test_a_flipped_byte_is_found_when_asked_to_verify(download: Download, hub: HubServer, repository: str) -> None:
    assert download.run(repository, HALF) == 0
    path = download.cache / repository / "model-00002-of-00002.safetensors"
    right = path.read_bytes()
    flip(path)
    hub.asked.clear()
    assert download.run(repository, HALF) == 0
    assert path.read_bytes() != right
    assert download.run(repository, HALF, "--verify", "--dry-run") == 0
    assert "model-00002-of-00002.safetensors sha256" in download.out
    assert download.run(repository, HALF, "--verify") == 0
    assert "model-00002-of-00002.safetensors sha256" in download.err
    assert path.read_bytes() == right
    assert hub.files_asked() == [path.name if repository == LLAMA else BIN]


def test_a_changed_file_of_the_same_size_is_found_by_its_time(download: Download, hub: HubServer) -> None:
    assert download.run("opt-30b", HALF) == 0
    path = download.cache / OPT / "model-00002-of-00002.safetensors"
    right = path.read_bytes()
    flip(path)
    os.utime(path)
    assert download.run("opt-30b", HALF) == 0
    assert path.read_bytes() == right


@pytest.mark.parametrize("repository", [LLAMA, OPT])
def test_a_truncated_file_is_found_without_being_asked_to(download: Download, hub: HubServer, repository: str) -> None:
    assert download.run(repository, HALF) == 0
    path = download.cache / repository / "model-00002-of-00002.safetensors"
    right = path.read_bytes()
    os.truncate(path, len(right) - 1)
    hub.asked.clear()
    assert download.run(repository, HALF) == 0
    assert f"{path.name} {len(right) - 1} bytes where {len(right)} are right" in download.err
    assert path.read_bytes() == right
    assert hub.files_asked() == [path.name if repository == LLAMA else BIN]


def test_a_missing_file_is_brought_back(download: Download, hub: HubServer) -> None:
    assert download.run("opt-30b", HALF) == 0
    (download.cache / OPT / "vocab.json").unlink()
    hub.asked.clear()
    assert download.run("opt-30b", HALF) == 0
    assert "vocab.json missing" in download.err
    assert (download.cache / OPT / "vocab.json").is_file()
    assert hub.asked == []


def test_a_touched_file_is_read_and_left(download: Download, hub: HubServer) -> None:
    assert download.run("llama-7b", HALF) == 0
    os.utime(download.cache / LLAMA / SHARD)
    hub.asked.clear()
    assert download.run("llama-7b", HALF) == 0
    assert hub.asked == []


@pytest.mark.kill
def test_a_killed_download_is_gone_on_with(download: Download, hub: HubServer) -> None:
    """kill -9 in the middle of a file: no temporary name is lost, no lock is left."""
    hub.gate = threading.Event()
    content = hub.repositories[OPT]["pytorch_model-00001-of-00002.bin"]
    process = download.start("opt-30b", HALF)
    until(lambda: any(part.stat().st_size >= len(content) // 2 for part in parts(download)))
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=30)
    hub.gate.set()
    hub.gate = None
    assert not (download.cache / OPT).exists()
    hub.asked.clear()
    assert download.run("opt-30b", HALF) == 0
    assert hub.ranges("pytorch_model-00001-of-00002.bin") == [f"bytes={len(content) // 2}-"]
    assert "config.json" not in hub.files_asked()
    assert "waiting" not in download.err


def test_a_conversion_goes_on_where_it_stopped(
    download: Download, hub: HubServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    from model_store import convert

    write = convert.write_safetensors
    with monkeypatch.context() as patch:
        patch.setattr(convert, "write_safetensors", lambda path, *rest: _stop(path, write, *rest))
        assert download.run("opt-30b", HALF) == 130
    assert "the same command goes on" in download.err
    assert not (download.cache / OPT).exists()
    hub.asked.clear()
    done: list[str] = []
    monkeypatch.setattr(convert, "write_safetensors", lambda path, *rest: done.append(path.name) or write(path, *rest))
    assert download.run("opt-30b", HALF) == 0
    assert done == ["model-00002-of-00002.safetensors"]
    assert hub.files_asked() == []


def _stop(path: Path, write: Callable[..., str], *rest: object) -> str:
    if path.name == "model-00002-of-00002.safetensors":
        raise KeyboardInterrupt
    return write(path, *rest)


def test_a_part_of_another_revision_is_not_gone_on_with(download: Download, hub: HubServer) -> None:
    hub.cuts[SHARD] = [20_000] + [0] * 10
    assert download.run("llama-7b", HALF) == 2
    hub.cuts.clear()
    hub.asked.clear()
    changed = hub.repositories[LLAMA][SHARD]
    hub.repositories[LLAMA][SHARD] = changed[:-1] + bytes([changed[-1] ^ 1])
    assert download.run("llama-7b", HALF) == 0
    assert hub.ranges(SHARD) == [None]
    assert parts(download) == []


def test_two_at_once_fetch_once_and_the_second_names_the_first(download: Download, hub: HubServer) -> None:
    hub.gate = threading.Event()
    first = download.start("opt-30b", HALF)
    until(lambda: bool(parts(download)))
    second = download.start("opt-30b", HALF)
    assert second.stderr is not None
    told = next(line for line in second.stderr if "waiting" in line)
    assert f"waiting: download_models.py, pid {first.pid} on " in told
    hub.gate.set()
    assert first.wait(60) == second.wait(60) == 0
    for process in (first, second):
        process.communicate()
    assert sorted(hub.files_asked()) == sorted(set(hub.files_asked()))
    assert json.loads(download.lock.read_text()).keys() == {OPT}


def test_different_models_do_not_wait_and_share_the_lock_file(download: Download, hub: HubServer) -> None:
    (download.cache / ".locks").mkdir(parents=True)
    with open(download.cache / ".locks/facebook--opt-30b.lock", "w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        assert download.run("llama-68m", HALF) == 0
    assert download.run("opt-30b", HALF) == 0
    assert len(json.loads(download.lock.read_text())) == 2


def test_a_busy_hub_is_asked_again_when_it_says(download: Download, hub: HubServer) -> None:
    hub.answers += [
        Answer("/api/models", 429, {"Retry-After": "7"}, times=1),
        Answer("/api/models", 429, {"RateLimit": '"api";r=0;t=55'}, times=1),
        Answer("config.json", 503, {"Retry-After": "3"}, times=2),
        Answer(SHARD, 500, {}, times=3),
    ]
    assert download.run("llama-7b", HALF) == 0
    assert download.waits[:4] == [7, 55, 3, 3]
    assert download.waits[4:] == [1, 2, 4]
    assert "answers 429; waiting 7 s" in download.err
