"""What picture is wanted: `Request`, checked once, and `Result`, what came of it.

`None` means the variant's own default; `Request.resolve` fills it in from the row.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import TYPE_CHECKING

from fluxone.errors import BadRequest, pick
from fluxone.geometry import MAX_SIDE, TOKEN, Resolution
from fluxone.variants import VARIANTS, Kind

if TYPE_CHECKING:
    from PIL.Image import Image

    from fluxone.variants import Variant

MAX_PROMPT = 32_000  # characters: longer is a file pasted by mistake
MAX_STEPS = 1000
MAX_COUNT = 256
MAX_SEED = 2**63 - 1
MAX_REFERENCES = 16
MAX_REGIONS = 16
ROOM = 2.25  # times the variant's own area: a larger picture to repaint is worked on at that area
LAYOUTS = {
    "offset": "each reference beside or below those before it, as ComfyUI places them",
    "index": "each reference at the origin, with an index of its own",
    "stitched": "all references side by side as one picture",
}
EMPHASES = {
    "auto": "brackets weigh words where at least one of them has a number",
    "on": "every bracket weighs words",
    "off": "brackets are characters like others",
}
# What Union ControlNets call the kinds of pictures that they know. Source: InstantX/FLUX.1-dev-Controlnet-Union.
MODES = {"canny": 0, "tile": 1, "depth": 2, "blur": 3, "pose": 4, "gray": 5, "lq": 6}
ULTRAS = {
    "tiled": "the second pass sees parts of the picture: memory of the first",
    "whole": "the second pass sees all of it at once",
}
IMAGE_MIXES = {
    "beside": "each picture's tokens after those of the one before",
    "sum": "one picture's tokens, the weighted sum of all, as diffusers adds them up",
}
PICTURES = ("init", "mask", "control", "references", "hints", "looks", "image_prompts")  # fields that hold pictures


@dataclass(frozen=True, kw_only=True)
class Region:
    """Words for a part of a picture.

    Attributes:
        mask: white where they hold, grey where they do in part; None only in records.
        strength: of its hold on the part, against the prompt's, which is 1.
    """

    prompt: str
    mask: Image | None = field(default=None, repr=False)
    strength: float = 1.0

    def __post_init__(self) -> None:
        _check_text("prompt of a region", self.prompt)
        _within("strength of a region", self.strength, 0, 100)


@dataclass(frozen=True, kw_only=True)
class Request:
    """One picture, or `count` of them whose seeds follow each other.

    Attributes:
        resolution: of the picture; None is the variant's own area, in this `aspect` or that of `init`, or its square;
            with `ultra` four times that.
        ultra: row of `ULTRAS`: drawn at half the resolution each way, enlarged, and drawn again from `ultra_strength`
            of the schedule on; None is one pass. See `ultra.py`.
        prompt: what T5 reads; CLIP reads it too unless `clip_prompt` is given.
        emphasis: row of `EMPHASES`: whether `(red:1.3)` weighs words; see `text.emphasis`.
        wildcards: folder of files for `__name__`; empty: `{a|b}` alone is drawn; None: prompts are as they stand.
        negative: what to avoid; only with `cfg` or `nag` above 1.
        adapters: those that work, by the names that they were loaded under, each with its scale; None: as they are set.
        cfg: true classifier-free guidance, two passes a step; 1 is off.
        cfg_interval: shares of the schedule (0 = noise, 1 = picture) between which cfg and nag apply.
        nag: normalized attention guidance: how far attention goes away from the negative prompt, at the cost of its
            text alone; 1 is off. `nag_tau` and `nag_alpha` bound it; see `nn.mixing`.
        regions: words for parts of the picture, besides the prompt, which holds everywhere.
        guidance: the distilled guidance, where the variant has it and is not always told the same.
        raw: the variant's own guidance and manner for pictures that look less made, where its row has them.
        manner: words after every prompt, for a look; None is the variant's own, "" is none.
        sigmas: own noise levels, falling from at most 1; the last 0 is added. Overrides `steps`.
        sampler, schedule: rows of `SAMPLERS` and `SCHEDULES`; None is the variant's own.
        init: picture to start from, with `strength` 0 (keep it) to 1 (forget it).
        mask: white where `init` is repainted, grey where it is in part.
        control: the edges or depths to follow; with a `detector` the picture that they are found in.
        references: pictures to look at (Kontext), placed by `layout`, a row of `LAYOUTS`.
        hints: pictures for the ControlNets that are loaded, one each (several for a single one).
        hint_scales: how strongly each works; empty: as they were loaded.
        hint_modes: what each shows, a row of `MODES`, for ControlNets that know several kinds; empty: nothing said.
        hint_range: shares of the steps (0 = noise, 1 = picture) between which ControlNets work.
        looks: pictures for the IP-Adapters that are loaded, one each (several for a single one).
        then: further instructions, each of which edits what came of the one before, never leaving the latents.
        image_prompts: pictures that speak beside the prompt (Redux).
        image_prompt_weights: one each; empty is 1 each, or in a sum an equal share.
        image_prompt_strength: of all of them beside the words.
        image_prompt_mix: row of `IMAGE_MIXES`.
        hold: how near the reference's latents a token must come to become the reference's own, where there is one
            reference of the picture's size; 0 holds nothing, None is the variant's own. See `sampling.holding`.
        auto_resize: whether references are brought to the sizes that the variant was trained on.
        frame: size of the finished picture, where that is the given picture's own: what is drawn is cut and scaled
            to it. Filled in when no resolution is asked for.
        expand: px by which `init` grows to the left, right, top and bottom; the mask is over what is new.
        paste: px; the finished picture keeps `init` to the last bit outside the mask, and goes over into what was
            drawn within this distance inside it. Without a mask, what changed from it or from the first reference is
            inside. With `expand` it is how far the new picture reaches into the old one. None pastes nothing.
        text_tokens: length that T5 prompts are padded to.
    """

    prompt: str = ""
    clip_prompt: str | None = None
    negative: str = ""
    clip_negative: str | None = None
    emphasis: str = "auto"
    wildcards: str | None = None
    resolution: Resolution | None = None
    aspect: str | None = None
    ultra: str | None = None
    ultra_strength: float | None = None
    seed: int = 0
    count: int = 1
    steps: int | None = None
    guidance: float | None = None
    raw: bool = False
    manner: str | None = None
    cfg: float = 1.0
    cfg_interval: tuple[float, float] = (0.0, 1.0)
    nag: float = 1.0
    nag_tau: float = 2.5
    nag_alpha: float = 0.25
    regions: tuple[Region, ...] = ()
    sampler: str | None = None
    schedule: str | None = None
    sigmas: tuple[float, ...] | None = None
    init: Image | None = field(default=None, repr=False)
    strength: float | None = None
    mask: Image | None = field(default=None, repr=False)
    control: Image | None = field(default=None, repr=False)
    detector: str | None = None
    references: tuple[Image, ...] = field(default=(), repr=False)
    layout: str = "offset"
    hints: tuple[Image, ...] = field(default=(), repr=False)
    hint_scales: tuple[float, ...] = ()
    hint_modes: tuple[str, ...] = ()
    hint_range: tuple[float, float] = (0.0, 1.0)
    looks: tuple[Image, ...] = field(default=(), repr=False)
    then: tuple[str, ...] = ()
    image_prompts: tuple[Image, ...] = field(default=(), repr=False)
    image_prompt_weights: tuple[float, ...] = ()
    image_prompt_strength: float = 1.0
    image_prompt_mix: str = "beside"
    hold: float | None = None
    auto_resize: bool = True
    frame: Resolution | None = None
    expand: tuple[int, int, int, int] | None = None
    paste: int | None = None
    text_tokens: int | None = None
    adapters: tuple[tuple[str, float], ...] | None = None

    def __post_init__(self) -> None:
        _check_text("prompt", self.prompt)
        _check_text("negative prompt", self.negative)
        _check_text("manner", self.manner or "")
        for text in (self.clip_prompt, self.clip_negative):
            _check_text("prompt for CLIP", "" if text is None else text)
        _within("seed", self.seed, 0, MAX_SEED, whole=True)
        _within("count", self.count, 1, MAX_COUNT, whole=True)
        if self.steps is not None:
            _within("steps", self.steps, 1, MAX_STEPS, whole=True)
        if self.guidance is not None:
            _within("guidance", self.guidance, 0, 1000)
        _within("cfg", self.cfg, 0, 100)
        _check_adapters(self.adapters)
        _within("nag", self.nag, 1, 100)
        _within("tau of nag", self.nag_tau, 1, 100)
        _within("alpha of nag", self.nag_alpha, 0, 1)
        if len(self.regions) > MAX_REGIONS:
            raise BadRequest(f"{len(self.regions)} regions are given", hint=f"give at most {MAX_REGIONS}")
        if self.strength is not None:
            _within("strength", self.strength, 0, 1)
        if self.paste is not None:
            _within("paste", self.paste, 0, 1000, whole=True)
        if self.hold is not None:
            _within("hold", self.hold, 0, 100)
        if self.expand is not None:
            if self.mask is not None:
                raise BadRequest("a picture is to be expanded by a mask of its own", hint="leave one of them out")
            for margin in self.expand:
                _within("expand", margin, 0, MAX_SIDE, whole=True)
        pick(LAYOUTS, self.layout, "layout of references")
        pick(EMPHASES, self.emphasis, "emphasis")
        _check_ultra(self)
        if len(self.references) > MAX_REFERENCES:
            raise BadRequest(f"{len(self.references)} references are given", hint=f"give at most {MAX_REFERENCES}")
        for text in self.then:
            _check_text("instruction", text)
        if len(self.then) >= MAX_REFERENCES:
            raise BadRequest(f"{len(self.then) + 1} instructions in a row", hint=f"give at most {MAX_REFERENCES}")
        self._check_image_prompts()
        if self.text_tokens is not None:
            _within("text tokens", self.text_tokens, 1, 512, whole=True)
        for name, (start, end) in (("cfg interval", self.cfg_interval), ("range of hints", self.hint_range)):
            if not 0 <= start <= end <= 1:
                raise BadRequest(f"{name} is {start} to {end}", hint="use two rising shares between 0 and 1")
        for scale in self.hint_scales:
            _within("scale of a hint", scale, -100, 100)
        for mode in self.hint_modes:
            pick(MODES, mode, "control mode")
        if self.sigmas is not None:
            _check_sigmas(self.sigmas)

    def _check_image_prompts(self) -> None:
        pick(IMAGE_MIXES, self.image_prompt_mix, "way to mix image prompts")
        for value in (self.image_prompt_strength, *self.image_prompt_weights):
            _within("strength or weight of image prompts", value, -100, 100)
        count, weights = len(self.image_prompts), len(self.image_prompt_weights)
        if count > MAX_REFERENCES:
            raise BadRequest(f"{count} image prompts are given", hint=f"give at most {MAX_REFERENCES}")
        if weights not in (0, count) and count:
            raise BadRequest(f"{weights} weights for {count} image prompts", hint="give one each, or none")

    def resolve(self, variant: Variant) -> Request:
        """The same request with every `None` that has a default in the variant's row filled in."""
        resolution, frame = self._sizes(variant)
        return replace(
            self,
            resolution=resolution,
            frame=frame,
            steps=len(self.sigmas) if self.sigmas is not None else self.steps or variant.steps,
            guidance=self._guidance(variant),
            manner=(VARIANTS[variant.raw] if self.raw else variant).manner if self.manner is None else self.manner,
            sampler=self.sampler or variant.sampler,
            schedule=self.schedule or ("shifted" if variant.shifted else "linear" if variant.shift == 1 else "fixed"),
            ultra_strength=variant.detail if self.ultra_strength is None else self.ultra_strength,
            strength=variant.strength if self.strength is None else self.strength,
            hold=variant.hold if self.hold is None else self.hold,
            text_tokens=self.text_tokens or variant.text_tokens,
        )

    def _guidance(self, variant: Variant) -> float:
        if self.raw and not variant.raw:
            rows = [row.name for row in VARIANTS.values() if row.raw]
            raise BadRequest(f"{variant.name} has no raw pictures", hint=f"models that do: {', '.join(rows)}")
        if variant.told is not None:
            return variant.told
        if self.guidance is not None:
            return self.guidance
        return variant.raw_guidance if self.raw else variant.guidance

    def _sizes(self, variant: Variant) -> tuple[Resolution, Resolution | None]:
        """The size that is drawn, and that of the finished picture where it is a given picture's own."""
        if self.resolution is not None:
            return self.resolution, self.frame
        if self.ultra is not None:
            half, _ = replace(self, ultra=None)._sizes(variant)
            return Resolution(height=2 * half.height, width=2 * half.width), None
        if self.aspect is not None:
            return Resolution.from_aspect(self.aspect, variant.size**2), None
        given = self.init or self.control or next(iter((*self.references, *self.hints)), None)
        if given is None and self.image_prompts:
            first = self.image_prompts[0]
            return Resolution.from_aspect(f"{first.width}:{first.height}", variant.size**2), None
        if given is None:
            return Resolution(height=variant.size, width=variant.size), None
        left, right, top, bottom = self.expand or (0, 0, 0, 0)
        own = Resolution(height=given.height + top + bottom, width=given.width + left + right)
        if self.init is not None and self.mask is None and self.expand is None:
            return Resolution.from_aspect(f"{own.width}:{own.height}", variant.size**2), None
        if self.init is None and self.control is None and not self.references:
            return Resolution.from_aspect(f"{own.width}:{own.height}", variant.size**2), None
        if self.init is None and self.control is None:
            if self.auto_resize:
                return Resolution.preferred(own.width / own.height, variant.size), own
            return Resolution(height=max(TOKEN, own.height), width=max(TOKEN, own.width)).whole(), own
        if own.width * own.height <= ROOM * variant.size**2:
            return own.up(), own
        return Resolution.from_aspect(f"{own.width}:{own.height}", variant.size**2), own


