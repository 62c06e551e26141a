"""Folders with a tokenizer in an older form: the tokens that the models were trained with."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers, trainers

from treespec.errors import CheckpointError
from treespec.model.tokenizers.text import TextTokenizer

CORPUS = [
    "Why is the sky blue? Because the air scatters short waves more than long ones.",
    "The two leading horses  ran  past the third; it didn't mind, don't you think?",
    "On one hand 1234 dogs, on the other hand 56: there were 1, 2, 3 of them.",
    "def leading(two):\n    return two + 1\n\tif there is more, return it",
    "naïve café über Ærø",
] * 8
HARD = [
    "Hello world",
    " one leading space",
    "  two leading",
    "trailing  ",
    "   ",
    "",
    "\n",
    "\n\n two",
    "a\tb\n\nc",
    "▁under",
    "é ü 中文 🙂",
    "na\u0308ive and naïve",
    "zero\u200bwidth",
    "x" * 30,
    "1234 56.78",
    "I don't, we'll, THEY'RE",
    "def f(x):\n    return x  # twice",
    "line one\r\nline two",
]
WITH_SPECIAL = ["a</s>b", "a </s> b", "<s> hi </s> there", "</s>", "<s><s>", "<s", "x<unk>y"]


def settings(folder: Path, **config: Any) -> None:
    (folder / "tokenizer_config.json").write_text(json.dumps(config))


@pytest.fixture(scope="module", params=["bpe", "unigram"])
def trained(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A model made by the library's own trainer, with LLaMA's settings."""
    trainer = pytest.importorskip("sentencepiece").SentencePieceTrainer
    folder = tmp_path_factory.mktemp("pieces")
    (folder / "corpus.txt").write_text("\n".join(line for text in CORPUS for line in text.split("\n")))
    trainer.train(
        input=str(folder / "corpus.txt"),
        model_prefix=str(folder / "tokenizer"),
        model_type=request.param,
        vocab_size=360,
        hard_vocab_limit=False,
        byte_fallback=True,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        split_digits=True,
        minloglevel=2,
    )
    return (folder / "tokenizer.model").read_bytes()


@pytest.fixture
def pieces(trained: bytes, tmp_path: Path) -> Path:
    """A folder with tokenizer.model alone."""
    (tmp_path / "tokenizer.model").write_bytes(trained)
    return tmp_path


def library_of(folder: Path) -> Any:
    import sentencepiece

    return sentencepiece.SentencePieceProcessor(model_file=str(folder / "tokenizer.model"))


def test_sentence_pieces_are_the_librarys_behind_bos(pieces: Path) -> None:
    tokenizer, library = TextTokenizer.load(pieces), library_of(pieces)
    for text in HARD:
        assert tokenizer.encode(text) == [1, *library.encode(text)]
        assert tokenizer.decode(tokenizer.encode(text)) == library.decode(library.encode(text))


def test_sentence_pieces_are_those_of_the_slow_tokenizer_of_transformers(pieces: Path) -> None:
    """Special tokens inside texts included: the prefix space then follows each of them."""
    from transformers.tokenization_utils_sentencepiece import SentencePieceBackend

    special = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    reference = SentencePieceBackend(vocab_file=str(pieces / "tokenizer.model"), legacy=True, **special)
    tokenizer = TextTokenizer.load(pieces)
    for text in [*HARD, *WITH_SPECIAL]:
        assert tokenizer.encode(text) == [1, *reference.convert_tokens_to_ids(reference.tokenize(text))]
    assert {reference.convert_ids_to_tokens(i): i for i in range(len(reference))} == tokenizer.vocabulary()


@pytest.mark.parametrize(
    ("config", "text", "written"),
    [
        ({}, " one", "<s>▁▁one"),
        ({"legacy": True}, "a</s>b", "<s>▁a</s>▁b"),
        ({"legacy": False}, "a</s>b </s> c", "<s>▁a</s>b▁</s>▁c"),
        ({"add_prefix_space": False}, "a b", "<s>a▁b"),
        ({"add_bos_token": False}, "a", "▁a"),
        ({"add_eos_token": True}, "a", "<s>▁a</s>"),
    ],
    ids=str,
)
def test_sentence_pieces_follow_the_settings(pieces: Path, config: dict[str, Any], text: str, written: str) -> None:
    settings(pieces, **config)
    assert "".join(map(library_of(pieces).id_to_piece, TextTokenizer.load(pieces).encode(text))) == written


def test_added_tokens_beside_the_pieces_are_known(pieces: Path) -> None:
    library = library_of(pieces)
    pad = library.get_piece_size()
    (pieces / "added_tokens.json").write_text(json.dumps({"<pad>": pad}))
    settings(pieces, added_tokens_decoder={str(pad + 1): {"content": "<|user|>"}})
    tokenizer = TextTokenizer.load(pieces)
    token_ids = [1, *library.encode("a"), pad + 1, *library.encode("b"), pad]
    assert tokenizer.encode("a<|user|>b<pad>") == token_ids
    assert tokenizer.decode([*token_ids, 2]) == "a b"
    assert tokenizer.vocabulary()["<pad>"] == pad
    assert len(tokenizer.vocabulary()) == pad + 2


