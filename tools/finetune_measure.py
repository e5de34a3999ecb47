"""What fine-tuning costs on FLUX.1-dev's shape: two steps of a LoRA beside random fp8 weights, memory and time.

    python tools/finetune_measure.py [--size 256] [--text 512] [--rank 16] [--device cuda]

All linear layers of the blocks, those of modulation too, are fp8 with random numbers; latents and captions are random.
Nothing is written.
"""

from __future__ import annotations

import argparse
import json
import resource
import tempfile
from pathlib import Path

import torch
from PIL import Image
from torch import nn

from fluxone.assembly import connect
from fluxone.nn.autoencoder import AutoEncoder
from fluxone.nn.transformer import Flux
from fluxone.quant.apply import SCHEMES
from fluxone.quant.layer import QuantLinear
from fluxone.recipe import Recipe
from fluxone.shapes import AutoEncoderShape
from fluxone.text.encode import Text
from fluxone.tune.beside import Beside, fresh, numbers
from fluxone.tune.cache import Cache
from fluxone.tune.folder import Example
from fluxone.tune.kinds import Size
from fluxone.tune.learner import Learner
from fluxone.tune.material import Material
from fluxone.tune.memory import estimate
from fluxone.tune.recompute import recomputed
from fluxone.tune.settings import Settings
from fluxone.tune.trainer import Trainer
from fluxone.variants import DEV
from fluxone.weights.load import Bundle

FINITE = 0xBF  # clears the exponent's highest bit: no byte is then NaN


def network(device: str) -> Flux:
    """The real network's shape with packed random blocks."""
    with torch.device("meta"):
        made = Flux(DEV.shape)
    for block in (*made.double_blocks, *made.single_blocks):
        for owner in list(block.modules()):
            for name, child in list(owner.named_children()):
                if type(child) is nn.Linear:
                    setattr(owner, name, QuantLinear.of(child, SCHEMES["fp8"], torch.bfloat16))
    made = made.to_empty(device=device)
    source = torch.Generator(device).manual_seed(0)
    for name, tensor in (*made.named_parameters(), *made.named_buffers()):
        data = tensor.data
        if data.dtype == torch.float8_e4m3fn:
            rows = data.view(torch.uint8)
            rows.random_(0, 256, generator=source).bitwise_and_(FINITE)
        elif name.endswith("row_scale"):
            data.fill_(2.0**-7)
        else:
            data.normal_(0, 0.02, generator=source) if data.ndim > 1 else data.fill_(1.0 if "norm" in name else 0.0)
    for module in made.modules():  # parameters made on meta have the network's default type
        for name, p in list(module._parameters.items()):
            if p is not None and p.dtype == torch.float32:
                module._parameters[name] = nn.Parameter(p.detach().to(torch.bfloat16), requires_grad=False)
    return made.eval().requires_grad_(False)


def peak(device: str) -> float:
    """GiB."""
    if device.startswith("cuda"):
        return torch.cuda.max_memory_allocated() / 2**30
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def main() -> None:
    """Make, train two steps, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--text", type=int, default=512)
    parser.add_argument("--rank", type=int, default=16)
    parser.add_argument("--steps", type=int, default=2)
    parser.add_argument("--device", default="cpu")
    asked = parser.parse_args()
    made = network(asked.device)
    told: dict[str, object] = {"weights GiB": round(peak(asked.device), 2)}
    coder = AutoEncoder(AutoEncoderShape()).eval().requires_grad_(False)
    bundle = Bundle(variant=DEV, transformer=made, autoencoder=coder, t5=None, clip=None, t5_tokenizer=None,
                    clip_tokenizer=None, source="random")  # fmt: skip
    pipeline = connect(bundle, Recipe(device=asked.device, dtype="bfloat16"))
    pipeline.encode = lambda *given, **more: Text(  # type: ignore[method-assign]
        txt=torch.randn(1, asked.text, DEV.shape.text_dim), pooled=torch.randn(1, DEV.shape.vec_dim), cut=(0,),
        clip_cut=(0,),
    )  # fmt: skip
    settings = Settings(size=asked.size, rank=asked.rank, steps=asked.steps, checkpointing=True, drop=0.0)
    deltas = fresh(made, "lora", settings.targets, Size(rank=asked.rank, alpha=asked.rank), 0)
    beside = Beside(made, deltas)
    recomputed(made)
    with tempfile.TemporaryDirectory() as place:
        path = Path(place) / "a.png"
        Image.linear_gradient("L").resize((asked.size, asked.size)).convert("RGB").save(path)
        material = Material(pipeline, Cache(pipeline, Path(place)), settings, [Example(path=path, text="a")])
        material.prepare()
        trainer = Trainer(Learner(pipeline, beside, material, settings), settings, Path(place), data="")
        steps = [trainer.advance() for _ in range(asked.steps)]
    tokens = (asked.size // 16) ** 2
    guess = estimate(DEV.shape, deltas, settings, tokens=tokens, text=asked.text, quant="fp8", width=2)
    told |= {"peak GiB": round(peak(asked.device), 2), "estimate": str(guess), "learnt": numbers(deltas)}
    told |= {"size": asked.size, "tokens": tokens + asked.text, "device": asked.device}
    told |= {"seconds a step": [round(step.seconds, 2) for step in steps], "loss": [step.loss for step in steps]}
    print(json.dumps(told, indent=1))


if __name__ == "__main__":
    main()
