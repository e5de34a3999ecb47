"""From a file or folder, or a network in memory, to the picture encoder of an IP-Adapter: CLIP's, or SigLIP's with
its head."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from fluxone.nn.clip_vision import ClipVisionEncoder
from fluxone.nn.siglip_pooled import SiglipPooledEncoder
from fluxone.weights.beside import clip_vision_shape, open_beside
from fluxone.weights.fill import load_module
from fluxone.weights.formats.beside import CLIP_VISION, SIGLIP_POOLED
from fluxone.weights.redux import siglip_shape


def load_clip_vision(path: Path | nn.Module, dtype: torch.dtype) -> ClipVisionEncoder:
    """Load a CLIP picture encoder, alone or out of a whole CLIP.

    Raises:
        BadFile: there is no such file.
        BadWeights: it is something else.
    """
    part = open_beside(path, CLIP_VISION)
    shape = clip_vision_shape(part)
    return load_module(lambda: ClipVisionEncoder(shape), part, dtype=dtype)


def load_siglip_pooled(path: Path | nn.Module, dtype: torch.dtype) -> SiglipPooledEncoder:
    """Load a SigLIP picture encoder with its head, alone or out of a whole SigLIP.

    Raises:
        BadFile: there is no such file.
        BadWeights: it is something else, or comes without the head.
    """
    part = open_beside(path, SIGLIP_POOLED)
    shape = siglip_shape(part)
    return load_module(lambda: SiglipPooledEncoder(shape), part, dtype=dtype)
