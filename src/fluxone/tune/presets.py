"""Settings for a model, a number of pictures and a memory, each with the reason why; what the user says goes first."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from fluxone.errors import pick
from fluxone.shapes import FluxShape
from fluxone.tune.memory import estimate, parameters
from fluxone.tune.settings import Settings
from fluxone.variants import Variant

SMALL = 10**9  # parameters below which a network trains in minutes on a CPU
FEW_STEPS = 8  # default steps up to which a model was distilled to visit these levels alone
MANY_NUMBERS = 50_000_000  # learnt numbers from which their momenta are worth packing
LARGE_TOKENS = 1600  # a picture, from which the noise laws are moved as the sampler's are
WHAT = {
    "lora": "an adapter",
    "character": "one character, by name",
    "style": "a style of drawing or a brand's look",
    "product": "one thing, by name",
}
FILL = 0.94  # of a device's memory that is counted on: an allocator leaves pieces, a desktop takes its part
VRAM = (24, 16, 12, 8)  # GiB: the presets of the table in the documentation


@dataclass(frozen=True, kw_only=True)
class Reason:
    """A setting and why it is so."""

    name: str
    value: object
    why: str


@dataclass(frozen=True, kw_only=True)
class Preset:
    """Settings, what the model is packed in, and the reasons of all that is not plain default."""

    settings: Settings
    quant: str | None
    reasons: tuple[Reason, ...]


def preset(
    what: str, variant: Variant, pictures: int, given: Mapping[str, Any], *, quant: str | None, vram: float | None,
    named: bool = True, choose: bool = True,
) -> Preset:  # fmt: skip
    """The settings of a run.

    Args:
        what: row of `WHAT`.
        given: fields of `Settings` that the user chose.
        quant: that the user chose.
        vram: GiB that it should fit, or None.
        named: whether prompts are to have a name for it.
        choose: whether a packing can still be chosen, where the user chose none.

    Raises:
        BadRequest: a field that was given is out of range.
    """
    pick(WHAT, what, "kind of fine-tuning")
    wanted = _small(what, pictures, named) if small(variant) else _large(what, pictures, variant)
    chosen = {**wanted, **_kept(variant)}
    reasons = [Reason(name=name, value=value, why=why) for name, (value, why) in chosen.items() if name not in given]
    reasons += [Reason(name=name, value=value, why="as you asked") for name, value in given.items()]
    settings = Settings(**{name: value for name, (value, _) in chosen.items() if name not in given}, **given)
    if vram is None:
        return Preset(settings=settings, quant=quant, reasons=tuple(reasons))
    return _fitted(settings, variant, reasons, quant=quant, vram=vram, choose=choose)


def small(variant: Variant) -> bool:
    """Whether the network is one that trains in minutes on a CPU."""
    return sum(parameters(variant.shape)) < SMALL


def _small(what: str, pictures: int, named: bool) -> dict[str, tuple[Any, str]]:
    each = 50 if what == "style" else 150
    steps = max(400, min(4000, each * pictures))
    return {
        "batch": (8, "a small network: a batch costs seconds, and steadies the steps"),
        "rank": (96, "half of a small network's width: it has little of its own that could be turned to use"),
        "targets": (
            ("blocks", "modulation", "ends"),
            "a small network has few places to keep something new in: modulation knows the name, the ends the colours",
        ),
        "rate": (1e-3, "a narrow network takes larger steps than a wide one"),
        "steps": (steps, f"{each} a picture, {pictures} of them, between 400 and 4000"),
        "fall": ("linear", "the last third falls: textures settle"),
        **(_other(what) if what == "style" else _subject()),
        **(_calmed() if named or what != "style" else {}),
    }


def _large(what: str, pictures: int, variant: Variant) -> dict[str, tuple[Any, str]]:
    steps = max(1000, min(3000, 100 * pictures))
    rank = 32 if what == "style" else 16
    return {
        "batch": (1, "what fits; identity is learnt as well as with more"),
        "rank": (rank, "16 holds a subject; a style touches more of the network"),
        "rate": (1e-4, "what a LoRA of alpha = rank takes on 12 B without forgetting"),
        "steps": (steps, f"100 a picture, {pictures} of them, between 1000 and 3000"),
        "checkpointing": (True, "blocks are computed twice, which costs a third of the time and saves most memory"),
        **_other(what),
    }


def _other(what: str) -> dict[str, tuple[Any, str]]:
    if what == "style":
        return {"drop": (0.1, "a style should come with few words as well")}
    return {"drop": (0.05, "now and then without words, so that guidance keeps its other side")}


def _subject() -> dict[str, tuple[Any, str]]:
    """Someone or something with a name."""
    return {
        "crops": (24, "few pictures are learnt by heart in 200 steps; a little enlarged and shifted they are not"),
        "drop": (0.0, "what is learnt without words leaks"),
        "bare": (0.15, "the name alone must mean it too, not only beside a pose or a place"),
    }


def _calmed() -> dict[str, tuple[Any, str]]:
    """A small network forgets soon. A style without a name is to be everywhere."""
    return {
        "preserve": ("pictures", "a small network forgets soon: on pictures of its own it stays what it was"),
        "preserve_share": (0.5, "every second step is enough"),
    }


def _kept(variant: Variant) -> dict[str, tuple[Any, str]]:
    if variant.steps <= FEW_STEPS:
        why = "a model of few steps visits these noise levels alone; training at others would take its few steps away"
        return {
            "law": ("few-step", why),
            "preserve": ("blank", "without words it must stay the few-step model that it is"),
            "preserve_share": (0.5, "every second step is enough"),
        }
    return {}


def _fitted(
    settings: Settings, variant: Variant, reasons: list[Reason], *, quant: str | None, vram: float, choose: bool
) -> Preset:
    """The first of a row of ways to save memory that fits; if none does, the last."""
    size, room = settings.size or variant.size, FILL * vram
    ways = list(_ways(settings, variant, quant, size, choose=choose))
    packed, px, swap = next((way for way in ways if _takes(settings, variant, *way) <= room), ways[-1])
    fits = _takes(settings, variant, packed, px, swap) <= room
    if packed != quant:
        reasons.append(Reason(name="quant", value=packed, why=f"fits {vram:g} GiB, at 1 % or less of error a layer"
                              if packed == "fp8" else f"fits {vram:g} GiB"))  # fmt: skip
    if swap != settings.swap:
        many = variant.shape.double_blocks + variant.shape.single_blocks
        why = f"of {many} blocks so many come for the time of their use: fits {vram:g} GiB, and changes no number"
        reasons.append(Reason(name="swap", value=swap, why=why))
    if px != size:
        reasons.append(Reason(name="size", value=px, why=f"fits {vram:g} GiB"))
    if not fits:
        reasons.append(Reason(name="memory", value=f"{vram:g} GiB", why="may be too little: nothing smaller is known"))
    settings = replace(settings, size=px if px != size else settings.size, swap=swap)
    return Preset(settings=settings, quant=packed, reasons=tuple(reasons))


def _ways(
    settings: Settings, variant: Variant, quant: str | None, size: int, *, choose: bool
) -> Iterator[tuple[str | None, int, int]]:
    """Packing, size and number of blocks that come and go, from what costs nothing on: packed as whole, then in blocks,
    each with as few of them as may be; small pictures last."""
    packs = [quant] if quant is not None or not choose else [None, "fp8"]
    blocks = variant.shape.double_blocks + variant.shape.single_blocks
    some = [settings.swap] if settings.swap else range(1, blocks + 1)
    yield from ((pack, size, settings.swap) for pack in packs)
    yield from ((packs[-1], size, n) for n in some)
    if len(packs) > 1:
        yield "nf4", size, some[-1]
    yield from ((packs[-1], px, some[-1]) for px in (768, 512) if px < size)


def _takes(settings: Settings, variant: Variant, quant: str | None, px: int, swap: int) -> float:
    tried, tokens = replace(settings, swap=swap), (px // 16) ** 2
    told = estimate(variant.shape, (), tried, tokens=tokens, text=variant.text_tokens, quant=quant, width=2)
    return told.whole + _adapter(variant.shape, settings)


def _adapter(shape: FluxShape, settings: Settings) -> float:
    """GiB of a LoRA on all blocks with its gradients and momenta."""
    h, inner = shape.hidden, shape.mlp
    sides = shape.double_blocks * 2 * (4 * h + 2 * h + 2 * (h + inner))
    sides += shape.single_blocks * ((4 * h + inner) + (2 * h + inner))
    return settings.rank * sides * 16 / 2**30