def given_by(request: Request) -> frozenset[str]:
    """Which of the fields in `PICTURES` a request fills; a picture to expand brings its mask with it."""
    filled = {name for name in PICTURES if getattr(request, name)}
    return frozenset(filled | {"mask"} if request.expand is not None else filled)


def check_bases(request: Request) -> None:
    """See that what works on a given picture has one.

    Raises:
        BadRequest: it has none.
    """
    if request.paste is not None and request.init is None and not request.references:
        raise BadRequest("paste is given without a picture", hint="give init or references too")
    if request.then and not request.references:
        raise BadRequest("then is given without a picture to edit", hint="give references too")


def check_pictures(variant: Variant, given: frozenset[str]) -> None:
    """See that a variant is given what it takes, and nothing that it cannot use.

    Args:
        given: those of the fields in `PICTURES` that hold one.

    Raises:
        BadRequest: a picture is missing, or the variant takes none of its kind.
    """
    fields = ((Kind.REFERENCE, "references"), (Kind.CONTROL, "control"), (Kind.PROMPT, "image_prompts"))
    for kind, name in fields:
        if name in given and kind not in variant.takes:
            rows = [row.name for row in VARIANTS.values() if kind in row.takes]
            raise BadRequest(f"{variant.name} takes no {kind.value}", hint=f"models that do: {', '.join(rows)}")
    if "mask" in given and "init" not in given:
        raise BadRequest("a mask is given without the picture that it is of", hint="give that picture too")
    for kind, names in ((Kind.FILL, ("init", "mask")), (Kind.CONTROL, ("control",))):
        if kind in variant.takes and not given.issuperset(names):
            wanted = f"{kind.value} and the picture that it is of" if len(names) > 1 else kind.value
            raise BadRequest(f"{variant.name} cannot draw without a {wanted}", hint=f"give {' and '.join(names)}")


