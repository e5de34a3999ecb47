"""What the network is given besides the noisy picture and sigma: it does not change along the schedule."""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """The conditions of a batch.

    Attributes:
        txt: the T5 encoder's hidden states.
        pooled: the CLIP encoder's pooled state.
        guidance: strength of the distilled guidance, for networks that embed it.
        ids: positions of the picture's own tokens, float32.
        channels: tokens put beside the picture's on the channel axis (Fill, control).
        reference: tokens put after the picture's (Kontext), with their positions; the output is cut to L.
    """

    txt: Float[Tensor, "B T D"]
    pooled: Float[Tensor, "B V"]
    guidance: Float[Tensor, " B"] | None = None
    ids: Float[Tensor, "L 3"]
    channels: Float[Tensor, "B L K"] | None = None
    reference: Float[Tensor, "B R C"] | None = None
    reference_ids: Float[Tensor, "R 3"] | None = None
