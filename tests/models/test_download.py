"""What is fetched, where it is kept, and what is not fetched a second time."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file

from model_store.disk import in_units
from tests.models.conftest import REPOSITORY, Download
from tests.models.hub_server import HubServer, serving
from tests.models.repositories import DRAFT, LLAMA, OPT, llama_shards

SHARDS = ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors")
TOKENIZER = {"tokenizer.json", "tokenizer.model", "tokenizer_config.json"}


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_a_model_is_fetched_whole_and_nothing_else(download: Download, hub: HubServer) -> None:
    assert download.run("llama-7b", "--half-precision-only") == 0
    folder = download.cache / LLAMA
    assert download.out.splitlines() == [str(folder)]
    wanted = {*SHARDS, *TOKENIZER, "config.json", "generation_config.json", "model.safetensors.index.json"}
    assert names(folder) == wanted | {"manifest.json"}
    assert set(hub.files_asked()) == wanted
    for shard, tensors in zip(SHARDS, llama_shards(), strict=True):
        assert (folder / shard).read_bytes() == hub.repositories[LLAMA][shard]
        assert load_file(folder / shard).keys() == tensors.keys()
    assert all(line.startswith("treespec: ") for line in download.err.splitlines())
    assert len(download.err.splitlines()) <= 2 + len(wanted)


def test_the_lock_pins_revision_size_and_hash_of_every_file(download: Download, hub: HubServer) -> None:
    assert download.run("llama-7b", "--half-precision-only") == 0
    (entry,) = json.loads(download.lock.read_text()).values()
    assert entry["revision"] == hub.commit(LLAMA)
    assert set(entry["files"]) == set(hub.files_asked())
    for name, file in entry["files"].items():
        content = hub.repositories[LLAMA][name]
        assert file == {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()}


def test_a_second_run_asks_the_hub_nothing_and_reads_no_weights(
    download: Download, hub: HubServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert download.run("llama-7b") == 0
    hub.asked.clear()

    def refuse(*_: object) -> None:
        raise AssertionError("hashed again")

    with monkeypatch.context() as patch:
        patch.setattr("hashlib.file_digest", refuse)
        assert download.run("llama-7b") == 0
    assert hub.asked == []
    assert "to fetch" not in download.err


def test_the_revision_stays_until_the_lock_is_updated(download: Download, hub: HubServer) -> None:
    assert download.run("opt-30b", "--half-precision-only") == 0
    old = hub.commit(OPT)
    hub.repositories[OPT]["vocab.json"] = b'{"new": 1}'
    assert download.run("opt-30b", "--half-precision-only", "--dry-run") == 0
    assert f"revision {old} (locked)" in download.out
    assert download.run("opt-30b", "--half-precision-only") == 0
    assert json.loads(download.lock.read_text())[OPT]["revision"] == old
    assert (download.cache / OPT / "vocab.json").read_bytes() == b"{}"
    assert download.run("opt-30b", "--half-precision-only", "--update-lock") == 0
    assert json.loads(download.lock.read_text())[OPT]["revision"] == hub.commit(OPT) != old
    assert (download.cache / OPT / "vocab.json").read_bytes() == b'{"new": 1}'


def test_a_locked_revision_that_is_gone_is_told(download: Download, hub: HubServer) -> None:
    assert download.run("opt-30b", "--half-precision-only") == 0
    hub.repositories[OPT]["vocab.json"] = b'{"new": 1}'
    assert download.run("opt-30b", "--full-precision-only") == 2
    assert "no such revision" in download.err
    assert "--update-lock" in download.err


@pytest.mark.parametrize("change", [{"size": 1}, {"sha256": "0" * 64}])
def test_the_lock_is_enforced_before_anything_is_fetched(
    download: Download, hub: HubServer, change: dict[str, object]
) -> None:
    assert download.run("llama-7b", "--half-precision-only") == 0
    locked = json.loads(download.lock.read_text())
    locked[LLAMA]["files"][SHARDS[0]] |= change
    download.lock.write_text(json.dumps(locked))
    hub.asked.clear()
    assert download.run("llama-7b", "--refresh-cache") == 2
    assert "is not the one that was locked" in download.err
    assert SHARDS[0] in download.err
    assert hub.files_asked() == []


def test_a_small_file_is_held_against_the_lock(download: Download, hub: HubServer) -> None:
    """The hub lists no sha256 of it: it is seen when it has come."""
    assert download.run("llama-7b", "--half-precision-only") == 0
    locked = json.loads(download.lock.read_text())
    locked[LLAMA]["files"]["config.json"]["sha256"] = "0" * 64
    download.lock.write_text(json.dumps(locked))
    assert download.run("llama-7b", "--refresh-cache", "--half-precision-only") == 2
    assert "config.json" in download.err
    assert "0" * 64 in download.err
    assert not (download.cache / LLAMA).exists()


def test_a_draft_without_a_tokenizer_has_its_targets(download: Download, hub: HubServer) -> None:
    assert download.run("llama-68m", "--full-precision-only") == 0
    folder = download.cache / f"{DRAFT}-full-precision"
    assert names(folder) == TOKENIZER | {"config.json", "model.safetensors", "manifest.json"}
    assert (folder / "tokenizer.json").read_bytes() == hub.repositories[LLAMA]["tokenizer.json"]
    locked = json.loads(download.lock.read_text())[DRAFT]
    assert locked["files"]["tokenizer.json"]["borrowed"] == {"repository": LLAMA, "revision": hub.commit(LLAMA)}
    assert "borrowed" not in locked["files"]["config.json"]


def test_a_tokenizer_of_its_own_is_kept(download: Download, hub: HubServer) -> None:
    hub.repositories[DRAFT]["tokenizer.model"] = b"its own"
    assert download.run("llama-68m", "--full-precision-only") == 0
    folder = download.cache / f"{DRAFT}-full-precision"
    assert (folder / "tokenizer.model").read_bytes() == b"its own"
    assert not (folder / "tokenizer.json").exists()


def test_refreshing_fetches_everything_again(download: Download, hub: HubServer) -> None:
    assert download.run("opt-30b") == 0
    first = sorted(hub.files_asked())
    hub.asked.clear()
    assert download.run("opt-30b", "--refresh-cache") == 0
    assert sorted(hub.files_asked()) == first


@pytest.mark.parametrize(
    ("num_bytes", "told"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.0 kB"),
        (98_700, "98.7 kB"),
        (2_500_000, "2.5 MB"),
        (13.4765e9, "13.476 GB"),
    ],
)
def test_sizes_are_told_in_a_unit_that_fits(num_bytes: float, told: str) -> None:
    assert in_units(num_bytes) == told


def test_a_dry_run_tells_sizes_and_changes_nothing(download: Download, hub: HubServer) -> None:
    assert download.run("llama-7b", "llama-68m", "--dry-run") == 0
    assert not download.cache.exists()
    assert not download.lock.exists()
    assert hub.files_asked() == []
    for name in SHARDS:
        assert f"{len(hub.repositories[LLAMA][name]):,} B  to fetch  {name}" in download.out
    assert f"tokenizer.json  of {LLAMA}" in download.out
    assert "not locked yet" in download.out
    assert "GB free" in download.err
    assert re.search(r"to fetch: \d+\.\d kB; conversion takes \d+\.\d kB to \d+\.\d kB besides", download.err)
    assert download.run("llama-7b") == 0
    assert download.run("llama-7b", "--dry-run") == 0
    assert "to fetch" not in download.out
    assert "(locked)" in download.out
    assert download.run("llama-7b", "--dry-run", "--refresh-cache") == 0
    assert "  here  " not in download.out


def test_what_does_not_fit_is_told_before_it_is_fetched(
    download: Download, hub: HubServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("model_store.disk.free_bytes", lambda _: 50_000)
    for options in (["--dry-run"], []):
        assert download.run("llama-7b", *options) == 2
        assert "no room" in download.err
        assert "free" in download.err
    assert hub.files_asked() == []


def platform(root: Path, **changes: object) -> Path:
    """A platform whose models come from the hub, but for one."""
    data = yaml.safe_load((REPOSITORY / "config/platforms/g5.yaml").read_text())
    data |= {"arguments": {}, "launch": "local", "cluster": None, "num_nodes": 1, "overrides": {}}
    for roles in data["sizes"].values():
        for model in (roles["target"], *roles["drafts"]):
            model["path"] = str(root / Path(model["path"]).relative_to("models"))
        roles |= {"tensor_parallel_degree": 1, "pipeline_parallel_degree": 1}
    path = root / "platform.yaml"
    path.write_text(yaml.safe_dump(data | changes, sort_keys=False))
    return path


def test_a_platform_has_what_its_sizes_need(download: Download, hub: HubServer) -> None:
    path = str(platform(download.root))
    assert download.run("--platform", path, "--sizes", "small") == 0
    assert set(download.out.splitlines()) == {str(download.cache / LLAMA), str(download.cache / DRAFT)}
    assert {tensor.dtype for tensor in load_file(download.cache / DRAFT / "model.safetensors").values()} == {
        torch.float16
    }
    assert not any("opt" in asked.path or "65b" in asked.path for asked in hub.asked)


def test_a_folder_of_ones_own_is_left_alone(download: Download, hub: HubServer) -> None:
    own = download.cache / LLAMA
    own.mkdir(parents=True)
    (own / "config.json").write_text("mine")
    assert download.run("--platform", str(platform(download.root)), "--sizes", "small") == 0
    assert names(own) == {"config.json"}
    assert "a folder of your own" in download.err
    assert download.run("llama-7b") == 2
    assert "not made by this command" in download.err
    assert names(own) == {"config.json"}


def test_shipped_platforms_fit_the_layout() -> None:
    """Each path names the folder that this command makes of its hub_id."""
    from model_store.wanted import CACHE, platform_models

    g5 = platform_models(str(REPOSITORY / "config/platforms/g5.yaml"), None)
    assert {item.repository for item in g5} >= {LLAMA, DRAFT, OPT, "facebook/opt-125m", "huggyllama/llama-65b"}
    single = platform_models(str(REPOSITORY / "config/platforms/single_gpu.yaml"), None)
    assert {item.repository for item in single} >= {LLAMA, DRAFT}
    assert {(item.cache, item.precisions) for item in (*g5, *single)} == {(CACHE, ("half",))}


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["llama-8b"], "unknown model; received: llama-8b; allowed: organisation/name, or one of huggyllama/llama-7b"),
        (["a/b", "--lock-file", "/dev/null/x"], "lock file cannot be read"),
        (["org/bad name"], "not a name of a repository"),
    ],
)
def test_what_cannot_be_meant_is_one_line(download: Download, arguments: list[str], told: str) -> None:
    assert download.run(*arguments) == 2
    assert told in download.err
    assert len(download.err.splitlines()) == 1


def test_a_path_that_fits_no_layout_is_told(download: Download) -> None:
    path = platform(download.root)
    path.write_text(
        path.read_text()
        .replace("llama-7b\n        hub_id", "seven\n        hub_id")
        .replace("/hub/huggyllama/llama-7b", "/hub/seven")
    )
    assert download.run("--platform", str(path), "--sizes", "small") == 2
    assert "models/hub/huggyllama/llama-7b or models/hub/huggyllama/llama-7b-full-precision" in download.err


def test_large_files_kept_elsewhere_are_followed_without_the_token(
    download: Download, hub: HubServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", hub.token)
    with serving(HubServer(hub.repositories)) as elsewhere:
        hub.redirect_to = elsewhere.url
        assert download.run("llama-7b", "--half-precision-only") == 0
    assert set(elsewhere.files_asked()) == {*SHARDS, "tokenizer.model"}
    assert {asked.authorization for asked in elsewhere.asked} == {None}
    assert {asked.authorization for asked in hub.asked} == {f"Bearer {hub.token}"}


def test_a_proxy_in_the_environment_is_not_asked_for_an_excepted_host(
    download: Download, monkeypatch: pytest.MonkeyPatch
) -> None:
    process = download.start("opt-30b", "--dry-run", HTTP_PROXY="http://127.0.0.1:9", http_proxy="http://127.0.0.1:9")
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    assert OPT in out
