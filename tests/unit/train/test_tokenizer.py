"""Words outside quotes, characters inside; the same through transformers' loader."""

from __future__ import annotations

from pathlib import Path

import pytest

from fluxone.train import tokenizer as tokens

KNOWN = ["red", "car", "to", "left", "of", "house", "in", "snow", "sign", "that", "says", ",", "."]


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ("A red Car to the left of a HOUSE", "red car to left of house </s>"),
        ('a sign that says "Hi a!"', 'sign that says " H i   a ! " </s>'),
        ("red car, in the snow.", "red car , in snow . </s>"),
        ("", "</s>"),
        ("red zebra", "red <unk> </s>"),
        ('red "car', 'red " car </s>'),
        ("a sign “OK”", 'sign " O K " </s>'),
    ],
)
def test_tokens(prompt: str, expected: str) -> None:
    assert " ".join(tokens.build(KNOWN).encode(prompt).tokens) == expected


def test_encode_cuts_and_keeps_the_end() -> None:
    tokenizer = tokens.build(KNOWN)
    (short, long) = tokens.encode(tokenizer, ["red car", "red car " * 30], 8)
    end, pad = tokenizer.token_to_id(tokens.END), tokenizer.token_to_id(tokens.PAD)
    assert short[2:] == [end] + [pad] * 5
    assert len(long) == 8
    assert long[-1] == end


def test_transformers_reads_the_same(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    tokenizer = tokens.build(KNOWN)
    tokens.save(tokenizer, tmp_path, 12)
    theirs = transformers.PreTrainedTokenizerFast.from_pretrained(tmp_path)
    prompts = ['a red sign that says "Snow"', "house " * 40, ""]
    found = theirs(prompts, padding="max_length", truncation=True, max_length=12)["input_ids"]
    assert found == tokens.encode(tokenizer, prompts, 12)
