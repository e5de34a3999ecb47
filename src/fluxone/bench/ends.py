"""What comes before and after the steps: the text encoders and the decoder, with random weights of the true shapes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from fluxone.bench.measure import clock
from fluxone.nn.autoencoder import AutoEncoder
from fluxone.nn.clip import ClipTextEncoder
from fluxone.nn.t5 import T5Encoder
from fluxone.shapes import AutoEncoderShape, ClipShape, T5Shape

NO_PICTURE = AutoEncoderShape(channels=(32, 32, 32, 32), blocks=1)  # where only a step is counted
TRIES = 5


def filled(kind: Callable[[Any], nn.Module], shape: object, device: torch.device, dtype: torch.dtype) -> Any:
    """A network with small random weights."""
    with torch.device("meta"):
        network = kind(shape).to(dtype)
    network.to_empty(device=device).requires_grad_(False).eval()
    for tensor in (*network.parameters(), *network.buffers()):
        if tensor.is_floating_point():
            tensor.normal_(0, 0.02)
    return network


@torch.inference_mode()
def measure(device: torch.device, dtype: torch.dtype = torch.bfloat16) -> dict[str, float]:
    """Seconds of T5-XXL at 256 and 512 tokens, of CLIP, and of decoding 1024x1024 in float32."""
    timed = clock(device)

    def median(work: Callable[[], Any]) -> float:
        work()
        return sorted(timed(work)[1] for _ in range(TRIES))[TRIES // 2]

    found = {}
    t5, clip = filled(T5Encoder, T5Shape(), device, dtype), filled(ClipTextEncoder, ClipShape(), device, dtype)
    for tokens in (256, 512):
        ids = torch.zeros(1, tokens, dtype=torch.long, device=device)
        found[f"t5 {tokens}"] = median(lambda ids=ids: t5(ids))  # type: ignore[misc]
    words = torch.zeros(1, 77, dtype=torch.long, device=device)
    found["clip"] = median(lambda: clip(words)[1])
    del t5, clip
    vae = filled(AutoEncoder, AutoEncoderShape(), device, torch.float32)
    latent = torch.randn(1, 16, 128, 128, device=device)
    found["decode"] = median(lambda: vae.decode(latent))
    return found
