"""A tiny random model of our own, for tests that need a whole pipeline and no oracle."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from torch import nn

from fluxone.assembly import connect
from fluxone.nn.autoencoder import AutoEncoder
from fluxone.nn.clip import ClipTextEncoder
from fluxone.nn.t5 import T5Encoder
from fluxone.nn.transformer import Flux
from fluxone.pipeline import Pipeline
from fluxone.recipe import Recipe
from fluxone.shapes import AutoEncoderShape, ClipShape, FluxShape, T5Shape
from fluxone.variants import DEV, Variant
from fluxone.weights.load import Bundle

WORDS = ["<pad>", "</s>", "<unk>", "a", "red", "car", "fox", "house", "snow", "blur", "in", "the"]
TINY = replace(
    DEV,
    name="tiny",
    title="tiny",
    shape=FluxShape(
        in_channels=16, out_channels=16, hidden=32, heads=2, axes=(4, 6, 6), double_blocks=2, single_blocks=2,
        text_dim=24, vec_dim=16,
    ),
    text_tokens=8,
    steps=3,
    size=32,
)  # fmt: skip
LATENT = AutoEncoderShape(channels=(8, 8, 16, 16), blocks=1, latent=4, groups=4)


def tokenizer(folder: Path) -> Path:
    """A folder with a tokenizer of whole words."""
    words = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    words.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    folder.mkdir(parents=True, exist_ok=True)
    words.save(str(folder / "tokenizer.json"))
    return folder


def bundle(folder: Path, variant: Variant = TINY, dtype: torch.dtype = torch.float32) -> Bundle:
    """Random weights, always the same, large enough for every part to matter."""
    torch.manual_seed(0)
    modules: dict[str, nn.Module] = {
        "transformer": Flux(variant.shape),
        "autoencoder": AutoEncoder(LATENT),
        "t5": T5Encoder(T5Shape(vocab=len(WORDS), hidden=24, layers=2, heads=2, head_dim=8, mlp=32)),
        "clip": ClipTextEncoder(ClipShape(vocab=len(WORDS), hidden=16, layers=1, heads=2, mlp=32, eos=1)),
    }
    for name, module in modules.items():
        for parameter in module.parameters():
            if parameter.ndim > 1 and name in ("transformer", "autoencoder"):
                nn.init.normal_(parameter, std=1.3 / parameter[0].numel() ** 0.5)
        module.requires_grad_(False).eval().to(torch.float32 if name == "autoencoder" else dtype)
    words = tokenizer(folder)
    hashes = dict.fromkeys(("transformer", "autoencoder", "t5", "clip"), "sha256:0")
    return Bundle(variant=variant, t5_tokenizer=words, clip_tokenizer=words, hashes=hashes, source="tiny", **modules)


def pipeline(folder: Path, variant: Variant = TINY, dtype: torch.dtype = torch.float32, **recipe: object) -> Pipeline:
    """The tiny model, ready to draw on the CPU."""
    return connect(bundle(folder, variant, dtype), Recipe(**({"device": "cpu"} | recipe)))
