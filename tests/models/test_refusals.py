"""Whatever keeps a model from being had is one line that says what to do, and exit status 2."""

from __future__ import annotations

import resource
import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.models.conftest import Download
from tests.models.hub_server import Answer, HubServer
from tests.models.repositories import LLAMA, OPT

HALF = "--half-precision-only"
SHARD = "model-00001-of-00002.safetensors"
TOKEN = "hf_secretsecret"


def told(download: Download) -> str:
    """The line, which is the only one that is no talk."""
    (line,) = [line for line in download.err.splitlines() if not line.startswith("treespec: ")]
    assert line.startswith("error: ")
    assert "; fix: " in line
    assert "Traceback" not in download.err
    return line


@pytest.mark.parametrize(("token", "status"), [(None, "401"), (TOKEN, "403")])
def test_gated(
    download: Download, hub: HubServer, monkeypatch: pytest.MonkeyPatch, token: str | None, status: str
) -> None:
    hub.gated.add(LLAMA)
    if token:
        monkeypatch.setenv("HF_TOKEN", token)
    assert download.run("llama-7b", HALF) == 2
    line = told(download)
    assert "gated repository, " + ("the token given has no access" if token else "no token given") in line
    assert f"status {status}" in line
    assert "HF_TOKEN" in line
    assert TOKEN not in download.err + download.out


