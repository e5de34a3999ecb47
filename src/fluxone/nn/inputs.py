"""What the network is given besides the noisy picture and sigma: it does not change along the schedule."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from fluxone.nn.mixing import Mixing


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
        more: text after the prompt's that not all may see, and `mixing`, who sees what.
    """

    txt: Float[Tensor, "B T D"]
    pooled: Float[Tensor, "B V"]
    guidance: Float[Tensor, " B"] | None = None
    ids: Float[Tensor, "L 3"]
    channels: Float[Tensor, "B L K"] | None = None
    reference: Float[Tensor, "B R C"] | None = None
    reference_ids: Float[Tensor, "R 3"] | None = None
    more: Float[Tensor, "B M D"] | None = None
    mixing: Mixing | None = None

    @property
    def words(self) -> Float[Tensor, "B W D"]:
        """All text that the network is given."""
        return self.txt if self.more is None else torch.cat((self.txt, self.more), dim=1)
