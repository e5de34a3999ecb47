"""What every comparison of a module with another implementation needs: random weights, and one idea of equal."""

from __future__ import annotations

import torch
from torch import Tensor, nn

FLOAT32, FLOAT64 = 1e-6, 1e-10  # root mean square of the difference, relative to that of the values


def agree(ours: Tensor, theirs: Tensor) -> None:
    """Assert that two tensors are of one type and shape, and equal to that type's bound.

    In float32 two right answers differ by what rounding leaves, which the mean over all values measures and the
    worst single value exaggerates; that a single value is right is what float64 shows, value by value.
    """
    assert (ours.dtype, ours.shape) == (theirs.dtype, theirs.shape)
    assert theirs.abs().max() > 0.01, "nothing to compare"
    apart = ((ours - theirs).norm() / theirs.norm()).item()
    assert apart <= (FLOAT64 if theirs.dtype == torch.float64 else FLOAT32), f"{apart:.1e} apart"
    worst = ((ours - theirs).abs().max() / theirs.abs().max()).item()
    assert worst <= (FLOAT64 if theirs.dtype == torch.float64 else 4 * FLOAT32), f"one value is {worst:.1e} apart"


def scatter(module: nn.Module) -> None:
    """Give every parameter random values, biases and scales too, of the size that torch's own initialisation has.

    T5's attention is not scaled; its own initialisation makes up for that in the queries, and so does this.
    """
    source = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, value in module.named_parameters():
            noise = torch.randn(value.shape, generator=source)
            if value.ndim > 1:
                value.copy_(noise / (3 * value[0].numel()) ** 0.5)
                if name.endswith("SelfAttention.q.weight"):
                    value /= value.shape[0] ** 0.5
            else:
                value.copy_(("bias" not in name) + 0.2 * noise)
