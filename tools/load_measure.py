"""Measure what loading a full-size transformer costs: memory at its peak, and time.

Writes a random file of FLUX.1-dev's shape in float8_e4m3fn (11.9 billion numbers, 12 GB) to a folder, loads it in
a fresh process for each way of loading, prints what the system says of the process, and deletes the file.

    python tools/load_measure.py FOLDER
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path

import torch

from fluxone.nn.transformer import Flux
from fluxone.shapes import FluxShape
from fluxone.weights import configs, sizes
from fluxone.weights.fill import load_module
from fluxone.weights.identify import shape_of
from fluxone.weights.parts import file_parts
from fluxone.weights.safetensors import Outline, write

NOISE = 96 * 2**20  # bytes of noise that all tensors are cut from; the largest tensor has 66 million
FINITE = 0xBF  # clears the exponent's highest bit, so that no byte means NaN and all numbers are below 2
MIB = 2**20


def write_model(path: Path, shape: FluxShape) -> None:
    """Write random fp8 weights of a shape, under native names."""
    generator = torch.Generator().manual_seed(0)
    noise = torch.randint(0, 256, (NOISE,), dtype=torch.uint8, generator=generator).bitwise_and_(FINITE).numpy()
    with torch.device("meta"):
        state = Flux(shape).state_dict()

    def outline(index: int, name: str, tensor: torch.Tensor) -> Outline:
        at = index * 4099 % (NOISE - tensor.numel())
        return Outline(
            name=name,
            dtype="F8_E4M3",
            shape=tuple(tensor.shape),
            content=lambda: noise[at : at + tensor.numel()].data,
        )

    write(path, [outline(index, *item) for index, item in enumerate(state.items())], {})


def status(key: str) -> float:
    """One line of the process's status, MiB."""
    return _field(Path("/proc/self/status"), key)


def rollup(key: str) -> float:
    """One line of the sum over the process's mappings, MiB."""
    return _field(Path("/proc/self/smaps_rollup"), key)


def _field(path: Path, key: str) -> float:
    line = next(line for line in path.read_text().splitlines() if line.startswith(f"{key}:"))
    return int(line.split()[1]) / 1024


def measure(path: Path, *, mmap: bool, read: bool) -> dict[str, float]:
    """Load a file in this process and tell its memory, MiB, and the time, s; `read` touches every page afterwards."""
    part = file_parts(path)["transformer"]
    shape = shape_of(part, configs.read_flux, sizes.flux)
    found = {"before": status("VmRSS")}
    start = time.perf_counter()
    module = load_module(lambda: Flux(shape), part, mmap=mmap)
    found |= {"seconds": time.perf_counter() - start, "peak": status("VmHWM"), "anonymous": rollup("Anonymous")}
    found["resident"] = rollup("Rss")
    if read:
        start = time.perf_counter()
        for parameter in module.parameters():
            parameter.view(torch.uint8).flatten()[::4096].sum()
        found |= {"read seconds": time.perf_counter() - start, "read peak": status("VmHWM")}
        found |= {"read anonymous": rollup("Anonymous"), "read resident": rollup("Rss")}
    bytes_of = [parameter.numel() * parameter.itemsize for parameter in module.parameters()]
    return found | {"model": sum(bytes_of) / MIB, "largest tensor": max(bytes_of) / MIB}


def main() -> None:
    """Write, load in fresh processes, print, delete."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--blocks", type=int, nargs=2, default=(19, 38), help="double and single blocks")
    parser.add_argument("--load", choices=("shared", "copied"), help="load the file at FOLDER, in this process")
    options = parser.parse_args()
    if options.load:
        shared = options.load == "shared"
        print(json.dumps(measure(options.folder, mmap=shared, read=shared)))
        return
    path = options.folder / "load-measure.safetensors"
    double, single = options.blocks
    try:
        start = time.perf_counter()
        write_model(path, FluxShape(double_blocks=double, single_blocks=single))
        print(f"wrote {path.stat().st_size / 1e9:.2f} GB in {time.perf_counter() - start:.0f} s")
        for way in ("shared", "copied"):
            command = [sys.executable, __file__, str(path), "--load", way]
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            print(way, json.dumps({key: round(value, 2) for key, value in json.loads(done.stdout).items()}))
    finally:
        path.unlink(missing_ok=True)


if __name__ == "__main__":
    main()
