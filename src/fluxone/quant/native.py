"""`fused.c` and what it includes, built for this machine when first needed and kept in the cache; None without it.

A C compiler (`cc`) is enough. FLUXONE_NATIVE=0 does without it, FLUXONE_CACHE says where the result is kept.
"""

from __future__ import annotations

import ctypes
import hashlib
import logging
import os
import platform
import secrets
import shutil
import subprocess
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

NAMES = ("fused.c", "native.c", "product.c", "attend.c")  # the first includes the others
SOURCES = tuple(Path(__file__).with_name(name) for name in NAMES)
OPTIONS = (
    "-O3", "-march=native", "-ffp-contract=off", "-fno-math-errno", "-fno-trapping-math", "-shared", "-fPIC",
)  # fmt: skip
PANEL = 64  # what a product's sizes are multiples of, `product.c`
MANY = 1 << 18  # numbers from which threads share them
PATIENCE = 120  # seconds that the compiler may take
WORDS = {torch.float32: "f32", torch.bfloat16: "bf16"}
LOG = logging.getLogger("fluxone")


@cache
def library() -> ctypes.CDLL | None:
    """The compiled passes, or None without a compiler."""
    compiler = shutil.which("cc")
    if compiler is None or os.name != "posix" or os.environ.get("FLUXONE_NATIVE") == "0":
        return None
    place = Path(os.environ.get("FLUXONE_CACHE") or Path.home() / ".cache" / "fluxone") / "native"
    sources = [path.read_text(encoding="utf-8") for path in SOURCES]
    told = "\n".join((*sources, *OPTIONS, platform.machine(), _processor()))
    path = place / f"{hashlib.sha256(told.encode()).hexdigest()[:24]}.so"
    part = path.with_suffix(f".{secrets.token_hex(4)}.part")
    try:
        if not path.exists():
            place.mkdir(parents=True, exist_ok=True)
            command = [compiler, *OPTIONS, "-o", str(part), str(SOURCES[0]), "-lm"]
            subprocess.run(command, check=True, capture_output=True, timeout=PATIENCE)
            part.replace(path)
        return ctypes.CDLL(str(path))
    except (OSError, subprocess.SubprocessError) as error:
        LOG.info("int8 works without its compiled passes: %s", error)
        return None
    finally:
        part.unlink(missing_ok=True)


def helps(x: Tensor) -> bool:
    """Whether the compiled passes can be used for a tensor; torch's compiler makes passes of its own."""
    here = x.device.type == "cpu" and x.dtype in WORDS and not torch.compiler.is_compiling()
    return here and library() is not None