@dataclass(frozen=True, kw_only=True)
class Result:
    """Pictures in the order of their seeds, and the resolved request that made them.

    Attributes:
        prompts: of each picture, its choices and wildcards drawn.
    """

    images: list[Image]
    request: Request
    seeds: list[int]
    prompts: list[str] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)


def _check_ultra(request: Request) -> None:
    if request.ultra_strength is not None:
        _within("strength of ultra", request.ultra_strength, 0, 1)
    if request.aspect is not None:
        Resolution.from_aspect(request.aspect, MAX_SIDE)
    if request.ultra is None:
        return
    pick(ULTRAS, request.ultra, "way of ultra")
    if request.sigmas is not None:
        raise BadRequest("ultra is given with noise levels of its own", hint="leave sigmas out: it has two passes")
    if others := [name for name in PICTURES if name != "init" and getattr(request, name)]:
        raise BadRequest(f"ultra is given with {others[0]}", hint="make that picture first, then use it as init")
    if request.expand is not None or request.paste is not None or request.then:
        raise BadRequest("ultra is given with expand, paste or later edits", hint="make that first")


def _check_adapters(adapters: object) -> None:
    rows = adapters if isinstance(adapters, list | tuple) else () if adapters is None else (adapters,)
    if not all(isinstance(row, list | tuple) and len(row) == 2 and isinstance(row[0], str) for row in rows):
        raise BadRequest(f"adapters is {adapters!r:.80}", hint='give pairs of name and scale: (("fox", 0.8),)')
    for name, scale in rows:
        _within(f"scale of the adapter {name}", scale, -100, 100)
    if len({name for name, _ in rows}) < len(rows):
        raise BadRequest(f"adapters is {adapters!r:.80}", hint="give each name once")


def _check_text(name: str, text: object) -> None:
    if not isinstance(text, str):
        raise BadRequest(f"{name} is {type(text).__name__}, not text")
    if len(text) > MAX_PROMPT:
        raise BadRequest(f"{name} has {len(text)} characters", hint=f"use at most {MAX_PROMPT}")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise BadRequest(f"{name} holds {text[error.start]!r}, which is no character", hint="give UTF-8") from None


def _within(name: str, value: float, low: float, high: float, *, whole: bool = False) -> None:
    kinds: tuple[type, ...] = (int,) if whole else (int, float)
    if not isinstance(value, kinds) or isinstance(value, bool) or value != value:
        raise BadRequest(f"{name} is {value!r}", hint=f"use a {'whole ' if whole else ''}number from {low} to {high}")
    if not low <= value <= high:
        raise BadRequest(f"{name} is {value!r:.40}", hint=f"use {low} to {high}")


def _check_sigmas(sigmas: Sequence[float]) -> None:
    falling = all(a > b for a, b in pairwise(sigmas))
    if not sigmas or not falling or not all(0 < s <= 1 for s in sigmas):
        raise BadRequest("sigmas must fall from at most 1 to above 0", hint="leave out the last 0, it is added")
