"""Words of one's own (textual inversion): each stands for vectors that are put where its tokens would be.

    "a <fox> in snow" --placed--> "a ⟦0⟧⟦1⟧ in snow" --tokenizer--> ..., -1, -2, ... --embedding--> ..., v0, v1, ...

A word of n vectors becomes n signs of Unicode's private planes, which no prompt holds; the tokenizer learns those as
tokens, and they reach the encoder as negative numbers, so that no rule about the largest id (CLIP's end) sees them.
The table of vectors that the encoder has is not touched: hooks put the rows in. Source: Gal et al. 2022.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from jaxtyping import Float, Int
from tokenizers import AddedToken
from torch import Tensor, nn

from fluxone.errors import BadRequest, BadWeights
from fluxone.text.tokenizers import Ids, Tokenizer

SIGNS = 0xF0000  # first of Unicode's private characters beyond the base plane
MOST = 0xFFFD  # of them
# What files call the encoders. Source: diffusers' trainers, ComfyUI, OneTrainer.
ENCODERS = {"clip_l": "clip", "clip": "clip", "t5": "t5", "t5xxl": "t5", "t5_xxl": "t5"}


class Words:
    """The own words of one encoder."""

    def __init__(self, tokenizer: Tokenizer, embedding: nn.Embedding) -> None:
        self.tokenizer, self.embedding = tokenizer, embedding
        self.signs: dict[str, str] = {}  # word -> the signs in its place
        self._rows: list[Tensor] = []
        self._numbers: dict[int, int] = {}  # token -> row
        self._hooks: list[torch.utils.hooks.RemovableHandle] = []
        self._own: Tensor | None = None  # of the row of ids that is being embedded: which rows are own, or -1

    def add(self, word: str, vectors: Float[Tensor, "N D"]) -> None:
        """Let the word stand for these vectors.

        Raises:
            BadWeights: they are not as wide as the encoder's.
        """
        width = self.embedding.weight.shape[1]
        if vectors.ndim != 2 or vectors.shape[1] != width or not 0 < len(vectors) <= MOST - len(self._rows):
            raise BadWeights(
                f"the vectors of {word!r} are of shape {tuple(vectors.shape)}, the encoder takes (N, {width})",
                hint="use the file with the model that it was made for",
            )
        signs = "".join(chr(SIGNS + len(self._rows) + i) for i in range(len(vectors)))
        backend = self.tokenizer.backend
        backend.add_tokens([AddedToken(sign, normalized=False) for sign in signs])
        for sign, row in zip(signs, vectors.detach().float().cpu(), strict=True):
            token = backend.token_to_id(sign)
            assert token is not None, "it was just added"
            self._numbers[token] = len(self._rows)
            self._rows.append(row)
        self.signs[word] = signs
        if not self._hooks:
            before, after = self.embedding.register_forward_pre_hook, self.embedding.register_forward_hook
            self._hooks = [before(self._before), after(self._after)]

    def drop(self, word: str) -> None:
        """Let the word be a word again."""
        self.signs.pop(word, None)
        while self._hooks and not self.signs:
            self._hooks.pop().remove()

    def placed(self, prompt: str) -> str:
        """The prompt with signs in place of own words, the longest first."""
        for word in sorted(self.signs, key=len, reverse=True):
            prompt = prompt.replace(word, self.signs[word])
        return prompt

    def coded(self, words: Ids) -> Ids:
        """The ids with own rows as -1, -2, ..."""
        if not self.signs:
            return words
        ids = words.ids.clone()
        for token, row in self._numbers.items():
            ids[words.ids == token] = -1 - row
        return Ids(ids=ids, cut=words.cut)

    def _before(self, module: nn.Module, args: tuple[Int[Tensor, "B T"]]) -> tuple[Tensor]:
        (ids,) = args
        self._own = -1 - ids
        return (ids.clamp(min=0),)

    def _after(self, module: nn.Module, args: object, out: Float[Tensor, "B T D"]) -> Tensor:
        assert self._own is not None, "the hooks run in pairs"
        own, self._own = self._own, None
        here = own >= 0
        if not here.any():
            return out
        out = out.clone()
        out[here] = torch.stack([self._rows[row] for row in own[here].tolist()]).to(out)
        return out


@dataclass(frozen=True)
class OwnWords:
    """The own words of both encoders, and which of them an adapter has brought."""

    encoders: Mapping[str, Words]
    brought: set[str] = field(default_factory=set)

    @property
    def names(self) -> list[str]:
        """All own words."""
        return list(dict.fromkeys(word for words in self.encoders.values() for word in words.signs))

    def add(self, word: str, vectors: Mapping[str, Float[Tensor, "N D"]]) -> None:
        """Let a word stand for vectors in the encoders that are named; the others read it as it is written.

        Raises:
            BadRequest: there is such a word already, or it is no word.
            BadWeights: an encoder is not known, or its vectors are of another width.
        """
        if not word.strip():
            raise BadRequest("an own word is empty", hint="give it a name, such as <fox>")
        if strange := [name for name in vectors if name not in ENCODERS]:
            raise BadWeights(f"{word!r} has vectors for {', '.join(strange)}", hint="clip_l and t5 are known")
        if any(word in self.encoders[ENCODERS[name]].signs for name in vectors):
            raise BadRequest(f"there is an own word {word!r} already", hint="give another name, or unload it first")
        added: list[Words] = []
        try:
            for name, rows in vectors.items():
                self.encoders[ENCODERS[name]].add(word, rows)
                added.append(self.encoders[ENCODERS[name]])
        except BadWeights:
            for words in added:
                words.drop(word)
            raise

    def drop(self, word: str) -> None:
        """Let the word be a word again."""
        for words in self.encoders.values():
            words.drop(word)
        self.brought.discard(word)

    def follow(self, bundled: Mapping[str, Mapping[str, Tensor]]) -> None:
        """Have exactly these words of adapters, beside those that came alone.

        Raises:
            BadRequest, BadWeights: see `add`.
        """
        for word in self.brought - bundled.keys():
            self.drop(word)
        for word, vectors in bundled.items():
            if word not in self.brought:
                self.add(word, vectors)
                self.brought.add(word)