def product(x: Tensor, weight: Tensor) -> Tensor:
    """x (R I) times the turned weight (O I), int8 by int8 into int32 (R O), exactly.

    A loop of ours where the processor has AVX-512 VNNI and the sizes fit it, else torch's.
    """
    (rows, columns), out = x.shape, weight.shape[0]
    work = _product()
    if work is None or columns % PANEL or out % PANEL or not (x.is_contiguous() and weight.is_contiguous()):
        return torch._int_mm(x, weight.t())
    sums = torch.empty(rows, out, dtype=torch.int32)
    places = x.data_ptr(), weight.data_ptr(), sums.data_ptr()
    shared(lambda start, stop: work(*places, rows, columns, out, start, stop), out // PANEL, rows * out)
    return sums


@cache
def _product() -> Callable[..., None] | None:
    """`product.c`, where this processor's library has it."""
    work: Callable[..., None] | None = getattr(library(), "product_i8", None)
    if work is not None:
        work.argtypes = [ctypes.c_void_p] * 3 + [ctypes.c_long] * 5  # type: ignore[attr-defined]
        work.restype = None  # type: ignore[attr-defined]
    return work


def attended(q: Tensor, k: Tensor, v: Tensor) -> Tensor | None:
    """Attention of (heads, positions, size) in bfloat16 by `attend.c`, or None where that cannot be."""
    heads, total, size = q.shape
    work, room = _attend()
    if work is None or room is None or q.dtype != torch.bfloat16 or size % PANEL:
        return None
    mixed, factor, bytes_ = torch.empty_like(q), size**-0.5, room(total, size)
    places = q.data_ptr(), k.data_ptr(), v.data_ptr(), mixed.data_ptr(), factor

    def part(start: int, stop: int) -> None:
        own = torch.empty(bytes_, dtype=torch.uint8)
        work(*places, own.data_ptr(), total, size, start, stop)

    shared(part, heads * total, heads * total**2)
    return mixed


@cache
def _attend() -> tuple[Callable[..., None] | None, Callable[[int, int], int] | None]:
    """`attend.c` and the bytes it needs, where this processor's library has them."""
    work: Callable[..., None] | None = getattr(library(), "attend_bf16", None)
    room: Callable[[int, int], int] | None = getattr(library(), "attend_room", None)
    if work is not None and room is not None:
        places = [ctypes.c_void_p] * 4
        work.argtypes = [*places, ctypes.c_float, ctypes.c_void_p, *[ctypes.c_long] * 4]  # type: ignore[attr-defined]
        work.restype = None  # type: ignore[attr-defined]
        room.argtypes, room.restype = [ctypes.c_long] * 2, ctypes.c_long  # type: ignore[attr-defined]
    return work, room


def quantized(x: Tensor) -> tuple[Tensor, Tensor]:
    """Rows (N I) as int8 numbers and their scales (N), float32, in one pass."""
    x = x.contiguous()
    numbers, scales = torch.empty(x.shape, dtype=torch.int8), torch.empty(x.shape[0])
    _call("quantize", x.dtype, (x, numbers, scales), (), x.shape[1])
    return numbers, scales


def finished(sums: Tensor, scales: Tensor, weights: Tensor, bias: Tensor, dtype: torch.dtype) -> Tensor:
    """sums (N O, int32) * scales (N) * weights (O) + bias (O), the factors float32, as a type, in one pass."""
    sums, bias = sums.contiguous(), bias.contiguous()
    out = torch.empty(sums.shape, dtype=dtype)
    _call("finish", dtype, (sums, scales, out), (weights, bias), sums.shape[1])
    return out


class Gelu(nn.Module):
    """The tanh form of GELU, in one pass where there is a compiler and nobody asks for gradients."""

    def forward(self, x: Tensor) -> Tensor:
        """The activation of each number, in its type."""
        rows = x.reshape(-1, x.shape[-1])
        if not helps(x) or rows.stride(-1) != 1 or (x.requires_grad and torch.is_grad_enabled()):
            return F.gelu(x, approximate="tanh")
        out = torch.empty(rows.shape, dtype=x.dtype)
        _call("gelu", x.dtype, (rows, out), (), rows.shape[1], rows.stride(0))
        return out.view(x.shape)


def _call(name: str, dtype: torch.dtype, by_row: tuple[Tensor, ...], others: tuple[Tensor, ...], *sizes: int) -> None:
    work = getattr(library(), f"{name}_{WORDS[dtype]}")

    def part(start: int, stop: int) -> None:
        tensors = [*(tensor[start:stop] for tensor in by_row), *others]
        counts = (stop - start, *sizes)
        work(*(ctypes.c_void_p(tensor.data_ptr()) for tensor in tensors), *(ctypes.c_long(count) for count in counts))

    shared(part, by_row[0].shape[0], by_row[0].numel())


def shared(part: Callable[[int, int], None], rows: int, numbers: int) -> None:
    """Let each of torch's number of threads work on its share of the rows; few numbers are not worth sharing."""
    threads = torch.get_num_threads() if numbers >= MANY else 1
    share = -(-rows // threads)
    if share < rows:
        list(_crew(threads).map(lambda start: part(start, min(start + share, rows)), range(0, rows, share)))
    elif rows:
        part(0, rows)


@cache
def _crew(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, thread_name_prefix="fluxone-native")


def _processor() -> str:
    """What tells one processor from another that shares the cache."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next((line for line in lines if line.startswith(("flags", "Features"))), "")
