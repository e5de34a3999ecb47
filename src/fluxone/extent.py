"""How large a model is, and what a picture asks of it: numbers by part, bytes of activations, operations.

    headers and configs, or a row of the table --> shapes --> networks without memory --run on nothing--> Extent

No tensor is read. Activations are counted while the real code runs on tensors without memory (`nn.peak`), in
bfloat16; a network's blocks are alike, so one of each kind is enough.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from fluxone.geometry import Resolution
from fluxone.nn.autoencoder import AutoEncoder
from fluxone.nn.clip import ClipTextEncoder
from fluxone.nn.peak import Peak
from fluxone.nn.rope import Rotation
from fluxone.nn.t5 import T5Encoder
from fluxone.nn.tokens import SIDE
from fluxone.nn.transformer import Flux
from fluxone.offload import blocks_of
from fluxone.quant.apply import noted, packable
from fluxone.quant.kept import held
from fluxone.recipe import Recipe
from fluxone.shapes import AutoEncoderShape, ClipShape, T5Shape
from fluxone.variants import VARIANTS, Kind, Variant
from fluxone.weights import cache
from fluxone.weights.describe import Described
from fluxone.weights.keymap import AUTOENCODER, CLIP, T5, TRANSFORMER
from fluxone.weights.load import given_parts, resolve
from fluxone.weights.locate import locate
from fluxone.weights.parts import Part

TILE = 512  # px: side of a tile of the autoencoder
EDGE = 64  # px that tiles see of their neighbours, about
FLOAT32 = 4
MACS = 2  # operations of a product and its sum

Stored = str | Part | None  # the scheme that a part's files are packed by, or the part, whose headers say the rest


@dataclass(frozen=True, kw_only=True)
class Layers:
    """The numbers of a part: linear layers of its blocks that can be packed, by size (O, I), and the rest.

    Of a GGUF file `kept` are the bytes of those layers that can stay as they are, and the numbers of the others.
    """

    linear: Mapping[tuple[int, int], int]
    rest: int
    blocks: int
    kept: tuple[int, int] | None = None

    @property
    def packed(self) -> int:
        """Numbers in the layers that can be packed."""
        return sum(rows * columns * count for (rows, columns), count in self.linear.items())


@dataclass(frozen=True, kw_only=True)
class Extent:
    """A model, and a picture of one size.

    Attributes:
        tables: numbers of modulation a noise level.
        step_peak, text_peak: bytes of activations in bfloat16 at the worst moment.
        decode_peak, tile_peak: the same of the autoencoder in float32, whole and in tiles.
        linear_flops, attention_flops: operations of one step.
        passes: numbers that a step's blocks carry along: blocks times tokens times width.
        packed, t5_packed: the scheme that the files' layers are packed by already.
    """

    transformer: Layers
    modulators: int
    t5: Layers | None
    clip: int
    autoencoder: int
    tables: int
    tokens: int
    passes: int
    step_peak: int
    text_peak: int
    decode_peak: int
    tile_peak: int
    linear_flops: float
    attention_flops: float
    text_flops: float
    decode_flops: float
    packed: str | None = None
    t5_packed: str | None = None


def shapes_of(
    source: str, recipe: Recipe, held: Mapping[str, Part] | None = None
) -> tuple[Variant, dict[str, Any], dict[str, Stored]]:
    """The row, the shapes of the parts, and how the files are packed: of files where they are here, else of the row.

    Args:
        held: see `load_bundle`.

    Raises:
        UserError: there is no such model, or its files cannot be read.
    """
    row = VARIANTS.get(source)
    if row is not None and row.base:  # it adds to a model, which it may make wider
        _, shapes, packed = shapes_of(row.base, recipe)
        flux = replace(shapes[TRANSFORMER], in_channels=row.shape.in_channels)
        return row, {**shapes, TRANSFORMER: flux}, packed
    if row is not None and not row.assets and cache.state(row.repo) is not cache.State.WHOLE:
        shapes = {TRANSFORMER: row.shape, AUTOENCODER: AutoEncoderShape(), T5: T5Shape(), CLIP: ClipShape()}
        return row, shapes, {}
    known, path = resolve(source, token=recipe.token)
    found = locate(path, given_parts(recipe, held))
    told = Described.of(found)
    variant = told.variant or known
    assert variant is not None, "a model has a transformer"
    return variant, dict(told.shapes), {name: noted(part) or part for name, part in found.parts.items()}


def extent_of(
    variant: Variant, shapes: Mapping[str, Any], resolution: Resolution, packed: Mapping[str, Stored] | None = None
) -> Extent:
    """Count a model of these shapes at one size of picture."""
    packed = packed or {}
    shape = shapes[TRANSFORMER]
    latent: AutoEncoderShape = shapes[AUTOENCODER]
    rows, columns = resolution.grid_of(SIDE * latent.factor)
    image = rows * columns * (2 if Kind.REFERENCE in variant.takes else 1)
    tokens, blocks = image + variant.text_tokens, shape.double_blocks + shape.single_blocks
    with torch.device("meta"):
        flux, vae = Flux(shape), AutoEncoder(latent)
        t5 = T5Encoder(shapes[T5]) if T5 in shapes else None
        clip = ClipTextEncoder(shapes[CLIP]) if CLIP in shapes else None
        fewer = {"double_blocks": min(1, shape.double_blocks), "single_blocks": min(1, shape.single_blocks)}
        short = Flux(replace(shape, **fewer))
    modulators = sum(_count(module) for module in flux.modulators())
    own = _layers(flux, packed.get(TRANSFORMER), without=modulators)
    text = None if t5 is None else _layers(t5, packed.get(T5))
    per_token = own.packed - sum(  # single blocks see all tokens, double blocks each stream its own weights
        _count(block) - _modulating(block) for block in flux.double_blocks
    ) / 2
    decode_peak, decode_flops = _decode(vae, latent, SIDE * rows, SIDE * columns)
    sides = [min(SIDE * side, (TILE + EDGE) // latent.factor) for side in (rows, columns)]
    return Extent(
        transformer=own,
        modulators=modulators,
        t5=text,
        clip=0 if clip is None else _count(clip),
        autoencoder=_count(vae),
        tables=shape.hidden * (12 * shape.double_blocks + 3 * shape.single_blocks + 2),
        tokens=tokens,
        passes=blocks * tokens * shape.hidden,
        step_peak=_step(short, image, variant.text_tokens),
        text_peak=0 if t5 is None else _text(shapes[T5], variant.text_tokens),
        decode_peak=decode_peak,
        tile_peak=max(_decode(vae, latent, *sides)[0], _middle(vae, latent, SIDE * rows, SIDE * columns)),
        linear_flops=MACS * tokens * per_token,
        attention_flops=2 * MACS * blocks * tokens**2 * shape.hidden,
        text_flops=0 if text is None else MACS * variant.text_tokens * text.packed,
        decode_flops=decode_flops,
        packed=_noted(packed.get(TRANSFORMER)),
        t5_packed=_noted(packed.get(T5)),
    )


def _count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def _modulating(block: nn.Module) -> int:
    return sum(_count(child) for name, child in block.named_children() if name.endswith("mod"))


def _noted(stored: Stored) -> str | None:
    return stored if isinstance(stored, str) else None


def _layers(network: nn.Module, stored: Stored, without: int = 0) -> Layers:
    linear = Counter((layer.out_features, layer.in_features) for _, _, layer in packable(network))
    kept = held(network, stored, packable) if isinstance(stored, Part) else None
    layers = Layers(linear=dict(linear), rest=0, blocks=len(blocks_of(network)), kept=kept)
    return replace(layers, rest=_count(network) - without - layers.packed)


def _alive(work: Callable[[], object]) -> int:
    with torch.inference_mode(), Peak() as peak:
        work()
    return int(peak.most)


def _empty(*shape: int, dtype: torch.dtype = torch.bfloat16) -> Tensor:
    return torch.empty(shape, dtype=dtype, device="meta")


def _step(flux: Flux, image: int, text: int) -> int:
    flux.to(torch.bfloat16).attend = lambda q, k, v: torch.empty_like(v)
    shape = flux.shape
    modulation = flux.modulation(_empty(1, shape.hidden))
    pe = Rotation(turns=_empty(image + text, shape.head_dim // 2, 2, dtype=torch.float32))
    img, txt = _empty(1, image, shape.in_channels), _empty(1, text, shape.text_dim)
    return _alive(lambda: flux.predict(img, txt, pe, modulation))


def _text(shape: T5Shape, tokens: int) -> int:
    with torch.device("meta"):
        short = T5Encoder(replace(shape, layers=1)).to(torch.bfloat16)
        ids = torch.zeros(1, tokens, dtype=torch.long)
    return _alive(lambda: short(ids))


def _decode(vae: AutoEncoder, shape: AutoEncoderShape, height: int, width: int) -> tuple[int, float]:
    latent = _empty(1, shape.latent, height, width, dtype=torch.float32)
    with FlopCounterMode(display=False) as counter:
        most = _alive(lambda: vae.decode(latent))
    return most, float(counter.get_total_flops())


def _middle(vae: AutoEncoder, shape: AutoEncoderShape, height: int, width: int) -> int:
    latent = _empty(1, shape.latent, height, width, dtype=torch.float32)
    return _alive(lambda: vae.decoder.begin(latent))
