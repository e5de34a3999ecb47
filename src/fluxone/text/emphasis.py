"""Weights of a prompt's words: `a (red:1.3) car`, as AUTOMATIC1111 and ComfyUI spell them.

    "a (red:1.3) car"  --read-->  "a red car", and 1.3 for the letters of "red"
    T5's rows of those letters  --weigh-->  empty + 1.3 * (row - empty), `empty` the same row of the empty prompt

`(words)` is 1.1, `(words:1.3)` the number, `[words]` 1/1.1; nested ones multiply. A backslash before a bracket or a
backslash makes it the character itself, and so are brackets that are not closed in order. A number counts if it lies
within -10 and 10 and the words hold a letter: `(16:9)` is no weight. Words are tokenised as if no bracket were there.

Source: AUTOMATIC1111, `prompt_parser.parse_prompt_attention`; ComfyUI, `sd1_clip.ClipTokenWeightEncoder`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

STEP = 1.1  # of a bracket without a number
MOST = 10.0
NUMBER = re.compile(r":\s*([+-]?(?:\d+\.?\d*|\.\d+))\s*$")
ESCAPED = "()[]\\"


@dataclass(frozen=True)
class Weighted:
    """A prompt without its brackets, and the weight of each of its characters; no weights means 1 throughout."""

    text: str
    weights: tuple[float, ...] = ()


def read(prompt: str, emphasis: str) -> Weighted:
    """Read a prompt's weights.

    Args:
        emphasis: a row of `request.EMPHASES`: `off` leaves the prompt as it is, `on` reads every bracket, `auto` reads
            them where at least one has a number.
    """
    plain = Weighted(prompt)
    if emphasis == "off" or not any(sign in prompt for sign in "(["):
        return plain
    letters, weights, numbered = _parsed(prompt)
    if emphasis == "auto" and not numbered:
        return plain
    text = "".join(letters)
    return Weighted(text, tuple(weights)) if any(weight != 1 for weight in weights) else Weighted(text)


def _parsed(prompt: str) -> tuple[list[str], list[float], bool]:
    """Characters, their weights, and whether any bracket has a number."""
    letters: list[str] = []
    weights: list[float] = []
    opened: list[tuple[str, int]] = []  # bracket that closes it, and its place
    numbered, i = False, 0
    while i < len(prompt):
        sign = prompt[i]
        if sign == "\\" and prompt[i + 1 : i + 2] and prompt[i + 1] in ESCAPED:
            i, sign = i + 1, prompt[i + 1]
        elif sign in "([":
            opened.append((")" if sign == "(" else "]", len(letters)))
        elif opened and sign == opened[-1][0]:
            _, start = opened.pop()
            del letters[start], weights[start]
            number = _number(letters, start) if sign == ")" else None
            if number is not None:
                numbered = True
                del letters[number[1] :], weights[number[1] :]
            factor = number[0] if number is not None else STEP if sign == ")" else 1 / STEP
            weights[start:] = [weight * factor for weight in weights[start:]]
            i += 1
            continue
        letters.append(sign)
        weights.append(1.0)
        i += 1
    return letters, weights, numbered


def _number(letters: Sequence[str], start: int) -> tuple[float, int] | None:
    """The weight that the words from `start` on end with, and where its colon is."""
    words = "".join(letters[start:])
    found = NUMBER.search(words)
    if found is None or not any(sign.isalpha() for sign in words[: found.start()]) or abs(float(found[1])) > MOST:
        return None
    return float(found[1]), start + found.start()


def weigh(
    row: Float[Tensor, "T D"], empty: Float[Tensor, "T D"], weights: Sequence[float], places: Sequence[tuple[int, int]]
) -> Float[Tensor, "T D"]:
    """The encoded prompt with the weights of its words.

    Args:
        empty: the empty prompt, encoded to the same length.
        weights: of each character.
        places: first character of each token, and the one after its last; a token weighs what its last letter does.
    """
    factors = [weights[end - 1] if end > start else 1.0 for start, end in places]
    factors += [1.0] * (len(row) - len(factors))
    factor = torch.tensor(factors, dtype=torch.float32, device=row.device)[:, None]
    moved = empty.float() + factor * (row.float() - empty.float())
    return torch.where(factor == 1, row, moved.to(row.dtype))
