"""Fresh parts of a mini model, in the shapes that a `train.config.Model` gives."""

from __future__ import annotations

import random

import torch
from tokenizers import Tokenizer
from torch import nn

from fluxone import storybook
from fluxone.nn.clip import ClipTextEncoder
from fluxone.nn.siglip import ReduxEmbedder, SiglipEncoder
from fluxone.nn.t5 import T5Encoder
from fluxone.nn.transformer import Flux
from fluxone.shapes import ClipShape, FluxShape, ReduxShape, SiglipShape, T5Shape
from fluxone.storybook import Scene
from fluxone.train.config import Model
from fluxone.train.tokenizer import END

EMBEDDING_STD = 0.5
WEIGHT_STD = 0.02
EYE = SiglipShape(hidden=192, layers=4, heads=3, mlp=768, size=128, patch=16)


def flux_shape(model: Model) -> FluxShape:
    """The transformer's shape."""
    return FluxShape(
        in_channels=model.in_channels,
        guided=model.guided,
        hidden=model.hidden,
        heads=model.heads,
        axes=model.axes,
        double_blocks=model.double_blocks,
        single_blocks=model.single_blocks,
        text_dim=model.text_hidden,
        vec_dim=model.clip_hidden,
    )


def text_shapes(model: Model, tokenizer: Tokenizer) -> tuple[T5Shape, ClipShape]:
    """The encoders' shapes; the vocabulary is rounded up to a multiple of 8."""
    vocab = -(-tokenizer.get_vocab_size() // 8) * 8
    t5 = T5Shape(
        vocab=vocab,
        hidden=model.text_hidden,
        layers=model.text_layers,
        heads=model.text_heads,
        head_dim=model.text_hidden // model.text_heads,
        mlp=model.text_mlp,
        max_distance=model.text_tokens,
    )
    clip = ClipShape(
        vocab=vocab,
        hidden=model.clip_hidden,
        layers=model.clip_layers,
        heads=model.clip_heads,
        mlp=model.clip_mlp,
        positions=model.text_tokens,
        eos=tokenizer.get_vocab()[END],
    )
    return t5, clip


def text_encoders(model: Model, tokenizer: Tokenizer) -> tuple[T5Encoder, ClipTextEncoder]:
    """Untrained encoders; draws from torch's global generator."""
    t5_shape, clip_shape = text_shapes(model, tokenizer)
    t5, clip = T5Encoder(t5_shape), ClipTextEncoder(clip_shape)
    for module in (t5, clip):
        _start(module)
    with torch.no_grad():  # T5 does not scale its attention by 1 / sqrt(head_dim); its queries start smaller instead
        for name, p in t5.named_parameters():
            if name.endswith("SelfAttention.q.weight"):
                p.mul_(t5_shape.head_dim**-0.5)
    return t5.train(), clip.train()


def pace(name: str, t5: T5Shape) -> float:
    """Share of the learning rates that a parameter of the mini takes.

    T5 does not divide its attention by sqrt(head_dim): its queries are that much smaller, and so must their steps
    be. At the full rate the logits grow until every token sees one other, and word order is lost.
    """
    return t5.head_dim**-0.5 if name.startswith("t5.") and name.endswith("SelfAttention.q.weight") else 1.0


def transformer(model: Model) -> Flux:
    """An untrained transformer that predicts zero velocity: modulation and output start at zero."""
    flux = Flux(flux_shape(model))
    _start(flux)
    with torch.no_grad():
        for name, p in flux.named_parameters():
            if ".lin." in name or "adaLN" in name or name.startswith("final_layer.linear"):
                p.zero_()
    return flux.train()


def frozen_copy(flux: Flux) -> Flux:
    """The network without what is hooked to it."""
    made = Flux(flux.shape)
    made.load_state_dict(flux.state_dict())
    made.attend = flux.attend
    return made.to(next(flux.parameters()).device).requires_grad_(False).eval()


@torch.no_grad()
def _start(module: nn.Module) -> None:
    """Kaiming-like weights with unit gain, zero biases, one for norms, embeddings wide enough to tell apart."""
    for part in module.modules():
        if isinstance(part, nn.Linear):
            nn.init.normal_(part.weight, std=part.in_features**-0.5)
            if part.bias is not None:
                part.bias.zero_()
        elif isinstance(part, nn.Embedding):
            nn.init.normal_(part.weight, std=EMBEDDING_STD if part.embedding_dim > 64 else WEIGHT_STD)


def caption(scene: Scene, rng: torch.Generator) -> str:
    """A wording of the scene's caption, drawn afresh."""
    return storybook.caption(scene, random.Random(int(torch.randint(1 << 62, (), generator=rng))))


def eye(model: Model) -> tuple[SiglipEncoder, ReduxEmbedder]:
    """What looks at pictures for Redux, and what says them in T5's words."""
    return SiglipEncoder(EYE), ReduxEmbedder(ReduxShape(image=EYE.hidden, text=model.text_hidden))
