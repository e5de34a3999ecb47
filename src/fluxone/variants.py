"""THE TABLE of models. A new model of a known kind is one row here, made with `replace`.

No other file compares against a variant's name: ask the row (`variant.guided`), never the name.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from enum import Enum

from fluxone.shapes import FluxShape

BFL = "black-forest-labs/FLUX.1"
NON_COMMERCIAL = "FLUX.1 [dev] Non-Commercial"
APACHE = "Apache-2.0"


class Kind(Enum):
    """What a model can be given besides words; the value is what messages call it."""

    REFERENCE = "reference picture"
    FILL = "mask"
    CONTROL = "control picture"
    PROMPT = "image prompt"

    @property
    def wide(self) -> bool:
        """Whether it comes in channels beside the noise, which the network then cannot do without."""
        return self in (Kind.FILL, Kind.CONTROL)


@dataclass(frozen=True, kw_only=True)
class Variant:
    """Which model: where its files are, and how it wants to be run.

    Attributes:
        repo: hub id of the published weights; empty for the models inside the package.
        assets: folder below `fluxone/assets` for the models inside the package.
        file: name of the single-file transformer in the repository; of an adapter, in its repository or folder.
        pipeline: diffusers' class for it, as the `model_index.json` of a folder says.
        shape: the transformer's numbers; a loaded model's own config has the last word.
        takes: what it was trained to be given besides words.
        maps: what the control pictures show that it was trained on: `depth`, `canny`, `pose`.
        base: name of the row of the model that this is added to, where it is no model itself; empty if it is one.
        scale: strength that it is added with, where it is an adapter.
        text_tokens: length that T5 prompts are padded to.
        shifted: whether the schedule is shifted by the count of noise tokens: `mu` runs straight through
            (base_tokens, base_shift) and (max_tokens, max_shift) and on beyond them.
        shift: fixed shift of a schedule that does not count tokens; 1 is none.
        linear_shift, terminal, spacing: what a scheduler's config may ask for besides; see `sampling.schedule.Shift`.
        sampler: row of `SAMPLERS` that it is walked by, where a request names none.
        told: guidance that the network is always told, because its few steps were distilled with it: what a request
            asks for has no effect.
        manner: words that follow every prompt, for the look that this row is there for.
        raw: name of the row whose weights, or manner, make pictures that look less made, where there is one; and
            `raw_guidance`, with which it does.
        detail: default share of the schedule that the second pass of `ultra` walks.
        strength: default share of a picture to start from that is forgotten.
        hold: how near what is drawn comes to a reference before it is taken for it; see `Request`.
        size: default width and height, px.
    """

    name: str
    title: str
    repo: str = ""
    assets: str = ""
    file: str = ""
    pipeline: str = "FluxPipeline"
    shape: FluxShape = field(default_factory=FluxShape)
    takes: tuple[Kind, ...] = ()
    maps: tuple[str, ...] = ()
    base: str = ""
    scale: float = 1.0
    text_tokens: int = 512
    shifted: bool = True
    shift: float = 1.0
    base_shift: float = 0.5
    max_shift: float = 1.15
    base_tokens: int = 256
    max_tokens: int = 4096
    linear_shift: bool = False
    terminal: float = 0.0
    spacing: str = ""
    steps: int = 28
    sampler: str = "euler"
    guidance: float = 3.5
    told: float | None = None
    manner: str = ""
    raw: str = ""
    raw_guidance: float = 2.5
    strength: float = 0.6
    hold: float = 0.0
    detail: float = 0.35
    size: int = 1024
    licence: str = NON_COMMERCIAL
    gated: bool = True

    @property
    def guided(self) -> bool:
        """Whether guidance is distilled into the network as an embedding."""
        return self.shape.guided

    @property
    def lora(self) -> bool:
        """Whether it is a LoRA on its base: one file, no folder of parts."""
        return bool(self.base) and Kind.PROMPT not in self.takes

    def taking(self, kind: Kind) -> Variant:
        """The same with channels for this kind, which nothing but image prompts goes with."""
        return replace(self, takes=(kind, *(own for own in self.takes if own is Kind.PROMPT)))

    @property
    def wide(self) -> Kind | None:
        """What it takes in channels beside the noise."""
        return next((kind for kind in self.takes if kind.wide), None)


# Raw: Krea's weights, tuned away from the polished look, at 2.5, the guidance of its makers' own command line: below
# the usual 3.5 it follows the words less and looks less made. LoRAs come on top by `--lora`.
DEV = Variant(name="dev", title="FLUX.1 [dev]", repo=f"{BFL}-dev", file="flux1-dev.safetensors", raw="krea")
SCHNELL = Variant(
    name="schnell",
    title="FLUX.1 [schnell]",
    repo=f"{BFL}-schnell",
    file="flux1-schnell.safetensors",
    shape=FluxShape(guided=False),
    text_tokens=256,
    shifted=False,
    steps=4,
    guidance=0.0,
    licence=APACHE,
)
KREA = replace(
    DEV, name="krea", title="FLUX.1 Krea [dev]", repo=f"{BFL}-Krea-dev", file="flux1-krea-dev.safetensors", raw="krea"
)
KONTEXT = replace(
    DEV,
    name="kontext",
    title="FLUX.1 Kontext [dev]",
    repo=f"{BFL}-Kontext-dev",
    file="flux1-kontext-dev.safetensors",
    pipeline="FluxKontextPipeline",
    takes=(Kind.REFERENCE,),
    raw="",
    steps=30,
    guidance=2.5,
)
FILL = replace(
    DEV,
    name="fill",
    title="FLUX.1 Fill [dev]",
    repo=f"{BFL}-Fill-dev",
    file="flux1-fill-dev.safetensors",
    pipeline="FluxFillPipeline",
    shape=FluxShape(in_channels=384),
    takes=(Kind.FILL,),
    raw="",
    steps=50,
    guidance=30.0,
    strength=1.0,
)
DEPTH = replace(
    DEV,
    name="depth",
    title="FLUX.1 Depth [dev]",
    repo=f"{BFL}-Depth-dev",
    file="flux1-depth-dev.safetensors",
    pipeline="FluxControlPipeline",
    shape=FluxShape(in_channels=128),
    takes=(Kind.CONTROL,),
    maps=("depth",),
    raw="",
    steps=30,
    guidance=10.0,
)
CANNY = replace(
    DEPTH,
    name="canny",
    title="FLUX.1 Canny [dev]",
    repo=f"{BFL}-Canny-dev",
    file="flux1-canny-dev.safetensors",
    maps=("canny",),
    steps=50,
    guidance=30.0,
)
DEPTH_LORA = replace(
    DEPTH,
    name="depth-lora",
    title="FLUX.1 Depth [dev] as a LoRA",
    repo=f"{BFL}-Depth-dev-lora",
    file="flux1-depth-dev-lora.safetensors",
    base="dev",
    scale=0.85,
)
CANNY_LORA = replace(
    CANNY,
    name="canny-lora",
    title="FLUX.1 Canny [dev] as a LoRA",
    repo=f"{BFL}-Canny-dev-lora",
    file="flux1-canny-dev-lora.safetensors",
    base="dev",
    scale=0.85,
)
REDUX = replace(
    DEV,
    name="redux",
    title="FLUX.1 Redux [dev]",
    repo=f"{BFL}-Redux-dev",
    file="flux1-redux-dev.safetensors",
    takes=(Kind.PROMPT,),
    raw="",
    base="dev",
    steps=50,
    guidance=2.5,
)
# The family inside the package: one base, and small files beside it that are merged into it when they are loaded.
MINI = Variant(
    name="mini",
    title="mini: a small FLUX.1 of the storybook world, inside the package",
    assets="mini",
    shape=FluxShape(
        hidden=192, heads=3, axes=(16, 24, 24), double_blocks=2, single_blocks=4, text_dim=192, vec_dim=192
    ),
    text_tokens=24,
    steps=20,
    sampler="euler_ancestral",  # fresh noise mends what a small network gets wrong on the way: see docs/models.md
    guidance=3.0,
    raw="mini-raw",
    detail=0.2,
    size=128,
    licence=APACHE,
    gated=False,
)
MINI_SCHNELL = replace(
    MINI,
    name="mini-schnell",
    title="mini in four steps",
    file="schnell.safetensors",
    base="mini",
    raw="",
    shifted=False,
    steps=4,
    sampler="euler",
    told=3.0,
)
MINI_RAW = replace(
    MINI, name="mini-raw", title="mini with the look of photographs", file="raw.safetensors", base="mini", guidance=2.5
)
MINI_KONTEXT = replace(
    MINI,
    name="mini-kontext",
    title="mini, changing pictures by instructions",
    file="kontext.safetensors",
    base="mini",
    pipeline="FluxKontextPipeline",
    takes=(Kind.REFERENCE,),
    raw="",
    guidance=2.5,
    hold=0.5,
)
MINI_FILL = replace(
    MINI,
    name="mini-fill",
    title="mini, repainting what a mask covers",
    file="fill.safetensors",
    base="mini",
    pipeline="FluxFillPipeline",
    shape=replace(MINI.shape, in_channels=384),
    takes=(Kind.FILL,),
    raw="",
    strength=1.0,
)
MINI_DEPTH = replace(
    MINI,
    name="mini-depth",
    title="mini along depths",
    file="control.safetensors",
    base="mini",
    pipeline="FluxControlPipeline",
    shape=replace(MINI.shape, in_channels=128),
    takes=(Kind.CONTROL,),
    maps=("depth",),
    raw="",
)
MINI_CANNY = replace(MINI_DEPTH, name="mini-canny", title="mini along edges", maps=("canny",))
MINI_POSE = replace(MINI_DEPTH, name="mini-pose", title="mini along limbs", maps=("pose",))
MINI_REDUX = replace(
    MINI,
    name="mini-redux",
    title="mini, varying pictures",
    assets="mini/redux",
    base="mini",
    takes=(Kind.PROMPT,),
    raw="",
)

FAMILY = (
    MINI, MINI_SCHNELL, MINI_RAW, MINI_KONTEXT, MINI_FILL, MINI_DEPTH, MINI_CANNY, MINI_POSE, MINI_REDUX,
)  # fmt: skip
ROWS = (*FAMILY, DEV, SCHNELL, KREA, KONTEXT, FILL, DEPTH, CANNY, DEPTH_LORA, CANNY_LORA, REDUX)
VARIANTS: dict[str, Variant] = {row.name: row for row in ROWS}
