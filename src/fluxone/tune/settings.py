"""All that a fine-tuning run is told, checked once; every option of the command line is a field here."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from fluxone.errors import BadRequest, pick
from fluxone.tune.kinds import KINDS
from fluxone.tune.optimizers import OPTIMIZERS
from fluxone.tune.rates import FALLS
from fluxone.tune.sigmas import LAWS

PRESERVE = {
    "none": "nothing is asked of other prompts",
    "blank": "without words the network stays what it was",
    "class": "with the class' words in the name's place it stays what it was",
    "other": "with other prompts it stays what it was",
    "pictures": "on pictures that the base drew of other prompts it stays what it was",
}
CALM = ("steps", "looks", "look_steps", "shard", "context", "checkpointing", "swap")  # may change when a run goes on


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How to train.

    Attributes:
        kind, rank, alpha: of the adapter; alpha None is the rank.
        targets: presets and patterns of layers.
        steps: of the optimizer, each with `batch` pictures, `micro` of them at once (0: all).
        rate, decay, warmup, fall: learning rate, weight decay, steps of linear rise, and how it ends.
        law: row of `LAWS`.
        guidance: that the embedding is told; 1 is the plain velocity, whatever is sampled with later.
        drop, bare: shares of the captions that are left out, and of which the name alone is left.
        drop_references: share of the batches that go without references.
        preserve, preserve_weight, preserve_share: row of `PRESERVE`, how much it counts, on which share of the steps.
        crops: parts of each picture, a little enlarged and shifted, that are learnt from besides the whole; what comes
            with references, or is repainted, is always seen whole.
        size: px of the square whose area pictures are brought to; 0 is the model's own.
        checkpointing: whether blocks are computed twice instead of being remembered.
        swap: how many blocks come to the device for the time of their use alone, and are then computed twice.
        hold: share of the pictures kept for measuring.
        looks: how often on the way pictures are drawn and measured, with `look_steps` steps each (0: the model's own).
        shard: whether several processes share the weights too, each keeping some rows (FSDP2); `full` always does.
        context: how many processes work on the same pictures, each on a part of the tokens.
        ema: share that an average of the weights keeps each step; 0 is no average.
    """

    kind: str = "lora"
    rank: int = 16
    alpha: float | None = None
    targets: tuple[str, ...] = ("blocks",)
    steps: int = 1500
    batch: int = 1
    micro: int = 0
    optimizer: str = "adamw"
    rate: float = 1e-4
    betas: tuple[float, float] = (0.9, 0.99)
    decay: float = 1e-4
    warmup: int = 50
    fall: str = "constant"
    clip: float = 1.0
    law: str = "logit-normal"
    guidance: float = 1.0
    drop: float = 0.05
    bare: float = 0.0
    drop_references: float = 0.05
    preserve: str = "none"
    preserve_weight: float = 1.0
    preserve_share: float = 1.0
    crops: int = 0
    size: int = 0
    seed: int = 0
    checkpointing: bool = False
    swap: int = 0
    hold: float = 0.15
    looks: int = 6
    look_steps: int = 0
    ema: float = 0.0
    shard: bool = False
    context: int = 1

    def __post_init__(self) -> None:
        pick(KINDS, self.kind, "kind of adapter")
        pick(OPTIMIZERS, self.optimizer, "optimizer")
        pick(LAWS, self.law, "law of noise levels")
        pick(FALLS, self.fall, "way for the rate to end")
        pick(PRESERVE, self.preserve, "way to preserve")
        for name in ("rank", "steps", "batch", "looks", "context"):
            if getattr(self, name) < 1:
                raise BadRequest(f"{name} is {getattr(self, name)}", hint="use 1 or more")
        for name in ("micro", "crops", "size", "warmup", "decay", "preserve_weight", "look_steps", "seed", "swap"):
            if getattr(self, name) < 0:
                raise BadRequest(f"{name} is {getattr(self, name)}", hint="use 0 or more")
        for name in ("drop", "bare", "drop_references", "preserve_share", "hold", "ema"):
            if not 0 <= getattr(self, name) <= 1:
                raise BadRequest(f"{name} is {getattr(self, name)}", hint="use a share between 0 and 1")
        for name in ("rate", "clip"):
            if not getattr(self, name) > 0:
                raise BadRequest(f"{name} is {getattr(self, name)}", hint="use more than 0")

    @property
    def scale(self) -> float:
        """The effective scale of a LoRA: alpha over rank."""
        return (self.rank if self.alpha is None else self.alpha) / self.rank

    def told(self) -> dict[str, Any]:
        """The fields as JSON has them."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in dataclasses.asdict(self).items()}

    def differing(self, other: dict[str, Any]) -> list[str]:
        """Fields that a run that goes on must not have otherwise, and has."""
        own = self.told()
        return [name for name in own if name not in CALM and name in other and own[name] != other[name]]
