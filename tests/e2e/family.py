"""The mini family with tiny random weights, laid out as the package lays out the trained one.

Besides the rows of the package there are rows of other kinds that a family can have: a manner, a row of another
pipeline on the very files of the base.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

from e2e.conftest import tokenizer
from fluxone.lora.delta import Delta, Target
from fluxone.lora.factors import LowRank
from fluxone.lora.load import Lora
from fluxone.lora.save import save_lora
from fluxone.nn.autoencoder import AutoEncoder
from fluxone.nn.clip import ClipTextEncoder
from fluxone.nn.siglip import ReduxEmbedder, SiglipEncoder
from fluxone.nn.t5 import T5Encoder
from fluxone.nn.transformer import Flux
from fluxone.shapes import AutoEncoderShape, ClipShape, FluxShape, Intake, ReduxShape, SiglipShape, T5Shape
from fluxone.variants import FAMILY, MINI, Kind, Variant
from fluxone.weights.keymap import TRANSFORMER
from fluxone.weights.save import save_folder
from fluxone.weights.save_redux import save_redux

SHAPE = FluxShape(hidden=32, heads=2, axes=(4, 6, 6), double_blocks=1, single_blocks=2, text_dim=24, vec_dim=16)
EYE = SiglipShape(hidden=64, layers=1, heads=1, mlp=48, size=32, patch=16)
LORAS = {row.file: row for row in FAMILY if row.lora}
PHOTO = replace(MINI, name="mini-photo", manner="as a photo", raw="mini-photo")
EDITS = replace(MINI, name="mini-edits", pipeline="FluxKontextPipeline", takes=(Kind.REFERENCE,), raw="")
MORE = (PHOTO, EDITS)
ROWS = {row.name: row for row in (*FAMILY, *MORE)}
RANK = 4


def write(assets: Path) -> Path:
    """The family below a folder that stands for the package's; the base's folder."""
    torch.manual_seed(0)
    folder = assets / MINI.assets
    flux = Flux(SHAPE)
    for parameter in flux.parameters():
        if parameter.ndim > 1:
            nn.init.normal_(parameter, std=1.3 / parameter[0].numel() ** 0.5)
    save_folder(
        folder,
        variant=MINI,
        transformer=flux,
        autoencoder=AutoEncoder(AutoEncoderShape(channels=(8, 8, 16, 16), blocks=1, groups=4)),
        t5=T5Encoder(T5Shape(vocab=32, hidden=24, layers=1, heads=2, head_dim=8, mlp=32)),
        clip=ClipTextEncoder(ClipShape(vocab=32, hidden=16, layers=1, heads=2, mlp=32, positions=64, eos=31)),
        tokenizers={"tokenizer": tokenizer(assets.parent / "clip"), "tokenizer_2": tokenizer(assets.parent / "t5")},
    )
    for file, row in LORAS.items():
        save_lora(adapter(flux, row), folder / file, "diffusers")
    write_redux(folder / "redux", SHAPE.text_dim)
    return folder


def write_redux(folder: Path, text: int) -> None:
    """A random Redux for text of so many channels."""
    save_redux(
        folder,
        encoder=SiglipEncoder(EYE),
        embedder=ReduxEmbedder(ReduxShape(image=EYE.hidden, text=text)),
        intake=Intake(height=EYE.size, width=EYE.size, filter=4),
    )


def adapter(flux: Flux, row: Variant) -> Lora:
    """Random factors beside the layers of the blocks and the way in, which takes the row's channels."""
    wide = Flux(replace(flux.shape, in_channels=row.shape.in_channels))
    deltas = []
    for name, layer in wide.named_modules():
        if isinstance(layer, nn.Linear) and (name == "img_in" or ("_blocks." in name and "mod" not in name)):
            down, up = torch.randn(RANK, layer.in_features), torch.randn(layer.out_features, RANK)
            factor = LowRank(down=down * layer.in_features**-0.5, up=up * RANK**-0.5, scale=1.0)
            deltas.append(Delta(target=Target(part=TRANSFORMER, module=name), factor=factor))
    return Lora(deltas=tuple(deltas), metadata={"title": row.name})
