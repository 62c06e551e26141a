"""GPT-2's tokenizer files, vocab.json and merges.txt, as OPT is published with."""

from __future__ import annotations

from pathlib import Path

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors

from treespec.errors import CheckpointError
from treespec.model.tokenizers.settings import TokenizerSettings

CLASSES = ("GPT2Tokenizer", "GPT2TokenizerFast")


def gpt2_tokenizer(folder: Path) -> Tokenizer:
    """Byte-level byte pairs (Radford et al. 2019); OPT begins every text with ``</s>``. Raises CheckpointError.

    The same two files mean another split of words in other classes (Qwen2's, say), and whether a text begins with a
    token stands in tokenizer_config.json alone: without it nothing is guessed.
    """
    settings = TokenizerSettings.read(folder)
    is_told = "tokenizer_class" in settings.config or "add_bos_token" in settings.config
    if not is_told or settings.config.get("tokenizer_class", CLASSES[0]) not in CLASSES:
        raise CheckpointError(
            "vocab.json and merges.txt are not read for this class of tokenizer",
            where=str(folder / "tokenizer_config.json"),
            received=f"tokenizer_class {settings.config.get('tokenizer_class')!r}",
            allowed=", ".join(CLASSES),
            fix="get the model's tokenizer.json, or its tokenizer_config.json if it is missing",
        )
    model = models.BPE.from_file(str(folder / "vocab.json"), str(folder / "merges.txt"))
    tokenizer = Tokenizer(model)
    prefix_space = bool(settings.config.get("add_prefix_space", False))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=prefix_space)
    tokenizer.decoder = decoders.ByteLevel()
    special = dict.fromkeys([*settings.roles.values(), *sorted(settings.added, key=settings.added.__getitem__)])
    tokenizer.add_special_tokens([AddedToken(token, normalized=False, special=True) for token in special])
    bos = settings.roles.get("bos_token", "<|endoftext|>")
    if settings.config.get("add_bos_token", False):
        tokenizer.post_processor = processors.TemplateProcessing(
            single=[bos, "$A"], special_tokens=[(bos, tokenizer.token_to_id(bos))]
        )
    return tokenizer