def test_the_right_token_opens_and_is_never_shown(
    download: Download, hub: HubServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.gated.add(LLAMA)
    hub.token = TOKEN
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    assert download.run("llama-7b", HALF) == 0
    assert TOKEN not in download.err + download.out
    held = [path for path in download.root.rglob("*") if path.is_file() and TOKEN.encode() in path.read_bytes()]
    assert held == []


@pytest.mark.parametrize(("token", "status"), [(None, "401"), (TOKEN, "404")])
def test_no_such_repository(
    download: Download, monkeypatch: pytest.MonkeyPatch, token: str | None, status: str
) -> None:
    if token:
        monkeypatch.setenv("HF_TOKEN", token)
    assert download.run("nobody/nothing") == 2
    assert "no such repository; where: nobody/nothing" in told(download)
    assert f"status {status}" in told(download)
    assert ("HF_TOKEN" in told(download)) == (token is None)


def test_no_such_file(download: Download, hub: HubServer) -> None:
    hub.answers.append(Answer(SHARD, 404, {"X-Error-Code": "EntryNotFound"}))
    assert download.run("llama-7b", HALF) == 2
    assert f"no such file; where: {LLAMA}, {SHARD}" in told(download)


@pytest.mark.parametrize(
    ("path", "asked"),
    [("/api/models", f"/api/models/{LLAMA}/revision/main"), (SHARD, f"/{LLAMA}/resolve/")],
)
def test_a_404_without_the_hubs_code_says_what_was_asked_for(
    download: Download, hub: HubServer, path: str, asked: str
) -> None:
    """As a mirror gives it that is no hub."""
    hub.answers.append(Answer(path, 404))
    assert download.run("llama-7b", HALF) == 2
    line = told(download)
    assert f"nothing is at the address asked for; where: {LLAMA}" in line
    assert f"received: status 404 for {asked}" in line and "HF_ENDPOINT" in line


@pytest.mark.parametrize(
    ("status", "what"),
    [
        (401, "access refused"),
        (403, "access refused"),
        (418, "does not answer as it should"),
        (429, "asks for fewer requests"),
        (500, "does not answer as it should"),
        (503, "does not answer as it should"),
    ],
)
@pytest.mark.parametrize("path", ["/api/models", SHARD])
def test_every_status(download: Download, hub: HubServer, status: int, what: str, path: str) -> None:
    headers = {"X-Error-Message": "Invalid credentials in Authorization header"} if status == 401 else {}
    hub.answers.append(Answer(path, status, headers))
    assert download.run("llama-7b", HALF) == 2
    assert what in told(download)
    assert f"status {status}" in told(download)
    assert sum(download.waits) == (15 if status >= 429 else 0)
    assert not (download.cache / LLAMA).exists()
    assert not download.lock.exists()


def test_a_hub_that_wants_too_much_patience(download: Download, hub: HubServer) -> None:
    hub.answers.append(Answer("/api/models", 429, {"Retry-After": "3600"}))
    assert download.run("llama-7b", HALF) == 2
    assert "status 429, 3600 s; allowed: 300 s; fix: run the same command again in 60 minutes" in told(download)
    assert download.waits == []


def test_connection_refused(download: Download, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    monkeypatch.setenv("HF_ENDPOINT", f"http://someone:{TOKEN}@127.0.0.1:{port}")
    assert download.run("llama-7b", HALF) == 2
    assert "the hub refuses the connection" in told(download)
    assert f"127.0.0.1:{port}" in told(download)
    assert TOKEN not in download.err


@pytest.mark.parametrize(
    ("endpoint", "what"),
    [
        ("http://hub.invalid", "the hub's name cannot be resolved"),
        ("hub.example", "not an address of a hub"),
        ("ftp://hub.example", "not an address of a hub"),
    ],
)
def test_no_such_hub(download: Download, monkeypatch: pytest.MonkeyPatch, endpoint: str, what: str) -> None:
    monkeypatch.setenv("HF_ENDPOINT", endpoint)
    monkeypatch.setenv("NO_PROXY", "*")
    assert download.run("llama-7b", HALF) == 2
    assert what in told(download)
    assert "HF_ENDPOINT" in told(download)


def test_a_silent_hub(download: Download, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DOWNLOAD_TIMEOUT", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{silent.getsockname()[1]}")
        assert download.run("llama-7b", HALF) == 2
    assert "the hub is silent" in told(download)


def test_a_page_that_asks_for_a_login(download: Download, hub: HubServer) -> None:
    hub.answers.append(Answer("/api/models", 200))
    assert download.run("llama-7b", HALF) == 2
    assert "no listing" in told(download)


@pytest.mark.parametrize(
    ("files", "what"),
    [({"data.csv": b""}, "holds no config.json"), ({"config.json": b"{}", "model.gguf": b""}, "holds no weights")],
)
def test_a_repository_that_is_no_model(download: Download, hub: HubServer, files: dict[str, bytes], what: str) -> None:
    hub.repositories["some/thing"] = files
    assert download.run("some/thing") == 2
    assert what in told(download)


def test_offline_with_everything_here(download: Download, hub: HubServer) -> None:
    assert download.run("opt-30b", HALF) == 0
    hub.asked.clear()
    assert download.run("opt-30b", HALF, "--offline") == 0
    download.lock.unlink()
    assert download.run("opt-30b", HALF, "--offline") == 0
    assert hub.asked == []
    assert not download.lock.exists()


def test_offline_with_a_part_here(download: Download, hub: HubServer) -> None:
    assert download.run("opt-30b", HALF) == 0
    shutil.rmtree(download.cache)
    hub.cuts["pytorch_model-00002-of-00002.bin"] = [100] * 20 + [0] * 20
    hub.answers.append(Answer("pytorch_model-00002", 404, {"X-Error-Code": "EntryNotFound"}))
    assert download.run("opt-30b", HALF) == 2
    hub.asked.clear()
    assert download.run("opt-30b", HALF, "--offline") == 2
    assert "model is not whole here" in told(download)
    assert "lacking pytorch_model-00002-of-00002.bin, pytorch_model.bin.index.json" in told(download)
    assert "without --offline" in told(download)
    assert hub.asked == []


def test_offline_with_nothing_here(download: Download, hub: HubServer) -> None:
    assert download.run("opt-30b", "--offline") == 2
    assert "not here, and nothing says what it is; where: facebook/opt-30b" in told(download)
    assert hub.asked == []


def test_offline_by_the_clients_own_variable(download: Download, hub: HubServer) -> None:
    process = download.start("opt-30b", HF_HUB_OFFLINE="1")
    _, err = process.communicate(timeout=60)
    assert process.returncode == 2
    assert "received: offline" in err
    assert hub.asked == []


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 100 kB."""
    folder = tmp_path / "small"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=100k", "tmpfs", str(folder)]
    done = subprocess.run(mount, capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"no small file system can be made here: {done.stderr.strip()}")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk(download: Download, hub: HubServer, small_disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was asked for before has not seen it coming: somebody else filled the disk meanwhile."""
    assert download.run("llama-7b", HALF, "--cache-folder", str(small_disk / "hub")) == 2
    assert "no room" in told(download)
    assert hub.files_asked() == []
    for module in ("store", "bring", "convert"):
        monkeypatch.setattr(f"model_store.{module}.require_room", lambda *_: None)
    assert download.run("llama-7b", HALF, "--cache-folder", str(small_disk / "hub")) == 2
    line = told(download)
    assert "no room" in line
    assert "No space left on device" in line
    assert "--cache-folder" in line
    assert not (small_disk / "hub" / LLAMA).exists()
    assert not download.lock.exists()


def test_a_limit_on_file_sizes(download: Download, hub: HubServer) -> None:
    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, old[1]))
    try:
        assert download.run("llama-7b", HALF) == 2
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old)
    assert "no room" in told(download)
    hub.asked.clear()
    assert download.run("llama-7b", HALF) == 0
    assert hub.ranges(SHARD) == ["bytes=30000-"]


def test_a_conversion_that_finds_no_room(download: Download, monkeypatch: pytest.MonkeyPatch) -> None:
    assert download.run("opt-30b", HALF, "--keep-originals") == 0
    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, old[1]))
    try:
        assert download.run("opt-30b", "--full-precision-only") == 2
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old)
    assert "no room" in told(download)
    assert not (download.cache / f"{OPT}-full-precision").exists()
    assert download.run("opt-30b", "--full-precision-only") == 0


def test_a_folder_that_takes_nothing(download: Download) -> None:
    (download.root / "file").write_text("")
    assert download.run("llama-7b", "--cache-folder", str(download.root / "file/hub")) == 2
    assert "cannot be written" in told(download)
