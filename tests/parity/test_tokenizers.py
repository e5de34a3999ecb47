"""Our tokenizers against transformers', on small vocabularies made here, and on the real files where there are some.

Set FLUXONE_TOKENIZERS to a folder that holds FLUX.1's `tokenizer_1` (or `tokenizer`: CLIP's vocab.json and
merges.txt) and `tokenizer_2` (T5's tokenizer.json and spiece.model) to compare on those too.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import AddedToken, Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import CLIPTokenizer, PreTrainedTokenizerFast, T5Tokenizer

from fluxone.text.tokenizers import load_tokenizer
from unit.text.test_tokenizers import spiece

PROMPTS = [
    "",
    "a fox",
    'A  RED fox,\n\treading! "Hello World" it\'s 1234',
    "éàü ﬁ ½ 北京 😀 Ａ e\u0301",
    "  spaces before and after  ",
    "<|endoftext|> b <|startoftext|> </s> <pad>",
    "don't 'S ’tis you're we'll I'd\u00a0x\u200by",
    "word " * 200,
    "x" * 10_000,
]
LENGTHS = (5, 77, 256)
LETTERS = "abcdefghijklmnopqrstuvwxyzHIW.,!'"


def clip_folder(folder: Path) -> Path:
    """CLIP's two files with all single bytes and a few merges, as the published ones are made."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    merges = ["f o", "fo x</w>", "r e", "re d</w>", "a n", "h e", "l l", "he ll", "' s</w>"]
    pieces = [*letters, *(letter + "</w>" for letter in letters), *(merge.replace(" ", "") for merge in merges)]
    vocab = {piece: i for i, piece in enumerate([*pieces, "<|startoftext|>", "<|endoftext|>"])}
    (folder / "vocab.json").write_text(json.dumps(vocab), encoding="utf-8")
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *merges]) + "\n", encoding="utf-8")
    tokens = {"bos_token": "<|startoftext|>"} | dict.fromkeys(("eos_token", "pad_token", "unk_token"), "<|endoftext|>")
    (folder / "special_tokens_map.json").write_text(json.dumps(tokens), encoding="utf-8")
    (folder / "tokenizer_config.json").write_text(json.dumps({**tokens, "model_max_length": 77}), encoding="utf-8")
    return folder


def t5_folder(folder: Path) -> Path:
    """A small unigram tokenizer of T5's build."""
    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -2.0), ("▁a", -2.5), ("▁fox", -4.0), ("▁word", -4.0)]
    pieces += [(letter, -6.0) for letter in LETTERS]
    made = Tokenizer(models.Unigram(pieces, unk_id=2))
    made.normalizer = normalizers.Sequence([normalizers.Strip(left=False), normalizers.Replace("  ", "▁")])
    made.pre_tokenizer = pre_tokenizers.Metaspace()
    made.add_special_tokens([AddedToken(token, normalized=False) for token in ("<pad>", "</s>", "<unk>")])
    made.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    made.save(str(folder / "tokenizer.json"))
    tokens = {"pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>", "model_max_length": 512}
    (folder / "tokenizer_config.json").write_text(json.dumps(tokens), encoding="utf-8")
    return folder


def theirs(tokenizer: Any, length: int, prompts: list[str] = PROMPTS) -> torch.Tensor:
    return tokenizer(prompts, padding="max_length", truncation=True, max_length=length, return_tensors="pt").input_ids


def fast(folder: Path) -> PreTrainedTokenizerFast:
    return PreTrainedTokenizerFast(
        tokenizer_file=str(folder / "tokenizer.json"), pad_token="<pad>", eos_token="</s>", unk_token="<unk>"
    )


@pytest.mark.parametrize("length", LENGTHS)
def test_clip_from_vocabulary_and_merges(length: int, tmp_path: Path) -> None:
    folder = clip_folder(tmp_path)
    assert torch.equal(
        load_tokenizer(folder).encode(PROMPTS, length), theirs(CLIPTokenizer.from_pretrained(folder), length)
    )


@pytest.mark.parametrize("length", LENGTHS)
def test_clip_as_transformers_saves_it(length: int, tmp_path: Path) -> None:
    oracle = CLIPTokenizer.from_pretrained(clip_folder(tmp_path))
    oracle.save_pretrained(tmp_path / "saved")
    assert torch.equal(load_tokenizer(tmp_path / "saved").encode(PROMPTS, length), theirs(oracle, length))


@pytest.mark.parametrize("length", LENGTHS)
def test_t5_from_tokenizer_json(length: int, tmp_path: Path) -> None:
    folder = t5_folder(tmp_path)
    for source in (folder, folder / "tokenizer.json"):
        assert torch.equal(load_tokenizer(source).encode(PROMPTS, length), theirs(fast(folder), length))


@pytest.mark.parametrize("length", LENGTHS)
def test_t5_from_sentencepiece(length: int, tmp_path: Path) -> None:
    """The published file's table of characters makes one space of all white space; a table of our own would be ours."""
    scores = [("▁", -2.0), ("▁a", -2.5), ("▁fox", -4.0), ("re", -3.0), *((letter, -6.0) for letter in LETTERS)]
    pieces = [("<pad>", 0.0, 3), ("</s>", 0.0, 3), ("<unk>", 0.0, 2), *((*piece, 1) for piece in scores)]
    (tmp_path / "spiece.model").write_bytes(spiece(*pieces))
    sentinels = [(f"<extra_id_{i}>", 0.0) for i in reversed(range(100))]
    oracle = T5Tokenizer(vocab=[(piece, score) for piece, score, _ in pieces] + sentinels, model_max_length=512)
    prompts = [" ".join(prompt.split(maxsplit=2000)) for prompt in [*PROMPTS, "<extra_id_0> fox <extra_id_99>"]]
    assert torch.equal(load_tokenizer(tmp_path).encode(prompts, length), theirs(oracle, length, prompts))


@pytest.mark.parametrize("side", ["left", "right"])
def test_rows_are_filled_and_cut_at_the_side_that_the_files_say(side: str, tmp_path: Path) -> None:
    oracle = CLIPTokenizer.from_pretrained(clip_folder(tmp_path), padding_side=side, truncation_side=side)
    oracle.save_pretrained(tmp_path / "saved")
    assert torch.equal(load_tokenizer(tmp_path / "saved").encode(PROMPTS, 9), theirs(oracle, 9))


@pytest.mark.skipif("FLUXONE_TOKENIZERS" not in os.environ, reason="FLUXONE_TOKENIZERS names no folder")
@pytest.mark.parametrize("length", LENGTHS)
def test_the_published_files(length: int) -> None:
    root = Path(os.environ["FLUXONE_TOKENIZERS"])
    clip = next(folder for folder in (root / "tokenizer_1", root / "tokenizer") if folder.is_dir())
    t5 = root / "tokenizer_2"
    assert torch.equal(
        load_tokenizer(clip).encode(PROMPTS, length), theirs(CLIPTokenizer.from_pretrained(clip), length)
    )
    for source in (t5, t5 / "spiece.model"):
        assert torch.equal(load_tokenizer(source).encode(PROMPTS, length), theirs(fast(t5), length))
