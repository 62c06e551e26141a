"""Bad input is one clear line on stderr and status 2, before anything is written."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from engine.tests.checkpoints import TinyLlama, character_tokenizer, write_checkpoint
from engine.tests.jobs import JobFolder

TINY = TinyLlama(hidden_size=16, ffn_size=16, num_layers=1, num_heads=2, num_kv_heads=2, head_dim=8)
Spoil = Callable[[JobFolder], None]


@pytest.fixture
def own_job(job: JobFolder) -> JobFolder:
    """A job whose models are its own, so that they can be spoilt."""
    for role in ("target", "draft"):
        write_checkpoint(job.root / role, TINY)
    job.placement["target"] = {"path": str(job.root / "target")}
    job.placement["drafts"] = [{"path": str(job.root / "draft")}]
    return job


def refused(job: JobFolder, capsys: pytest.CaptureFixture[str]) -> str:
    """Run, and return the one line of the error."""
    capsys.readouterr()
    assert job.run() == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    errors = [line for line in captured.err.splitlines() if line.startswith("treespec: error: ")]
    assert errors == captured.err.splitlines()[-1:], captured.err
    assert len(captured.err.splitlines()) <= 2, "one line, after the one that says how much is done"
    assert "Traceback" not in captured.err
    if job.results.is_dir():
        assert [path.name for path in job.results.iterdir() if path.name != ".lock"] == []
    return errors[0]


def in_placement(**settings: Any) -> Spoil:
    return lambda job: job.placement.update(settings)


def in_scenarios(**settings: Any) -> Spoil:
    return lambda job: job.change(**settings)


def in_drafters(*drafters: dict[str, Any]) -> Spoil:
    def spoil(job: JobFolder) -> None:
        job.scenarios = [job.scenarios[-1] | {"expansion": [], "drafters": list(drafters)}]

    return spoil


def in_config(role: str, **settings: Any) -> Spoil:
    def spoil(job: JobFolder) -> None:
        path = job.root / role / "config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | settings))

    return spoil


def in_weights(role: str, change: Callable[[dict[str, torch.Tensor]], object]) -> Spoil:
    def spoil(job: JobFolder) -> None:
        path = job.root / role / "model.safetensors"
        tensors = load_file(path)
        change(tensors)
        save_file(tensors, path)

    return spoil


def in_file(name: str, content: bytes | None) -> Spoil:
    def spoil(job: JobFolder) -> None:
        if content is None:
            (job.root / name).unlink()
        else:
            (job.root / name).write_bytes(content)

    return spoil


def truncated(name: str, share: float) -> Spoil:
    return lambda job: os.truncate(job.root / name, int((job.root / name).stat().st_size * share))


def other_vocabulary(job: JobFolder) -> None:
    tokenizer = json.loads(character_tokenizer().to_str())
    vocabulary = tokenizer["model"]["vocab"]
    vocabulary["A"], vocabulary["B"] = vocabulary["B"], vocabulary["A"]
    (job.root / "draft" / "tokenizer.json").write_text(json.dumps(tokenizer))


def smaller_vocabulary(job: JobFolder) -> None:
    write_checkpoint(job.root / "draft", TINY.with_(vocab_size=120))


def long_prompts(job: JobFolder) -> None:
    (job.root / "prompts.json").write_text(json.dumps(["short", "x" * 64, "y" * 70]))


def file_in_place_of_the_folder(job: JobFolder) -> None:
    job.results.write_text("")


QKV = "model.layers.0.self_attn.q_proj.weight"
MISTAKES: dict[str, tuple[Spoil, list[str]]] = {
    "unknown key": (in_placement(surprise=1), ["placement: unknown key 'surprise'", "allowed: name, target"]),
    "unknown mode": (in_scenarios(mode="speculative"), ["'incremental', 'sequence' or 'tree'", "'speculative'"]),
    "max_requests 0": (in_scenarios(max_requests_per_batch=0), ["max_requests_per_batch", "(received 0)"]),
    "no target folder": (in_placement(target={"path": "gone/target"}), ["gone/target", "no such folder"]),
    "no draft folder": (in_placement(drafts=[{"path": "gone/draft"}]), ["gone/draft", "no such folder"]),
    "missing weight file": (in_file("target/model.safetensors", None), ["holds no weights", "no *.safetensors file"]),
    "missing shard": (
        in_file("target/model.safetensors.index.json", b'{"weight_map": {"a": "model-00002-of-2.safetensors"}}'),
        ["weight files are missing", "model-00002-of-2.safetensors"],
    ),
    "damaged weight index": (
        in_file("draft/model.safetensors.index.json", b'["model.safetensors"]'), ["weight index is damaged"],
    ),
    "truncated weights": (truncated("target/model.safetensors", 0.7), ["truncated or damaged", "compare its sha256"]),
    "truncated header": (truncated("draft/model.safetensors", 0.005), ["truncated or damaged", "draft"]),
    "empty weight file": (in_file("target/model.safetensors", b""), ["truncated or damaged", "target"]),
    "no config": (in_file("target/config.json", None), ["configuration cannot be read", "target/config.json"]),
    "damaged config": (in_file("target/config.json", b"{"), ["not valid JSON", "target/config.json"]),
    "config that is no text": (in_file("target/config.json", b"\xff\xfe"), ["not valid JSON", "target/config.json"]),
    "config that is a list": (in_file("target/config.json", b"[]"), ["not a JSON object", "received: list"]),
    "damaged generation config": (in_file("target/generation_config.json", b"{"), ["generation_config.json"]),
    "no architecture": (in_config("target", architectures=[]), ["names no architecture", "target/config.json"]),
    "unsupported architecture": (
        in_config("target", architectures=["MambaForCausalLM"]),
        ["unknown model architecture", "'MambaForCausalLM'", "LlamaForCausalLM", "target/config.json"],
    ),
    "unsupported variant": (in_config("draft", hidden_act="gelu"), ["hidden_act", "gelu", "silu", "draft/config.json"]),
    "rope scaling": (
        in_config("target", rope_scaling={"rope_type": "llama3", "factor": 8.0}), ["rope", "llama3", "default"],
    ),
    "missing size": (in_config("target", hidden_size=None), ["lacks 'hidden_size'", "target/config.json"]),
    "wrong shape": (
        in_config("target", num_key_value_heads=1), ["k_proj", "received: shape (16, 16)", "allowed: shape (8, 16)"],
    ),
    "missing tensor": (in_weights("target", lambda tensors: tensors.pop(QKV)), [f"lacks tensor {QKV!r}"]),
    "unexpected tensor": (
        in_weights("target", lambda tensors: tensors.update({"model.layers.0.extra.weight": torch.ones(2)})),
        ["this architecture does not have", "model.layers.0.extra.weight"],
    ),
    "NaN weights": (
        in_weights("draft", lambda tensors: tensors[QKV].fill_(float("nan"))), ["NaN or infinite", QKV, "draft"],
    ),
    "no tokenizer": (in_file("target/tokenizer.json", None), ["no tokenizer", "target/tokenizer.json"]),
    "damaged tokenizer": (in_file("target/tokenizer.json", b"{}"), ["tokenizer cannot be read"]),
    "other vocabulary": (other_vocabulary, ["different vocabularies", "2 tokens differ", "'A'"]),
    "smaller vocabulary": (smaller_vocabulary, ["different vocabularies", "128 and 120 tokens, 8 tokens differ"]),
    "no prompt file": (in_scenarios(prompts="gone.json"), ["gone.json", "No such file"]),
    "empty prompt file": (in_file("prompts.json", b"[]"), ["prompt file is empty", "at least one prompt"]),
    "prompt file of no bytes": (in_file("prompts.json", b""), ["prompt file is not valid JSON"]),
    "prompt file that is no text": (in_file("prompts.json", b"\xff\xfe"), ["prompt file is not UTF-8"]),
    "prompts that are no list": (in_file("prompts.json", b'{"a": "b"}'), ["another form", "a JSON list of strings"]),
    "prompts that are no strings": (in_file("prompts.json", b'["a", 1]'), ["another form", "a JSON list of strings"]),
    "prompt without tokens": (in_file("prompts.json", b'["a", ""]'), ["without any token", "indices [1]"]),
    "too few prompts": (in_scenarios(num_prompts=99), ["too short", "num_prompts 99", "at most 4"]),
    "fewer prompts than a batch": (
        in_scenarios(max_requests_per_batch=5),
        ["fewer prompts than the batch size", "4 prompts for max_requests_per_batch 5"],
    ),
    "prompt longer than the cache": (
        long_prompts, ["longer than the cache", "prompt 1: 64 tokens, prompt 2: 70 tokens", "at most 63"],
    ),
    "positions the model lacks": (
        in_placement(max_sequence_length=300), ["beyond the positions", "received: 300", "at most 256"],
    ),
    "negative temperature": (
        in_scenarios(sampling={"temperature": -0.5}), ["sampling.temperature", "greater than or equal to 0", "-0.5"],
    ),
    "top_p of 0": (in_scenarios(sampling={"temperature": 1, "top_p": 0}), ["sampling.top_p", "greater than 0"]),
    "top_k of 0": (in_scenarios(sampling={"top_k": 0}), ["sampling.top_k", "greater than or equal to 1"]),
    "min_p of 1": (in_scenarios(sampling={"min_p": 1}), ["sampling.min_p", "less than 1"]),
    "expansion with zeros": (in_scenarios(expansion=[2, 0]), ["positive widths", "[2, 0]"]),
    "drafter with zeros": (
        in_drafters({"kind": "ssm", "expansion": [2, 0]}), ["ssm.expansion.1", "greater than 0 (received 0)"],
    ),
    "more nodes than slots": (
        in_drafters({"kind": "ssm", "tree": "best", "num_nodes": 64}), ["65 nodes", "max_tree_nodes = 64"],
    ),
    "dynamic tree that fills the cache": (
        in_drafters({"kind": "ssm", "tree": "dynamic", "width": 9}), ["72 nodes", "max_tree_nodes = 64"],
    ),
    "unknown drafter": (in_drafters({"kind": "oracle"}), ["'oracle'", "'ssm', 'ngram', 'suffix', 'plugin'"]),
    "draft model that is not there": (
        in_drafters({"kind": "ssm", "expansion": [2], "model": 1}), ["model 1", "allowed: 0 to 0"],
    ),
    "draft model twice": (
        in_drafters({"kind": "ssm", "expansion": [2]}, {"kind": "ssm", "expansion": [1]}), ["received twice: model 0"],
    ),
    "plugin drafter nobody offers": (
        in_drafters({"kind": "plugin", "name": "mine"}), ["unknown plugin drafter", "'mine'"],
    ),
    "plugin that is not there": (in_placement(plugins=["gone.py"]), ["gone.py"]),
    "unknown verifier": (
        in_scenarios(verifier="oracle"), ["unknown verifier", "'oracle'", "block, greedy, mss", "server_small-2"],
    ),
    "verifier that needs draws": (
        in_scenarios(verifier="mss"), ["verifier 'mss' is not lossless", "received: deterministic", "allowed: iid"],
    ),
    "verifier of chains on a tree": (
        in_scenarios(verifier="block", sampling={"temperature": 1}), ["verifier 'block' judges chains", "a tree"],
    ),
    "greedy verifier with a temperature": (
        in_scenarios(verifier="greedy", sampling={"temperature": 1}), ["temperature above 0", "sampler_match"],
    ),
    "dynamic tree of draws": (
        in_drafters({"kind": "ssm", "tree": "dynamic", "selection": "iid"}), ["allowed: top_k"],
    ),
    "float16 on a CPU": (in_placement(dtype="float16"), ["float16", "float32 or bfloat16"]),
    "cache larger than memory": (
        in_placement(cache_fraction=1e-9), ["do not fit their budget", "max_requests_per_batch 2", "lower the batch"],
    ),
    "heads that ranks cannot share": (
        in_placement(tensor_parallel_degree=4), ["cannot be divided", "tensor_parallel_degree 4", "allowed: 1, 2"],
    ),
    "more stages than layers": (
        in_placement(pipeline_parallel_degree=3), ["more pipeline stages than layers", "allowed: 1 to 1"],
    ),
    "layers for another number of stages": (
        in_placement(pipeline_parallel_degree=2, layer_split=[1]), ["layer_split [1] does not fit"],
    ),
    "model not yet had from the hub": (
        in_placement(target={"path": "gone", "hub_id": "some/model"}), ["configuration cannot be read", "gone/config"],
    ),
    "inflation that removes layers": (
        in_placement(target={"path": "target", "inflation": {"num_layers": 0}}), ["num_layers", "(received 0)"],
    ),
    "results folder that is a file": (file_in_place_of_the_folder, ["results cannot be written", "raw"]),
}  # fmt: skip


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistake_is_one_line_and_nothing_is_written(
    mistake: str, own_job: JobFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    spoil, told = MISTAKES[mistake]
    spoil(own_job)
    line = refused(own_job, capsys)
    for words in told:
        assert words in line


def test_job_that_is_spoilt_in_no_way_runs(own_job: JobFolder) -> None:
    """Otherwise the refusals above might all be of something else."""
    assert own_job.run() == 0


def test_jobs_are_checked_without_models(
    own_job: JobFolder, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    from treespec import cli

    right, wrong = tmp_path / "right.yaml", tmp_path / "wrong.yaml"
    own_job.placement["target"] = {"path": "gone", "hub_id": "some/model"}
    own_job.write()
    right.write_text(own_job.config_file.read_text())
    assert cli.main(["check", str(right)]) == 0
    MISTAKES["unknown verifier"][0](own_job)
    own_job.write()
    wrong.write_text(own_job.config_file.read_text())
    capsys.readouterr()
    assert cli.main(["check", str(wrong), str(right), str(tmp_path / "gone.yaml")]) == 2
    told, absent, summary = capsys.readouterr().err.splitlines()
    assert str(wrong) in told and "unknown verifier" in told and "server_small-2" in told
    assert "gone.yaml" in absent
    assert summary.endswith("1 of 3 jobs can be run as they are written")

    own_job.change(verifier="auto", num_prompts=99)
    own_job.write()
    assert cli.main(["check", str(own_job.config_file)]) == 2
    assert "the prompt file is too short" in capsys.readouterr().err


def test_missing_device_is_told(
    own_job: JobFolder, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    own_job.placement["device"] = "cuda"
    assert "received: device: cuda; allowed: cpu" in refused(own_job, capsys)


@pytest.mark.parametrize("folder", ["/proc", "/proc/treespec", "/dev/null", "/dev/null/deeper"])
def test_places_that_cannot_be_written_are_told(
    folder: str, own_job: JobFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    """As root too, for whom no mode forbids anything."""
    own_job.root.joinpath("raw").symlink_to(folder)
    capsys.readouterr()
    assert own_job.run() == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("treespec: error: ")
    assert "raw" in line


def test_prompt_file_of_one_scenario_is_checked_before_another_is_served(
    own_job: JobFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    (own_job.root / "bad.json").write_text(json.dumps(["x" * 64] * 2))
    own_job.scenarios[2]["prompts"] = str(own_job.root / "bad.json")
    assert "longer than the cache" in refused(own_job, capsys)


def test_disk_that_fills_up_is_told_and_leaves_no_record(
    own_job: JobFolder, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as small_disk:
        small_disk.setattr(os, "fsync", full)
        assert own_job.run() == 2
    assert "No space left on device" in capsys.readouterr().err.splitlines()[-1]
    assert [path.name for path in own_job.results.iterdir()] == [".lock"]
    assert own_job.run() == 0


def test_missing_arguments_are_the_parsers_to_tell(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    from treespec import cli

    with pytest.raises(SystemExit) as ended:
        cli.main(["run", "--output-dir", str(tmp_path)])
    assert ended.value.code == 2
    assert "--config" in capsys.readouterr().err


def test_prompts_that_never_fill_a_batch_are_told_before_a_model_is_loaded(
    own_job: JobFolder, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def unwanted(*_: object) -> None:
        raise AssertionError("a model was loaded")

    monkeypatch.setattr("treespec.serving.job.load_placement", unwanted)
    own_job.change(max_requests_per_batch=5)
    assert "4 prompts for max_requests_per_batch 5" in refused(own_job, capsys)
