"""Reading tokenizers from folders, padding and cutting, and what is said of broken ones."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from pathlib import Path

import pytest
from tokenizers import Tokenizer as Backend
from tokenizers import models, pre_tokenizers, processors

from fluxone.errors import BadFile, FluxoneError, MissingParts
from fluxone.text.tokenizers import load_tokenizer

WORDS = ["<pad>", "</s>", "<unk>", "a", "fox"]


def write_words(folder: Path, config: dict[str, object] | None = None) -> Path:
    made = Backend(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="<unk>"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    made.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    made.enable_truncation(3)
    made.enable_padding(length=9)
    made.save(str(folder / "tokenizer.json"))
    if config is not None:
        (folder / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")
    return folder


def varint(number: int) -> bytes:
    out = b""
    while number > 0x7F:
        out, number = out + bytes([number & 0x7F | 0x80]), number >> 7
    return out + bytes([number])


def spiece(*pieces: tuple[str, float, int]) -> bytes:
    """A SentencePiece model file, with a field of the trainer's and one number that readers must step over."""
    out = b""
    for text, score, kind in pieces:
        name = text.encode()
        piece = b"\x0a" + varint(len(name)) + name + b"\x15" + struct.pack("<f", score) + b"\x18" + varint(kind)
        out += b"\x0a" + varint(len(piece)) + piece
    return out + b"\x12" + varint(3) + b"\x18\xac\x02" + b"\x1a" + varint(2) + b"\x18\x01"


T5_PIECES = (("<pad>", 0.0, 3), ("</s>", 0.0, 3), ("<unk>", 0.0, 2), ("▁a", -2.0, 1), ("▁fox", -3.0, 1), ("▁", -5.0, 1))


def test_pads_and_cuts_keeping_the_end_whatever_the_file_itself_does(tmp_path: Path) -> None:
    tokenizer = load_tokenizer(write_words(tmp_path))
    made = tokenizer.fit(["", "a fox", "a fox a fox a"], 4)
    assert made.ids.tolist() == [[1, 0, 0, 0], [3, 4, 1, 0], [3, 4, 3, 1]]
    assert made.cut == (0, 0, 2)
    assert tokenizer.longest(["", "a fox a fox a"]) == 6
    assert tokenizer.encode([], 4).shape == (0, 4)


def test_a_prompt_of_10000_characters_is_cut_and_counted(tmp_path: Path) -> None:
    made = load_tokenizer(write_words(tmp_path)).fit(["fox " * 2500], 256)
    assert made.ids.shape == (1, 256) and made.ids[0, -1] == 1
    assert made.cut == (2500 - 255,)


@pytest.mark.parametrize("pad", ["fox", {"content": "fox", "lstrip": False}])
def test_padding_and_limit_come_from_the_configuration(pad: object, tmp_path: Path) -> None:
    tokenizer = load_tokenizer(write_words(tmp_path, {"pad_token": pad, "model_max_length": 12}))
    assert tokenizer.limit == 12
    assert tokenizer.encode(["a"], 4).tolist() == [[3, 1, 4, 4]]
    endless = load_tokenizer(write_words(tmp_path, {"model_max_length": 1e30}))
    assert (endless.limit, endless.pad) == (None, 0)


def test_rows_may_be_filled_and_cut_at_their_beginning(tmp_path: Path) -> None:
    tokenizer = load_tokenizer(write_words(tmp_path, {"padding_side": "left", "truncation_side": "left"}))
    assert tokenizer.encode(["a", "a fox a fox a"], 4).tolist() == [[0, 0, 3, 1], [3, 4, 3, 1]]
    assert tokenizer.encode(["fox a a a"], 3).tolist() == [[3, 3, 1]]


def test_spiece_model_alone_is_enough(tmp_path: Path) -> None:
    (tmp_path / "spiece.model").write_bytes(spiece(*T5_PIECES))
    tokenizer = load_tokenizer(tmp_path)
    assert tokenizer.encode(["a fox", "", "a zebra", "<extra_id_99>"], 4).tolist() == [
        [3, 4, 1, 0],
        [1, 0, 0, 0],
        [3, 5, 2, 1],
        [len(T5_PIECES), 1, 0, 0],
    ]
    assert tokenizer.backend.token_to_id("<extra_id_0>") == len(T5_PIECES) + 99


def lone_vocabulary(folder: Path) -> None:
    (folder / "vocab.json").write_text("{}", encoding="utf-8")


def foreign_merges(folder: Path) -> None:
    vocab = {"<|startoftext|>": 0, "<|endoftext|>": 1, "f": 2}
    (folder / "vocab.json").write_text(json.dumps(vocab), encoding="utf-8")
    (folder / "merges.txt").write_text("#version: 0.2\nf o\n", encoding="utf-8")