def test_missing_library_is_one_clear_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "tokenizer.model").write_bytes(b"")
    monkeypatch.setitem(sys.modules, "sentencepiece", None)
    with pytest.raises(CheckpointError, match=r"needs the package sentencepiece; where: .*; fix: pip install"):
        TextTokenizer.load(tmp_path)


def test_damaged_sentence_pieces_are_one_clear_error(pieces: Path) -> None:
    (pieces / "tokenizer.model").write_bytes(b"garbage")
    with pytest.raises(CheckpointError, match=r"tokenizer cannot be read; where: .*tokenizer\.model"):
        TextTokenizer.load(pieces)


@pytest.fixture
def opt_folder(tmp_path: Path) -> Path:
    """vocab.json and merges.txt of byte pairs, with OPT's special tokens and settings."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    special = ["<s>", "<pad>", "</s>", "<unk>"]
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    tokenizer.model.save(str(tmp_path))
    written = dict.fromkeys(("lstrip", "rstrip", "single_word"), False) | {"content": "</s>", "normalized": True}
    written["__type"] = "AddedToken"
    roles = dict.fromkeys(("bos_token", "eos_token", "unk_token"), written) | {"pad_token": "<pad>"}
    settings(tmp_path, tokenizer_class="GPT2Tokenizer", add_bos_token=True, add_prefix_space=False, **roles)
    return tmp_path


@pytest.mark.parametrize("changes", [{}, {"add_bos_token": False}, {"add_prefix_space": True}], ids=str)
def test_byte_pairs_are_those_of_transformers(opt_folder: Path, changes: dict[str, Any]) -> None:
    from transformers import GPT2Tokenizer

    settings(opt_folder, **(json.loads((opt_folder / "tokenizer_config.json").read_text()) | changes))
    reference, tokenizer = GPT2Tokenizer.from_pretrained(opt_folder), TextTokenizer.load(opt_folder)
    for text in [*HARD, *WITH_SPECIAL]:
        token_ids = tokenizer.encode(text)
        assert token_ids == reference.encode(text)
        assert tokenizer.decode(token_ids) == reference.decode(token_ids, skip_special_tokens=True)
    assert tokenizer.vocabulary() == reference.get_vocab()


def test_opt_begins_every_text_with_its_end_token(opt_folder: Path) -> None:
    tokenizer = TextTokenizer.load(opt_folder)
    assert tokenizer.encode("") == [2]
    assert [tokenizer.encode(text)[0] for text in HARD] == [2] * len(HARD)
    assert [tokenizer.decode(tokenizer.encode(text)) for text in HARD] == HARD


@pytest.mark.parametrize("config", [{}, {"tokenizer_class": "Qwen2Tokenizer"}], ids=str)
def test_byte_pairs_of_unknown_meaning_are_refused(opt_folder: Path, config: dict[str, Any]) -> None:
    settings(opt_folder, **config)
    with pytest.raises(CheckpointError, match=r"not read for this class.*allowed: GPT2Tokenizer.*tokenizer\.json"):
        TextTokenizer.load(opt_folder)


def test_settings_that_name_no_class_but_speak_of_bos_are_enough(opt_folder: Path) -> None:
    settings(opt_folder, add_bos_token=True, bos_token="</s>")
    assert TextTokenizer.load(opt_folder).encode("")[0] == 2


@pytest.mark.parametrize(("name", "told"), [("merges.txt", "no tokenizer"), ("vocab.json", "cannot be read")])
def test_damaged_byte_pairs_are_one_clear_error(opt_folder: Path, name: str, told: str) -> None:
    if name == "merges.txt":
        (opt_folder / name).unlink()
    else:
        (opt_folder / name).write_text("[")
    with pytest.raises(CheckpointError, match=told):
        TextTokenizer.load(opt_folder)


def test_damaged_settings_are_one_clear_error(opt_folder: Path) -> None:
    (opt_folder / "tokenizer_config.json").write_text("{")
    with pytest.raises(CheckpointError, match=r"settings are not valid JSON; where: .*tokenizer_config\.json"):
        TextTokenizer.load(opt_folder)


def test_tokenizer_json_is_taken_before_older_forms(opt_folder: Path) -> None:
    tokenizer = Tokenizer(models.WordLevel({"a": 0, "</s>": 1}, unk_token="</s>"))
    tokenizer.save(str(opt_folder / "tokenizer.json"))
    assert TextTokenizer.load(opt_folder).encode("a") == [0]
