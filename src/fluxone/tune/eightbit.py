"""Momenta in a byte each: blocks of numbers, each with its largest one as a scale, and 256 levels between.

The levels are dynamic: exponent and fraction share seven bits, so that small numbers keep their first digit.

Source: Dettmers et al. 2022, "8-bit optimizers via block-wise quantization": dynamic tree quantization.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor

BLOCK = 256  # numbers that share a scale
DECADES = 7  # powers of ten that the levels reach down


@cache
def levels(signed: bool) -> Tensor:
    """The 256 numbers, rising, that a byte stands for: -1..1, or 0..1."""
    found: list[float] = [0.0, 1.0]
    more = 0 if signed else 1  # the bit that needs no sign
    for i in range(DECADES):
        count = 2 ** (i + more) + 1
        edges = torch.linspace(0.1, 1, count, dtype=torch.float64)
        middles = (edges[1:] + edges[:-1]) / 2
        tens = 10.0 ** (i - DECADES + 1)
        found += (tens * middles).tolist()
        if signed:
            found += (-tens * middles).tolist()
    with torch.inference_mode(False):
        row = torch.tensor(sorted(found), dtype=torch.float32)
        while len(row) < 256:
            row = torch.cat((row, row[-1:]))
        return row


@dataclass
class Bytes:
    """A tensor of momenta, packed."""

    codes: Tensor
    scales: Tensor
    signed: bool

    @classmethod
    def zeros(cls, like: Tensor, *, signed: bool) -> Bytes:
        """As many zeros as a parameter has numbers."""
        blocks = -(-like.numel() // BLOCK)
        zero = int((levels(signed) == 0).nonzero()[0, 0])
        codes = torch.full((blocks, BLOCK), zero, dtype=torch.uint8, device=like.device)
        return cls(codes, torch.zeros(blocks, 1, device=like.device), signed)

    def unpack(self, like: Tensor) -> Tensor:
        """The numbers in a parameter's shape, float32."""
        row = levels(self.signed).to(self.codes.device)
        return (row[self.codes.int()] * self.scales).flatten()[: like.numel()].view(like.shape)

    def pack(self, values: Tensor) -> None:
        """Keep these numbers."""
        flat = values.flatten()
        short = self.codes.numel() - flat.numel()
        blocks = torch.nn.functional.pad(flat, (0, short)).view(-1, BLOCK)
        self.scales = blocks.abs().amax(1, keepdim=True)
        row = levels(self.signed).to(flat.device)
        middles = (row[1:] + row[:-1]) / 2
        self.codes = torch.bucketize(blocks / self.scales.clamp(min=1e-38), middles).to(torch.uint8)
