"""The mini models' tokenizer: one token a word, one token a character inside double quotes.

    a red sign that says "Hi!"   ->   red sign that says " H i ! " </s>

Articles carry nothing in the storybook world and are dropped; case matters only inside quotes. It is an
ordinary `tokenizer.json`: any tool that reads such files reads this one.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, processors

PAD, END, UNKNOWN = "<pad>", "</s>", "<unk>"
CHARACTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789 !?&'-.,"
ARTICLES = ("a", "an", "the")
OUTSIDE = r'(?=[^"]*(?:"[^"]*"[^"]*)*$)'  # an even number of quotes follows
LONGEST_TEXT = 64  # characters inside one pair of quotes


def build(words: Sequence[str]) -> Tokenizer:
    """A tokenizer that knows these words (lower case) and every printable character of the signs."""
    known = dict.fromkeys([PAD, END, UNKNOWN, '"', *CHARACTERS, *sorted(words)])
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(known)}, unk_token=UNKNOWN))
    lower = [normalizers.Replace(Regex(f"{c}{OUTSIDE}"), c.lower()) for c in "ABCDEFGHIJKLMNOPQRSTUVWXYZ"]
    articles = normalizers.Replace(Regex(rf"\b(?:{'|'.join(ARTICLES)})\b{OUTSIDE}"), "")
    curly = [normalizers.Replace(mark, '"') for mark in "“”"]
    tokenizer.normalizer = normalizers.Sequence([*curly, *lower, articles, normalizers.Strip()])
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(r'"[^"]*"|"'), "isolated"),
            pre_tokenizers.Split(Regex(rf'"|[^"](?=[^"]{{0,{LONGEST_TEXT}}}")'), "isolated"),
            pre_tokenizers.Split(Regex(r"(?<=\S)\s+|\s+(?=\S)"), "removed"),
            pre_tokenizers.Split(Regex(r"[,.;:!?()]"), "isolated"),
        ]
    )
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"$A {END}", special_tokens=[(END, tokenizer.token_to_id(END))]
    )
    tokenizer.add_special_tokens([PAD, END, UNKNOWN])
    return tokenizer


def save(tokenizer: Tokenizer, folder: Path, length: int) -> None:
    """Write the folder that transformers' and our own loaders read: `tokenizer.json` and its config."""
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": length,
        "pad_token": PAD,
        "eos_token": END,
        "unk_token": UNKNOWN,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def encode(tokenizer: Tokenizer, prompts: Sequence[str], length: int) -> list[list[int]]:
    """Token numbers of every prompt, cut to `length` with the end token kept, then padded."""
    known = tokenizer.get_vocab()
    pad, end = known[PAD], known[END]
    rows: list[list[int]] = []
    for row in tokenizer.encode_batch(list(prompts)):
        ids = row.ids if len(row.ids) <= length else [*row.ids[: length - 1], end]
        rows.append(ids + [pad] * (length - len(ids)))
    return rows
