"""GGML's rarer types, which need tables of thousands of numbers: unpacked by the package `gguf`, which has them."""

from __future__ import annotations

import warnings

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from fluxone.errors import MissingExtra
from fluxone.weights.packed.ggml import TYPES


def by_tables(dtype: str, blocks: UInt8[Tensor, "N B"]) -> Float[Tensor, "N K"]:
    """What blocks of a type stand for.

    Raises:
        MissingExtra: `gguf` is not installed.
    """
    try:
        from gguf import GGMLQuantizationType, dequantize
    except ImportError:
        raise MissingExtra("gguf", f"numbers packed as {dtype} are unpacked by the package gguf") from None
    with warnings.catch_warnings():  # scales that overflow are told by who looks for NaN and infinity
        warnings.simplefilter("ignore", RuntimeWarning)
        numbers = dequantize(blocks.numpy(), GGMLQuantizationType(TYPES[dtype].number))
    return torch.from_numpy(numbers.copy()).float()
