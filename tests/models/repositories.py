"""Repositories as the hub has them: the files and kinds of weights of the real ones, and next to no content."""

from __future__ import annotations

import io
import json
import os
from pathlib import Path

import torch
from safetensors.torch import save
from torch import Tensor

LLAMA, DRAFT, OPT = "huggyllama/llama-7b", "JackFram/llama-68m", "facebook/opt-30b"


def weights(seed: int, *names: str, dtype: torch.dtype = torch.float16) -> dict[str, Tensor]:
    """Random matrices."""
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.randn(96, 128, generator=generator).to(dtype) for name in names}


def bin_file(tensors: dict[str, Tensor]) -> bytes:
    """As torch.save writes it."""
    buffer = io.BytesIO()
    torch.save(tensors, buffer)
    return buffer.getvalue()


def index(places: dict[str, str]) -> bytes:
    """An index of shards."""
    return json.dumps({"metadata": {"total_size": 1}, "weight_map": places}).encode()


def config(dtype: str) -> bytes:
    """config.json as far as it is looked at."""
    return json.dumps({"architectures": ["Some"], "torch_dtype": dtype, "hidden_size": 128}).encode()


class Intruder:
    """Runs a command wherever it is unpickled."""

    def __init__(self, trace: Path) -> None:
        self._trace = trace

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, (f"touch {self._trace}",)


def llama_shards() -> list[dict[str, Tensor]]:
    """Half precision, but for a table that the real one holds in full."""
    first = weights(1, "embed.weight", "layers.0.weight") | {
        "layers.0.rotary_emb.inv_freq": torch.linspace(0.1, 1.3, 8)
    }
    return [first, weights(2, "layers.1.weight", "head.weight")]


def opt_shards() -> list[dict[str, Tensor]]:
    """Half precision, in pickles."""
    return [weights(3, "embed.weight", "layers.0.weight"), weights(4, "layers.1.weight")]


def draft_weights() -> dict[str, Tensor]:
    """Full precision."""
    return weights(5, "embed.weight", "head.weight", dtype=torch.float32)


def tiny_repositories() -> dict[str, dict[str, bytes]]:
    """A target in safetensors, a draft without a tokenizer, and a model in shards of *.bin."""
    llama, opt = llama_shards(), opt_shards()
    names = {f"model-0000{i}-of-00002.safetensors": shard for i, shard in enumerate(llama, 1)}
    bins = {f"pytorch_model-0000{i}-of-00002.bin": shard for i, shard in enumerate(opt, 1)}
    return {
        LLAMA: {
            "README.md": b"a card",
            "config.json": config("float16"),
            "generation_config.json": b"{}",
            "tokenizer.json": b'{"of": "llama"}',
            "tokenizer.model": b"llama's pieces" * 1000,  # large enough to be known by its sha256
            "tokenizer_config.json": b'{"a": 1}',
            **{name: save(shard, {"format": "pt"}) for name, shard in names.items()},
            "model.safetensors.index.json": index({key: name for name, shard in names.items() for key in shard}),
            "pytorch_model-00001-of-00001.bin": b"the same once more" * 1000,
            "onnx/model.safetensors": b"not for us",
            "model-1/../../up-of-2.safetensors": b"not for anybody",
        },
        DRAFT: {"config.json": config("float32"), "pytorch_model.bin": bin_file(draft_weights())},
        OPT: {
            "config.json": config("float16"),
            "vocab.json": b"{}",
            "merges.txt": b"#version",
            **{name: bin_file(shard) for name, shard in bins.items()},
            "pytorch_model.bin.index.json": index({key: name for name, shard in bins.items() for key in shard}),
            "tf_model.h5": b"not for us",
        },
    }
