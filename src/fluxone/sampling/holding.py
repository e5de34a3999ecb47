"""A walk that holds to a given picture wherever it has nearly come there by itself: what an edit does not touch.

    gap = x - sigma * v - picture                      of each token
    v + share * gap / sigma                            share = 1 / (1 + exp((rms(gap) - limit) / SOFT))

A network that copies does not copy to the last bit, and its errors add up over steps and over edits in a row. Whatever
it says, a token whose guess comes nearer than `limit` becomes the picture's; what differs by more is the network's own.
Where guesses are still blurs, above `BELOW`, they are left alone.
"""

from __future__ import annotations

import torch

from fluxone.sampling.samplers import State, Velocity

BELOW = 0.8  # noise level
SOFT = 0.1  # of a latent's unit: how far around the limit a token is held by half


def holding(velocity: Velocity, picture: State, limit: float) -> Velocity:
    """The velocity of a walk that holds to a picture.

    Args:
        picture: its latent, as tokens (B L C), of the size of what is drawn.
        limit: root mean square over a token's values, in latents that spread by about 1.
    """

    def at(x: State, sigma: float) -> State:
        v = velocity(x, sigma)
        if not 0 < sigma <= BELOW:
            return v
        gap = x - sigma * v - picture.to(x)
        far = gap.square().mean(dim=-1, keepdim=True).sqrt()
        return v + torch.sigmoid((limit - far) / SOFT) * gap / sigma

    return at