def numbers_that_are_none(folder: Path) -> None:
    foreign_merges(folder)
    (folder / "vocab.json").write_text('{"<|startoftext|>": 0, "<|endoftext|>": "one"}', encoding="utf-8")


def half_a_character(folder: Path) -> None:
    foreign_merges(folder)
    words = '{"<|startoftext|>": 0, "<|endoftext|>": 1, "f": 2, "o": 3, "fo": 4, "\\ud800": 5}'
    (folder / "vocab.json").write_text(words, encoding="utf-8")


def characters_that_are_none(folder: Path) -> None:
    """A SentencePiece model whose table of characters is one byte long."""
    table = b"\x12" + varint(1) + b"\xff"
    (folder / "spiece.model").write_bytes(spiece(*T5_PIECES) + b"\x1a" + varint(len(table)) + table)


def no_padding(folder: Path) -> None:
    Backend(models.WordLevel({"a": 0}, unk_token="a")).save(str(folder / "tokenizer.json"))


def text(content: str | bytes, name: str = "tokenizer.json") -> Callable[[Path], None]:
    def spoil(folder: Path) -> None:
        (folder / name).write_bytes(content.encode() if isinstance(content, str) else content)

    return spoil


BROKEN: dict[str, tuple[Callable[[Path], None], type[FluxoneError], str]] = {
    "empty folder": (lambda folder: None, MissingParts, "spiece.model"),
    "no merges": (lone_vocabulary, MissingParts, "merges.txt"),
    "merges of another model": (foreign_merges, BadFile, "'o'"),
    "not JSON": (text("hello"), BadFile, "not JSON"),
    "cut JSON": (text('{"model": {"type"'), BadFile, "not JSON"),
    "not text": (text(b"\xff\xfe\x00\x80"), BadFile, "not a text file"),
    "a list": (text("[1]"), BadFile, "no JSON object"),
    "another JSON": (text('{"hello": 1}'), BadFile, "`model`"),
    "another kind": (text('{"model": {"type": "Nope"}}'), BadFile, "cannot be read"),
    "deep JSON": (text("[" * 100_000), BadFile, "not JSON"),
    "half a character": (half_a_character, BadFile, "no character"),
    "words without numbers": (numbers_that_are_none, BadFile, "numbers"),
    "a table of no characters": (characters_that_are_none, BadFile, "cannot be read"),
    "no padding": (no_padding, BadFile, "pad_token"),
    "not SentencePiece": (text(b"hello world", "spiece.model"), BadFile, "SentencePiece"),
    "cut SentencePiece": (text(spiece(*T5_PIECES)[:40], "spiece.model"), BadFile, "SentencePiece"),
    "SentencePiece without an end": (text(spiece(*T5_PIECES[2:]), "spiece.model"), BadFile, "</s>"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_folders_say_what_is_wrong(name: str, tmp_path: Path) -> None:
    spoil, error, words = BROKEN[name]
    spoil(tmp_path)
    with pytest.raises(error, match=words) as caught:
        load_tokenizer(tmp_path)
    assert str(tmp_path) in str(caught.value) or "vocabulary" in str(caught.value)


def test_a_tokenizer_that_cannot_read_says_so(tmp_path: Path) -> None:
    Backend(models.WordLevel({"<pad>": 0, "a": 1}, unk_token="<unk>")).save(str(tmp_path / "tokenizer.json"))
    tokenizer = load_tokenizer(tmp_path)
    assert tokenizer.encode(["a"], 2).tolist() == [[1, 0]]
    for read in (tokenizer.longest, lambda prompts: tokenizer.fit(prompts, 2)):
        with pytest.raises(BadFile, match="cannot read the prompt"):
            read(["fox"])


@pytest.mark.parametrize("odd", [5, None, ["a"], {"a": 1}, {"content": 5}])
def test_special_tokens_that_are_none_are_guessed(odd: object, tmp_path: Path) -> None:
    config = dict.fromkeys(("pad_token", "bos_token", "eos_token", "model_max_length"), odd)
    tokenizer = load_tokenizer(write_words(tmp_path, config))
    assert tokenizer.encode(["a"], 3).tolist() == [[3, 1, 0]]
    (tmp_path / "tokenizer.json").unlink()
    (tmp_path / "spiece.model").write_bytes(spiece(*T5_PIECES))
    assert load_tokenizer(tmp_path).encode(["a"], 3).tolist() == [[3, 1, 0]]


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(MissingParts, match=r"tokenizer\.json"):
        load_tokenizer(tmp_path / "tokenizer.json")
