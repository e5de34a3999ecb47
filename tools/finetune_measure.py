"""What fine-tuning costs on FLUX.1-dev's shape: two steps of a LoRA beside random fp8 weights, memory and time.

    python tools/finetune_measure.py --size 256 --out finetune-12b.json
    python tools/finetune_measure.py --size 512 --device cuda --offload block --swap 42

All linear layers of the blocks, those of modulation too, are fp8 with random numbers; latents and captions are random.
`--offload disk` keeps the blocks in a file. What is found is printed, and written to OUT.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
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
from fluxone.shapes import AutoEncoderShape, FluxShape
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
from fluxone.tune.swap import here
from fluxone.tune.trainer import Tick, Trainer
from fluxone.variants import DEV
from fluxone.weights.load import Bundle

FINITE = 0xBF  # clears the exponent's highest bit: no byte is then NaN
GIB = 2**30
SHAPES = {
    "dev": FluxShape(),
    "tiny": FluxShape(hidden=64, heads=2, axes=(8, 12, 12), double_blocks=2, single_blocks=3, text_dim=32, vec_dim=16),
}
CODERS = {"dev": AutoEncoderShape(), "tiny": AutoEncoderShape(channels=(32, 32, 32, 32), blocks=1)}


def network(shape: FluxShape, device: str) -> Flux:
    """A network of that shape with packed random blocks."""
    with torch.device("meta"):
        made = Flux(shape)
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
    """GiB at the worst moment since `forget`."""
    if device.startswith("cuda"):
        return torch.cuda.max_memory_allocated() / GIB
    found = re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text(encoding="ascii"))
    assert found is not None
    return int(found[1]) / 2**20


def forget(device: str) -> None:
    """Let `peak` begin anew; where the system does not, it goes on from the start of the process."""
    if device.startswith("cuda"):
        torch.cuda.reset_peak_memory_stats()
        return
    try:
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    except OSError:
        return


def trained(asked: argparse.Namespace, made: Flux, settings: Settings) -> tuple[list[Tick], int, str]:
    """So many steps; what they told, how many numbers learn, and what was estimated."""
    shape = SHAPES[asked.shape]
    variant = replace(DEV, shape=shape)
    coder = AutoEncoder(CODERS[asked.shape]).eval().requires_grad_(False)
    bundle = Bundle(variant=variant, transformer=made, autoencoder=coder, t5=None, clip=None, t5_tokenizer=None,
                    clip_tokenizer=None, source="random")  # fmt: skip
    pipeline = connect(bundle, Recipe(device=asked.device, dtype="bfloat16", offload=asked.offload))
    pipeline.encode = lambda *given, **more: Text(  # type: ignore[method-assign]
        txt=torch.randn(1, asked.text, shape.text_dim), pooled=torch.randn(1, shape.vec_dim), cut=(0,), clip_cut=(0,),
    )  # fmt: skip
    deltas = fresh(made, "lora", settings.targets, Size(rank=asked.rank, alpha=asked.rank), 0)
    tokens = (asked.size // 16) ** 2
    guess = estimate(shape, deltas, settings, tokens=tokens, text=asked.text, quant="fp8", width=2)
    with tempfile.TemporaryDirectory() as place, here(pipeline, settings.swap):
        beside = Beside(made, deltas)
        if not settings.swap:
            recomputed(made)
        path = Path(place) / "a.png"
        Image.linear_gradient("L").resize((asked.size, asked.size)).convert("RGB").save(path)
        material = Material(pipeline, Cache(pipeline, Path(place)), settings, [Example(path=path, text="a")])
        material.prepare()
        trainer = Trainer(Learner(pipeline, beside, material, settings), settings, Path(place), data="")
        return [trainer.advance() for _ in range(asked.steps)], numbers(deltas), str(guess)


def main(arguments: Sequence[str] | None = None) -> None:
    """Make, train two steps, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=256, help="px of the square picture")
    parser.add_argument("--text", type=int, default=512, help="tokens of the caption")
    parser.add_argument("--rank", type=int, default=16)
    parser.add_argument("--steps", type=int, default=2)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--offload", default="none", choices=("none", "block", "disk"))
    parser.add_argument("--swap", type=int, help="blocks that come and go; with an offload all of them")
    parser.add_argument("--shape", default="dev", choices=tuple(SHAPES))
    parser.add_argument("--out", type=Path, help="a JSON file of what was found")
    asked = parser.parse_args(arguments)
    shape, begun = SHAPES[asked.shape], time.perf_counter()
    every = shape.double_blocks + shape.single_blocks
    swap = 0 if asked.offload == "none" else every if asked.swap is None or asked.offload == "disk" else asked.swap
    made = network(shape, asked.device if asked.offload == "none" else "cpu")
    told: dict[str, object] = {"made GiB": round(peak("cpu"), 2), "made seconds": round(time.perf_counter() - begun, 1)}
    forget(asked.device)
    settings = Settings(size=asked.size, rank=asked.rank, steps=asked.steps, checkpointing=True, drop=0.0, swap=swap)
    steps, learnt, guess = trained(asked, made, settings)
    told |= {"peak GiB": round(peak(asked.device), 2), "estimate": guess, "learnt": learnt, "swap": swap}
    told |= {"size": asked.size, "tokens": (asked.size // 16) ** 2 + asked.text, "offload": asked.offload}
    told |= {"device": asked.device, "machine": f"{platform.machine()}, {os.cpu_count()} CPUs"}
    told |= {"seconds a step": [round(step.seconds, 2) for step in steps], "loss": [step.loss for step in steps]}
    text = json.dumps(told, indent=1)
    print(text)
    if asked.out is not None:
        asked.out.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
