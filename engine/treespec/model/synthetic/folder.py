"""Synthetic models as folders in the Hugging Face layout, whole or not there."""

from __future__ import annotations

import json
import os
import shutil
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from treespec.errors import OutputError
from treespec.model.synthetic.card import CARD_FILE, SyntheticCard
from treespec.model.synthetic.checkpoint import SyntheticCheckpoint
from treespec.model.synthetic.shapes import SPECIAL_TOKENS, ModelShape
from treespec.model.synthetic.tensors import SyntheticTensor

MAX_SHARD_BYTES = 5 << 30
CHUNK_BYTES = 4 << 20  # made and written at a time: stays in a cache on its way
STORED_NAMES = {torch.float16: "F16", torch.bfloat16: "BF16", torch.float32: "F32"}  # of the safetensors format


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """A temporary folder that becomes ``path`` if all goes well and is removed otherwise. Raises OutputError."""
    if path.exists():
        raise OutputError("output exists already", where=str(path), fix="remove it or name another folder")
    temporary = path.with_name(f".{path.name}.{socket.gethostname()}.{os.getpid()}.tmp")
    try:
        try:
            temporary.mkdir()
            yield temporary
            os.rename(temporary, path)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    except OSError as error:
        raise OutputError("folder cannot be written", where=str(path), received=error.strerror or str(error)) from error


def write_model(folder: Path, shape: ModelShape, card: SyntheticCard, *, with_weights: bool) -> None:
    """Configuration, tokenizer and card; weights too, or none: they are then made when the folder is loaded."""
    config = json.dumps(shape.config(card.dtype), indent=1) + "\n"
    (folder / "config.json").write_text(config, encoding="utf-8")
    (folder / CARD_FILE).write_text(card.model_dump_json(indent=1) + "\n", encoding="utf-8")
    byte_tokenizer(shape.vocab_size).save(str(folder / "tokenizer.json"))
    special = dict(zip(("pad_token", "bos_token", "eos_token"), SPECIAL_TOKENS, strict=True))
    about = {"tokenizer_class": "PreTrainedTokenizerFast", **special}
    (folder / "tokenizer_config.json").write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")
    if with_weights:
        write_weights(folder, SyntheticCheckpoint.of(folder, shape, card).tensors)


def byte_tokenizer(vocab_size: int) -> Tokenizer:
    """Text is encoded byte by byte; the other tokens of the vocabulary are numbered words that only models write."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    first = len(SPECIAL_TOKENS) + len(alphabet)
    words = [f"Ġ{number}" for number in range(first, vocab_size)]  # Ġ: how byte-level tokenizers write a space
    tokens = [*SPECIAL_TOKENS, *alphabet, *words]
    tokenizer = Tokenizer(models.BPE({token: index for index, token in enumerate(tokens)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(list(SPECIAL_TOKENS))
    return tokenizer


def num_weight_bytes(tensors: Mapping[str, SyntheticTensor]) -> int:
    """Bytes of all tensors."""
    return sum(tensor.numel() * tensor.dtype.itemsize for tensor in tensors.values())


def require_disk(folder: Path, num_bytes: int) -> None:
    """Asked before the first byte is made. Raises OutputError."""
    try:
        free = shutil.disk_usage(folder).free
    except OSError as error:
        raise OutputError("output folder cannot be used", where=str(folder), received=error.strerror) from error
    if num_bytes > free:
        raise OutputError(
            "the weights do not fit the disk",
            where=str(folder),
            received=f"{num_bytes / 1e9:.1f} GB to write",
            allowed=f"{free / 1e9:.1f} GB free",
            fix="--no-weights makes them in memory when the model is loaded",
        )


def write_weights(folder: Path, tensors: Mapping[str, SyntheticTensor], max_shard_bytes: int = MAX_SHARD_BYTES) -> None:
    """One safetensors file, or shards with an index; no tensor is ever held as a whole."""
    shards: list[list[SyntheticTensor]] = [[]]
    room = max_shard_bytes
    for tensor in tensors.values():
        size = tensor.numel() * tensor.dtype.itemsize
        if shards[-1] and size > room:
            shards.append([])
            room = max_shard_bytes
        shards[-1].append(tensor)
        room -= size
    if len(shards) == 1:
        _write_shard(folder / "model.safetensors", shards[0])
        return
    names = [f"model-{number:05d}-of-{len(shards):05d}.safetensors" for number in range(1, len(shards) + 1)]
    for name, shard in zip(names, shards, strict=True):
        _write_shard(folder / name, shard)
    weight_map = {tensor.name: name for name, shard in zip(names, shards, strict=True) for tensor in shard}
    index = {"metadata": {"total_size": num_weight_bytes(tensors)}, "weight_map": weight_map}
    text = json.dumps(index, indent=1) + "\n"
    (folder / "model.safetensors.index.json").write_text(text, encoding="utf-8")


def _write_shard(path: Path, tensors: list[SyntheticTensor]) -> None:
    """The safetensors format: length of the header (8 bytes), the header as JSON, the tensors one after another."""
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    end = 0
    for tensor in tensors:
        begin, end = end, end + tensor.numel() * tensor.dtype.itemsize
        entry = {"dtype": STORED_NAMES[tensor.dtype], "shape": tensor.shape, "data_offsets": (begin, end)}
        header[tensor.name] = entry
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for tensor in tensors:
            rows_per_chunk = max(1, CHUNK_BYTES * tensor.shape[0] // (tensor.numel() * tensor.dtype.itemsize))
            for start in range(0, tensor.shape[0], rows_per_chunk):
                part = tensor[start : start + rows_per_chunk].contiguous()
                file.write(part.view(torch.uint8).numpy().data)
        file.flush()
        os.fsync(file.fileno())
