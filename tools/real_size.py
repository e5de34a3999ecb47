"""FLUX.1-schnell's true shape on this machine's processor: random weights in few bits, pictures, memory and time.

Writes a model's files (transformer in int8, T5 in fp8, the rest in bfloat16) to FOLDER, plans, draws at every size in a
fresh process, and prints what was planned beside what was measured. Pictures of random weights are noise.

    python tools/real_size.py FOLDER [--sizes 256 512] [--steps 4] [--json FILE] [--keep]
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import time
from importlib.resources import files
from pathlib import Path
from typing import Any

import torch
from torch import nn

from fluxone.nn.autoencoder import AutoEncoder
from fluxone.nn.clip import ClipTextEncoder
from fluxone.nn.t5 import T5Encoder
from fluxone.nn.transformer import Flux
from fluxone.quant.apply import NOTE, SCHEMES, packable
from fluxone.quant.layer import QuantLinear
from fluxone.recipe import Recipe
from fluxone.shapes import AutoEncoderShape, ClipShape, FluxShape, T5Shape
from fluxone.weights.keymap import AUTOENCODER, CLIP, T5, TRANSFORMER
from fluxone.weights.safetensors import Outline, write
from fluxone.weights.save import METADATA

NOISE = 1 << 27  # numbers of noise that all tensors are cut from: more than the largest has
SPREAD = 1 / 64  # of weights, about 1 / sqrt(columns)
CODES = {torch.int8: "I8", torch.float8_e4m3fn: "F8_E4M3", torch.bfloat16: "BF16", torch.float32: "F32"}
STAGES = ("text", "steps", "decode")


def noises() -> dict[str, torch.Tensor]:
    """Random bytes by type, seeded."""
    make = torch.Generator().manual_seed(0)
    whole = torch.randint(-127, 128, (NOISE,), dtype=torch.int8, generator=make)
    real = (whole.float() * (SPREAD / 73)).to(torch.bfloat16)
    return {"I8": whole, "F8_E4M3": (whole.float() / 73).to(torch.float8_e4m3fn), "BF16": real}


def outlines(network: nn.Module, scheme: str | None, noise: dict[str, torch.Tensor]) -> list[Outline]:
    """A network's tensors, its blocks packed by a scheme."""
    for owner, child, layer in list(packable(network)) if scheme else []:
        setattr(owner, child, QuantLinear.of(layer, SCHEMES[str(scheme)], torch.bfloat16))
    found = []
    for index, (name, tensor) in enumerate(network.state_dict().items()):
        code = CODES[tensor.dtype] if tensor.dtype in (torch.int8, torch.float8_e4m3fn) else "BF16"
        if name.endswith("row_scale"):
            code, fill = "F32", SPREAD / 73 if scheme == "int8-dynamic" else SPREAD
        else:
            fill = 1.0 if tensor.ndim < 2 and name.endswith(("scale", "weight")) else 0.0
        at = index * 4099 % (NOISE - tensor.numel())

        def content(tensor: Any = tensor, name: str = name, code: str = code, fill: float = fill, at: int = at) -> Any:
            if tensor.ndim < 2 or name.endswith("row_scale"):
                made = torch.full(tensor.shape, fill, dtype=torch.float32 if code == "F32" else torch.bfloat16)
            else:
                made = noise[code][at : at + tensor.numel()]
            return made.contiguous().view(torch.uint8).numpy().data

        found.append(Outline(name=name, dtype=code, shape=tuple(tensor.shape), content=content))
    return found


def write_model(folder: Path) -> None:
    """All files of a model."""
    folder.mkdir(parents=True, exist_ok=True)
    noise = noises()
    parts: tuple[tuple[str, str, type[nn.Module], object, str | None], ...] = (
        ("flux1-schnell.safetensors", TRANSFORMER, Flux, FluxShape(guided=False), "int8-dynamic"),
        ("t5xxl.safetensors", T5, T5Encoder, T5Shape(), "fp8"),
        ("clip_l.safetensors", CLIP, ClipTextEncoder, ClipShape(), None),
        ("ae.safetensors", AUTOENCODER, AutoEncoder, AutoEncoderShape(), None),
    )
    for file, part, kind, shape, scheme in parts:
        with torch.device("meta"):
            network = kind(shape)
        metadata = METADATA | ({NOTE: json.dumps({part: scheme})} if scheme else {})
        write(folder / file, outlines(network, scheme, noise), metadata)
    for name in ("tokenizer", "tokenizer_2"):
        shutil.copytree(str(files("fluxone") / "assets" / "mini" / name), folder / name, dirs_exist_ok=True)


def draw(folder: Path, size: int, steps: int) -> dict[str, Any]:
    """One picture in this process: memory and seconds, beside what was planned."""
    from fluxone.assembly import assemble
    from fluxone.extent import extent_of, shapes_of
    from fluxone.geometry import Resolution
    from fluxone.machine import cpu
    from fluxone.plan import Choice, estimate
    from fluxone.request import Request

    source, recipe = str(folder / "flux1-schnell.safetensors"), Recipe(device="cpu", dtype="bfloat16")
    resolution = Resolution(width=size, height=size)
    variant, shapes, packed = shapes_of(source, recipe)
    choice = Choice(dtype="bfloat16", quant=packed[TRANSFORMER], quant_t5=packed[T5])
    planned = estimate(extent_of(variant, shapes, resolution, packed), choice, cpu(), steps)
    start = time.perf_counter()
    pipe = assemble(source, recipe)
    loaded = time.perf_counter() - start
    used, start = time.process_time(), time.perf_counter()
    result = pipe(Request(prompt="a red car in the snow", resolution=resolution, steps=steps))
    return {
        "size": size, "variant": variant.name, "planned bytes": planned.device, "planned seconds": planned.seconds,
        "peak bytes": status("VmHWM"), "swapped bytes": status("VmSwap"), "load seconds": loaded,
        "seconds": result.seconds, "wall seconds": time.perf_counter() - start,
        "processor seconds": time.process_time() - used, "threads": torch.get_num_threads(),
    }  # fmt: skip


def status(key: str) -> int:
    """A line of the process's status, in bytes."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{key}:"))


def main() -> None:
    """Write, draw in fresh processes, print, delete."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--sizes", type=int, nargs="+", default=(256, 512))
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--keep", action="store_true", help="leave the files")
    parser.add_argument("--draw", type=int, help="draw one size from the files that are there, in this process")
    options = parser.parse_args()
    if options.draw:
        print(json.dumps(draw(options.folder, options.draw, options.steps)))
        return
    try:
        if not (options.folder / "ae.safetensors").exists():
            write_model(options.folder)
        found = []
        for size in options.sizes:
            asked = ["--draw", str(size), "--steps", str(options.steps)]
            command = [sys.executable, __file__, str(options.folder), *asked]
            done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
            found.append(json.loads(done.stdout))
            print(done.stdout.strip(), flush=True)
        if options.json:
            options.json.write_text(json.dumps(found, indent=1), encoding="utf-8")
    finally:
        if not options.keep:
            shutil.rmtree(options.folder, ignore_errors=True)


if __name__ == "__main__":
    main()
