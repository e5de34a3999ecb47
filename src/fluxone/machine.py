"""What a machine can do: rates, memory, bus. A table for accelerators; the CPU at hand is tried for a moment.

Rates of accelerators are what good kernels reach, in operations a second, from the sources named in
docs/performance.md; none of them was measured by this project. They rank choices and are not promises.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import torch
from torch import nn

from fluxone.errors import BadRequest
from fluxone.extent import Extent
from fluxone.nn.attention import ATTENTION
from fluxone.quant import kept
from fluxone.quant.apply import SCHEMES
from fluxone.quant.layer import QuantLinear
from fluxone.recipe import KEPT

GIB = 2**30
TERA, GIGA = 1e12, 1e9
CPU_BASE = int(0.45 * GIGA)  # Python, torch and its threads' buffers
GPU_BASE = int(0.6 * GIGA)  # the driver's context and the libraries' workspaces
LEFT = 0.9  # share of the memory that is free now which a plan may count on
EAGER = 130  # bytes that memory moves for each number that a block carries along, without fusion
CPU_EAGER = 30e-9  # the same in seconds of one core. Source: docs/performance.md, what is left beside the products
KEPT_BYTES = 60.0  # bytes that memory moves to unpack a number of a GGUF file, pass by pass in float32
TRIED = 3072  # width of the products that a CPU is tried with, and tokens
TOKENS = 512
CPU_QUANTS = (None, "int8-dynamic", "int8", "fp8", "nf4")
GPU_QUANTS = (None, "fp8", "int8", "int8-dynamic", "nf4")
FP8_QUANTS = (None, "fp8-dynamic", *GPU_QUANTS[1:])


@dataclass(frozen=True, kw_only=True)
class Machine:
    """Operations a second by what is multiplied, bytes a second by what moves them.

    Attributes:
        rates: by scheme or dtype; a scheme that is not named multiplies in the dtype.
        attends: by dtype.
        decode: operations a second of the autoencoder's convolutions.
        memory, bus, disk: bytes a second.
        device: bytes of its memory.
        base, host_base: bytes used before any weight is there.
        quants: schemes that it can run, None for none.
        kept: seconds to unpack a number of a GGUF file; 0 is not known.
        tried: whether rates already hold what unpacking costs.
    """

    name: str
    kind: str = "cuda"
    rates: dict[str, float]
    attends: dict[str, float] = field(default_factory=dict)
    decode: float
    memory: float
    bus: float = 25 * GIGA
    disk: float = 1.5 * GIGA
    device: int
    base: int = GPU_BASE
    host_base: int = CPU_BASE
    quants: tuple[str | None, ...] = GPU_QUANTS
    kept: float = 0.0
    tried: bool = False
    threads: int = 1

    def rate(self, quant: str | None, dtype: str) -> float:
        """Operations a second of linear layers."""
        return self.rates.get(f"{quant} {dtype}") or self.rates.get(quant or dtype) or self.rates[dtype]

    def attention(self, dtype: str) -> float:
        """Operations a second of attention."""
        return self.attends.get(dtype) or self.rates[dtype] / 2

    def unpack(self, quant: str | None) -> float:
        """Seconds for each packed number of a layer, where it is unpacked before its product."""
        if quant == KEPT:
            return self.kept or KEPT_BYTES / self.memory
        if quant is None or self.tried or not SCHEMES[quant].unpacks:
            return 0.0
        return 5.0 / self.memory  # a byte read, a bfloat16 written and read again

    def overhead(self, extent: Extent) -> float:
        """Seconds of a step for what is no product: norms, rotation, activation, sums."""
        if self.kind == "cpu":
            return CPU_EAGER * extent.passes / self.threads
        return EAGER * extent.passes / self.memory


def _gpu(name: str, gib: int, bf16: float, fp8: float, memory: float, attend: float, bus: float = 25) -> Machine:
    rates = {"bfloat16": bf16 * TERA, "float16": bf16 * TERA, "float32": bf16 * TERA / 8, "int8-dynamic": bf16 * TERA}
    return Machine(
        name=name, device=gib * GIB, rates=rates | ({"fp8-dynamic": fp8 * TERA} if fp8 else {}), memory=memory * GIGA,
        attends={"bfloat16": attend * TERA, "float16": attend * TERA}, decode=bf16 * TERA / 8, bus=bus * GIGA,
        quants=FP8_QUANTS if fp8 else GPU_QUANTS,
    )  # fmt: skip


MACHINES: dict[str, Machine] = {
    row.name: row
    for row in (
        _gpu("h200", 141, 790, 1300, 4300, 609, bus=50),
        _gpu("h100", 80, 790, 1300, 3000, 609, bus=50),
        _gpu("a100", 80, 250, 0, 1900, 180),
        _gpu("l40s", 48, 290, 580, 860, 200),
        _gpu("rtx5090", 32, 190, 380, 1790, 150, bus=50),
        _gpu("rtx4090", 24, 150, 300, 1000, 120),
        _gpu("rtx3090", 24, 65, 0, 930, 55),
        _gpu("rtx4070", 12, 55, 110, 500, 45),
        _gpu("rtx3060", 12, 45, 0, 360, 38, bus=12),
    )
}
USUAL = "rtx4090"  # whose rates a budget without a machine is planned with


def here(device: str) -> Machine:
    """The machine that a device is on.

    Raises:
        BadRequest: it is of a kind whose memory torch cannot tell.
    """
    kind, _, number = device.partition(":")
    if kind == "cpu":
        return cpu()
    if kind != "cuda":
        raise BadRequest(f"the memory of {kind} cannot be planned", hint="say quant and offload yourself")
    facts = torch.cuda.get_device_properties(int(number or torch.cuda.current_device()))
    plain = facts.name.lower().replace(" ", "")
    known = next((row for name, row in MACHINES.items() if name in plain), MACHINES[USUAL])
    return Machine(**{**vars(known), "name": facts.name, "device": facts.total_memory})


def free(device: str) -> tuple[int, int]:
    """Bytes that are free now on the device and in the machine's own memory, less a tenth."""
    host = int(LEFT * available())
    if device.startswith("cuda"):
        index = int(device.partition(":")[2] or torch.cuda.current_device())
        return int(LEFT * torch.cuda.mem_get_info(index)[0]), host
    return host, host


