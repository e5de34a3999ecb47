"""Prompts to what the network reads of them: T5's hidden states and CLIP's pooled state.

prompt --T5 tokenizer, T5--> txt (T rows, padding included)      clip_prompt --CLIP--> pooled

Weights of words (`emphasis`) change T5's rows; the pooled state has none that could be weighed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Float
from torch import Tensor

from fluxone.errors import BadWeights, pick
from fluxone.nn import graphs
from fluxone.nn.clip import ClipTextEncoder
from fluxone.nn.t5 import T5Encoder
from fluxone.text import emphasis as weighing
from fluxone.text.inversion import OwnWords, Words
from fluxone.text.tokenizers import Ids, Tokenizer

CLIP_LENGTH = 77
COMFY_LEAST = 256  # tokens


@dataclass(frozen=True, kw_only=True)
class Text:
    """A batch of prompts, encoded.

    Attributes:
        cut, clip_cut: how many tokens of each prompt T5 and CLIP did not see, because they did not fit.
    """

    txt: Float[Tensor, "B T D"]
    pooled: Float[Tensor, "B V"]
    cut: tuple[int, ...]
    clip_cut: tuple[int, ...]


def fixed(longest: int, tokens: int) -> int:
    """Return the length asked for: longer prompts are cut, shorter ones padded."""
    return tokens


def at_least(longest: int, tokens: int) -> int:
    """Return ComfyUI's length: 256 or what the prompt needs, whatever was asked for."""
    return max(COMFY_LEAST, longest)


LENGTHS: dict[str, Callable[[int, int], int]] = {
    "bfl": fixed,
    "comfy": at_least,
    "diffusers": fixed,
    "exact": fixed,
}


def _known(words: Ids, vocabulary: int, name: str) -> None:
    largest = int(words.ids.max())
    if largest >= vocabulary:
        raise BadWeights(
            f"the {name} tokenizer gives token {largest}, and its encoder has {vocabulary}",
            hint="tokenizer and encoder are of different models",
        )


@dataclass(frozen=True)
class TextEncoders:
    """The two encoders with their tokenizers."""

    t5: T5Encoder
    clip: ClipTextEncoder
    t5_tokenizer: Tokenizer
    clip_tokenizer: Tokenizer
    clip_length: int = CLIP_LENGTH

    @cached_property
    def own(self) -> OwnWords:
        """Words with vectors of their own."""
        table = self.clip.text_model.embeddings.token_embedding
        encoders = {"clip": Words(self.clip_tokenizer, table), "t5": Words(self.t5_tokenizer, self.t5.shared)}
        return OwnWords(encoders)

    def record(self) -> None:
        """Have both replay their calls on CUDA, where they wait for launches longer than they compute."""
        graphs.record(self.t5, keep=lambda ids: self.t5.encoder.places(ids.shape[1], ids.device))
        graphs.record(self.clip)

    @torch.no_grad()
    def encode(
        self,
        prompts: Sequence[str],
        clip_prompts: Sequence[str] | None = None,
        *,
        tokens: int,
        compat: str = "exact",
        emphasis: str = "off",
    ) -> Text:
        """Return the prompts encoded, on the encoders' device and in their type.

        Args:
            clip_prompts: other words for CLIP; the same where None.
            tokens: length that T5's rows are padded or cut to.
            compat: whose lengths to use, a row of `LENGTHS`. With `comfy` a batch is as long as its longest
                prompt, so prompts beyond 256 tokens are best encoded one by one.
            emphasis: whether brackets in prompts are weights; see `text.emphasis`.

        Raises:
            UnknownName: `compat` is no row.
            BadWeights: a tokenizer has tokens that its encoder has not.
        """
        rule = pick(LENGTHS, compat, "compatibility profile")
        own, clip_own = self.own.encoders["t5"], self.own.encoders["clip"]
        heard = prompts if clip_prompts is None else clip_prompts
        read = [weighing.read(own.placed(prompt), emphasis) for prompt in prompts]
        others = [weighing.read(clip_own.placed(prompt), emphasis) for prompt in heard]
        plain = [prompt.text for prompt in read]
        length = rule(self.t5_tokenizer.longest(plain), tokens)
        words = own.coded(self.t5_tokenizer.fit(plain, length))
        clip_words = clip_own.coded(self.clip_tokenizer.fit([prompt.text for prompt in others], self._clip_length()))
        _known(words, self.t5.shape.vocab, "T5")
        _known(clip_words, self.clip.shape.vocab, "CLIP")
        txt = self._weighed(self.t5(words.ids.to(self.t5.shared.weight.device)), read)
        embedding = self.clip.text_model.embeddings.token_embedding
        _, pooled = self.clip(clip_words.ids.to(embedding.weight.device))
        return Text(txt=txt, pooled=pooled, cut=words.cut, clip_cut=clip_words.cut)

    def _weighed(self, txt: Float[Tensor, "B T D"], read: Sequence[weighing.Weighted]) -> Float[Tensor, "B T D"]:
        if not any(prompt.weights for prompt in read):
            return txt
        length = txt.shape[1]
        (empty,) = self.t5(self.t5_tokenizer.encode([""], length).to(self.t5.shared.weight.device))
        rows = [
            weighing.weigh(row, empty, prompt.weights, self.t5_tokenizer.places(prompt.text, length))
            if prompt.weights
            else row
            for row, prompt in zip(txt, read, strict=True)
        ]
        return torch.stack(rows)

    def _clip_length(self) -> int:
        return min(self.clip_length, self.clip.shape.positions, self.clip_tokenizer.limit or self.clip_length)
