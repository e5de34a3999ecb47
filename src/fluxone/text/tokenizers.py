"""Prompts to token ids, from the files that published models come with.

A tokenizer's folder holds one of: `tokenizer.json` (any kind), `vocab.json` with `merges.txt` (CLIP), or
`spiece.model` (T5). Which tokens pad and end is read from `tokenizer_config.json` or `special_tokens_map.json`
beside it. It knows nothing of models.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Int
from tokenizers import Encoding
from tokenizers import Tokenizer as Backend
from torch import Tensor

from fluxone.errors import BadFile, MissingParts
from fluxone.text import clip_bpe, sentencepiece

ENDLESS = 10**9  # configurations say "no limit" with a number beyond this
SPECIAL = ("bos_token", "eos_token", "pad_token")
MOST = 2**32  # token ids are below
AGAIN = "download it again"
SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")  # JSON's half of a character; two make one
GUESSES = ("<pad>", "[PAD]", "<|endoftext|>", "</s>")  # padding, where no file names it


@dataclass(frozen=True, kw_only=True)
class Ids:
    """Token ids of a batch, and how many tokens of each prompt did not fit."""

    ids: Int[Tensor, "B T"]
    cut: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class Tokenizer:
    """A vocabulary with its padding.

    Attributes:
        pad: id that fills up short prompts.
        limit: longest row that the files say the model takes, special tokens included; None for no limit.
        pad_left, cut_left: whether rows are filled, and cut, at their beginning, as no published FLUX.1 does.
    """

    backend: Backend
    pad: int
    limit: int | None = None
    pad_left: bool = False
    cut_left: bool = False

    @property
    def special(self) -> int:
        """Tokens that every row has besides those of the prompt: the end, and for CLIP the start."""
        return int(self.backend.num_special_tokens_to_add(False))

    def longest(self, prompts: Sequence[str]) -> int:
        """Return the length that the longest of the prompts has, special tokens included."""
        return max((len(row.ids) for row in self._rows(prompts, special=True)), default=0)

    def fit(self, prompts: Sequence[str], length: int) -> Ids:
        """Return rows of exactly `length` ids: cut inside the special tokens, or padded outside them."""
        room = max(length - self.special, 0)
        rows, cut = [], []
        for row in self._rows(prompts, special=False):
            cut.append(max(len(row.ids) - room, 0))
            row.truncate(room, direction="left" if self.cut_left else "right")
            ids = self._completed(row).ids[:length]
            padding = [self.pad] * (length - len(ids))
            rows.append(padding + ids if self.pad_left else ids + padding)
        return Ids(ids=torch.tensor(rows, dtype=torch.int64).reshape(len(rows), length), cut=tuple(cut))

    def places(self, prompt: str, length: int) -> list[tuple[int, int]]:
        """Return where in the prompt each id of `fit` comes from: its first character and the one after its last."""
        row = self.backend.encode(prompt, add_special_tokens=False)
        row.truncate(max(length - self.special, 0))
        return list(self._completed(row).offsets[:length])

    def encode(self, prompts: Sequence[str], length: int) -> Int[Tensor, "B T"]:
        """Return the ids of `fit` alone."""
        return self.fit(prompts, length).ids

    def _rows(self, prompts: Sequence[str], *, special: bool) -> list[Encoding]:
        with _telling("the tokenizer cannot read the prompt"):
            rows: list[Encoding] = self.backend.encode_batch(list(prompts), add_special_tokens=special)
            return rows

    def _completed(self, row: Encoding) -> Encoding:
        """The row with its special tokens."""
        with _telling("the tokenizer names special tokens that it lacks"):
            return self.backend.post_process(row)


def load_tokenizer(source: str | Path) -> Tokenizer:
    """Read a tokenizer from its folder, or from one of its files with the others beside it.

    Raises:
        MissingParts: the folder holds none of the files that make a tokenizer.
        BadFile: a file is broken or not what its name says.
    """
    path = Path(source)
    folder = path if path.is_dir() else path.parent
    names = READERS if path.is_dir() else {path.name: READERS.get(path.name, _json)}
    found = next((name for name in names if (folder / name).is_file()), None)
    if found is None:
        raise MissingParts(
            f"no tokenizer in {path}", hint=f"it needs one of {', '.join(READERS)} (CLIP: and merges.txt)"
        )
    tokens = _special_tokens(folder)
    backend = names[found](folder / found, tokens)
    backend.no_truncation()
    backend.no_padding()
    return Tokenizer(
        backend=backend,
        pad=_pad(backend, tokens, folder),
        limit=_limit(tokens),
        pad_left=tokens.get("padding_side") == "left",
        cut_left=tokens.get("truncation_side") == "left",
    )


def _json(path: Path, tokens: dict[str, Any]) -> Backend:
    content = read_object(path)
    if not isinstance(content.get("model"), dict):
        raise BadFile(f"{path} has no `model`", hint="it should be a tokenizer.json of the tokenizers library")
    with _telling(f"{path} cannot be read"):
        return Backend.from_str(json.dumps(content))


def _clip(path: Path, tokens: dict[str, Any]) -> Backend:
    merges = path.with_name("merges.txt")
    if not merges.is_file():
        raise MissingParts(f"{path} lacks its merges.txt", hint=f"put it into {path.parent}")
    lines, vocab = _text(merges).splitlines(), read_object(path)
    if not all(type(number) is int and 0 <= number < MOST for number in vocab.values()):
        raise BadFile(f"{path} is no table of words and their numbers", hint=AGAIN)
    with _telling(f"{path} cannot be read"):
        return clip_bpe.build(vocab, lines, start=tokens.get("bos_token"), end=tokens.get("eos_token"))


def _sentencepiece(path: Path, tokens: dict[str, Any]) -> Backend:
    with _telling(f"{path} cannot be read"):
        return sentencepiece.build(_bytes(path), end=tokens.get("eos_token"), source=str(path))


# File names in the order in which they are preferred.
READERS = {"tokenizer.json": _json, "vocab.json": _clip, "spiece.model": _sentencepiece}


def read_object(path: Path) -> dict[str, Any]:
    """Return the JSON object in a file.

    Raises:
        BadFile: it is not UTF-8, not JSON, or not an object; or half a character is in it.
    """
    text = _text(path)
    try:
        content = json.loads(text)
        if SURROGATE.search(text):
            json.dumps(content, ensure_ascii=False).encode("utf-8")
    except UnicodeEncodeError as error:
        raise BadFile(f"{path} holds {error.object[error.start]!r}, which is no character", hint=AGAIN) from None
    except (ValueError, RecursionError) as error:
        raise BadFile(f"{path} is not JSON ({error})", hint=AGAIN) from None
    if not isinstance(content, dict):
        raise BadFile(f"{path} holds no JSON object", hint=AGAIN)
    return content


def _text(path: Path) -> str:
    try:
        return _bytes(path).decode("utf-8")
    except UnicodeDecodeError:
        raise BadFile(f"{path} is not a text file", hint=AGAIN) from None


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise BadFile(f"{path} cannot be read: {error.strerror or error}", hint="check its rights") from None


@contextmanager
def _telling(what: str) -> Iterator[None]:
    """Say what the tokenizers library finds wrong; it raises a bare `Exception`, or panics."""
    try:
        yield
    except BaseException as error:
        if type(error) is not Exception and type(error).__name__ != "PanicException":
            raise
        raise BadFile(f"{what}: {error}", hint="the tokenizer's files are broken: download them again") from None


def _special_tokens(folder: Path) -> dict[str, Any]:
    """Return what the configurations in a folder say, special tokens as plain strings, null where they are none."""
    merged: dict[str, Any] = {}
    for name in ("special_tokens_map.json", "tokenizer_config.json"):
        if (folder / name).is_file():
            merged |= read_object(folder / name)
    plain = {key: value.get("content", value) if isinstance(value, dict) else value for key, value in merged.items()}
    return plain | {key: None for key in SPECIAL if not isinstance(plain.get(key), str)}


def _pad(backend: Backend, tokens: dict[str, Any], folder: Path) -> int:
    for token in (tokens.get("pad_token"), *GUESSES):
        pad = None if token is None else backend.token_to_id(token)
        if pad is not None:
            return int(pad)
    raise BadFile(f"the tokenizer in {folder} names no padding", hint="give `pad_token` in its tokenizer_config.json")


def _limit(tokens: dict[str, Any]) -> int | None:
    limit = tokens.get("model_max_length")
    return int(limit) if isinstance(limit, (int, float)) and 0 < limit < ENDLESS else None