def available() -> int:
    """Bytes that the system can give without swapping."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    except OSError:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable"))


@cache
def cpu() -> Machine:
    """This machine's processor, tried for about a second."""
    rates: dict[str, float] = {}
    x = torch.randn(TOKENS, TRIED)
    for dtype in (torch.float32, torch.bfloat16):
        word, given = str(dtype).removeprefix("torch."), x.to(dtype)
        layer = nn.Linear(TRIED, TRIED, bias=False, dtype=dtype).requires_grad_(False)
        work = 2 * TOKENS * TRIED**2
        rates[word] = work / _quickest(lambda layer=layer, given=given: layer(given))  # type: ignore[misc]
        for quant in CPU_QUANTS[1:]:
            packed = QuantLinear.of(layer, SCHEMES[str(quant)], dtype)
            rates[f"{quant} {word}"] = work / _quickest(lambda packed=packed, given=given: packed(given))  # type: ignore[misc]
    heads = torch.randn(1, 4, 2 * TOKENS, 128)
    attends = {}
    for word, dtype in (("float32", torch.float32), ("bfloat16", torch.bfloat16)):
        q = heads.to(dtype)
        attends[word] = 4 * 4 * (2 * TOKENS) ** 2 * 128 / _quickest(lambda q=q: ATTENTION["sdpa"](q, q, q))  # type: ignore[misc]
    raw = kept.empty("Q4_K", TOKENS, TRIED)["weight"]
    stored = {"weight": torch.zeros(raw.shape, dtype=raw.dtype)}
    unpacks = _quickest(lambda: kept.unpack("Q4_K", stored, torch.float32)) / (TOKENS * TRIED)
    conv, picture = nn.Conv2d(128, 128, 3, padding=1).requires_grad_(False), torch.randn(1, 128, 128, 128)
    decode = 2 * 9 * 128**2 * 128**2 / _quickest(lambda: conv(picture))
    return Machine(
        name="cpu", kind="cpu", rates=rates, attends=attends, decode=decode / 2, memory=10 * GIGA, bus=10 * GIGA,
        device=available(), base=CPU_BASE, quants=CPU_QUANTS, tried=True, threads=torch.get_num_threads(),
        kept=unpacks,
    )  # fmt: skip


@torch.inference_mode()
def _quickest(work: Callable[[], object]) -> float:
    """Seconds of the best of two after one for warmth, as on a machine that does nothing else: processor time."""
    took = []
    for _ in range(3):
        start = time.process_time()
        work()
        took.append(time.process_time() - start)
    return max(min(took[1:]), 1e-9) / torch.get_num_threads()
