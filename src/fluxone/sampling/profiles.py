"""Compatibility profiles: whose rounding, noise and schedule to follow, one row each.

The same seed and prompt give the picture of another tool, as far as arithmetic allows: the rows of this table and
the padding of prompts (`text.encode`) are all that differ.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from fluxone.sampling.guidance import Rounding


@dataclass(frozen=True, kw_only=True)
class Profile:
    """What another tool does differently. Where a field is `model`, the dtype of the transformer holds.

    Attributes:
        time: dtype in which noise level and guidance are rounded; None is float32.
        noise: dtype in which noise is drawn.
        state: dtype to which latents are rounded after each step.
        thousandths: see `Rounding`.
        schedule: row of `SCHEDULES` in place of `shifted`; None leaves it.
        posterior: whether a picture is encoded to a sample of its posterior, not to the mean.
    """

    time: torch.dtype | str | None = None
    noise: torch.dtype | str = torch.float32
    state: torch.dtype | str = torch.float32
    thousandths: bool = False
    schedule: str | None = None
    posterior: bool = False

    def rounding(self, model: torch.dtype) -> Rounding:
        """How noise level and guidance are rounded for a transformer of this dtype."""
        return Rounding(dtype=None if self.time is None else concrete(self.time, model), thousandths=self.thousandths)


def concrete(dtype: torch.dtype | str, model: torch.dtype) -> torch.dtype:
    """The dtype meant by a field of a profile."""
    return dtype if isinstance(dtype, torch.dtype) else model


PROFILES: dict[str, Profile] = {
    "exact": Profile(),
    "bfl": Profile(time=torch.bfloat16, noise=torch.bfloat16, state="model"),
    "diffusers": Profile(time="model", noise="model", state="model", thousandths=True, posterior=True),
    "comfy": Profile(schedule="constant"),
}
