"""All that wants a GPU, in one go and in order of worth: rates, a step of FLUX.1-dev, autoencoder, T5, memory, tests.

Weights are random, of the true shape. Every stage is on its own: what fails is written down and the rest goes on;
what there is no time for is left out. The result is written after each stage.

    PYTHONPATH=src python3 tools/gpu_suite.py --seconds 100 --out FOLDER [--only step,fp8] [--small]
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import platform
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fluxone.bench import ceilings
from fluxone.bench.measure import Row, Way, clock, take_turns
from fluxone.bench.nets import Case, Given, ours, theirs, weights
from fluxone.nn.attention import ATTENTION
from fluxone.nn.autoencoder import AutoEncoder
from fluxone.nn.clip import ClipTextEncoder
from fluxone.nn.t5 import T5Encoder
from fluxone.nn.tokens import unpack
from fluxone.nn.transformer import Flux
from fluxone.quant import kernels
from fluxone.quant.apply import quantize
from fluxone.quant.fused import fuse
from fluxone.shapes import AutoEncoderShape, ClipShape, FluxShape, T5Shape

ROOT = Path(__file__).parent.parent
DEV = Case(name="dev", shape=FluxShape(), grid=(64, 64), text=512)
TINY = Case(
    name="tiny", grid=(4, 6), text=8,
    shape=FluxShape(hidden=128, heads=2, axes=(16, 24, 24), double_blocks=2, single_blocks=2, text_dim=64, vec_dim=32),
)  # fmt: skip
LEVELS = 2  # noise levels a round: compute-bound work takes as long at each
BF16 = torch.bfloat16


@dataclass
class Run:
    """What the stages share: the time, the case, the weights, what was found."""

    case: Case
    device: torch.device
    seconds: float
    out: Path
    began: float = field(default_factory=time.monotonic)
    found: dict[str, Any] = field(default_factory=dict)
    kept: dict[str, Any] = field(default_factory=dict)

    @property
    def left(self) -> float:
        """Seconds until the time is up."""
        return self.seconds - (time.monotonic() - self.began)

    def state(self) -> dict[str, Tensor]:
        """The weights, made once."""
        if "state" not in self.kept:
            self.kept["state"] = weights(self.case, self.device, BF16)
            self.kept["given"] = Given.of(self.case, self.device, BF16)
            model = ours(self.case, self.kept["state"])
            self.kept["modulation"] = self.kept["given"].modulation(model)
        return self.kept["state"]

    def way(self, name: str, model: Flux, attend: str, limit: float | None = None) -> Way:
        """A contestant of ours."""
        model.attend = ATTENTION[attend]
        given, modulation = self.kept["given"], self.kept["modulation"]
        return Way(name=f"{name}, {attend}", step=lambda level: given.step(model, modulation, level), limit=limit)

    def write(self) -> None:
        """What was found so far, as JSON."""
        self.out.mkdir(parents=True, exist_ok=True)
        path = self.out / f"{time.strftime('%Y-%m-%d')}-{self.found['commit']}.json"
        path.write_text(json.dumps(self.found, indent=1), encoding="utf-8")


def facts(run: Run) -> dict[str, Any]:
    """Which machine, which software."""
    name = torch.cuda.get_device_name(run.device) if run.device.type == "cuda" else platform.processor()
    versions = {"torch": torch.__version__, "python": platform.python_version()}
    return {"device": name, **versions, "triton": kernels.available()}


def rates(run: Run, found: dict[str, Any]) -> None:
    """Ceilings, and the quickest attention."""
    case = run.case
    found["attention"] = reached = ceilings.attentions(case, run.device, BF16)
    run.kept["attend"] = max(reached, key=reached.__getitem__, default="sdpa")
    found["products"] = ceilings.products(case, run.device, BF16)
    found["copy"] = ceilings.copies(run.device)


def step(run: Run, found: dict[str, Any]) -> None:
    """A step in bfloat16: ours plain and in few passes, diffusers eager, taking turns."""
    state, attend = run.state(), run.kept.get("attend", "sdpa")
    fused = ours(run.case, state)
    fuse(fused)
    ways = [run.way("plain", ours(run.case, state), "sdpa")]
    if kernels.available() and run.device.type == "cuda":
        ways += [run.way("few passes", fused, "sdpa"), run.way("few passes", fused, attend)]
        run.kept["fused"] = fused
    try:
        model = run.kept["theirs"] = theirs(run.case, state)
        given = run.kept["given"]
        ways.append(Way(name="diffusers eager", step=lambda level: given.their_step(model, level)))
    except Exception as error:  # noqa: BLE001  # without it the others are measured all the same
        run.found["diffusers"] = repr(error)
    found |= told(take_turns(ways, run.device, rounds=3, levels=LEVELS))


def fp8_step(run: Run, found: dict[str, Any]) -> None:
    """A step in fp8, by rows, beside bfloat16."""
    state, attend = run.state(), run.kept.get("attend", "sdpa")
    model = ours(run.case, state)
    quantize(model, "fp8-dynamic", BF16)
    run.kept["fp8"] = model
    ways = [run.way("bfloat16", run.kept.get("fused") or ours(run.case, state), attend)]
    ways.append(run.way("fp8-dynamic", model, attend, limit=0.1))
    found |= told(take_turns(ways, run.device, rounds=3, levels=LEVELS))


def decode(run: Run, found: dict[str, Any]) -> None:
    """The autoencoder's decoder at the size of the case: as it is, and in bfloat16 with channels last."""
    shape = AutoEncoderShape() if run.case is DEV else AutoEncoderShape(channels=(32, 32, 32, 32), blocks=1)
    with torch.device(run.device):
        vae = AutoEncoder(shape).requires_grad_(False).eval()
    latent = torch.randn(1, shape.latent, 2 * run.case.grid[0], 2 * run.case.grid[1], device=run.device)
    found["float32"] = timed(run, lambda: vae.decode(latent))
    vae.to(BF16, memory_format=torch.channels_last)
    small = latent.to(BF16, memory_format=torch.channels_last)
    found["bfloat16, channels last"] = timed(run, lambda: vae.decode(small))
    run.kept["vae"] = (vae, small)


def text(run: Run, found: dict[str, Any]) -> None:
    """T5-XXL at 256 and 512 tokens and CLIP-L."""
    if run.case is DEV:
        t5_shape, clip_shape = T5Shape(), ClipShape()
    else:
        t5_shape = T5Shape(vocab=99, hidden=64, layers=2, heads=2, head_dim=32, mlp=64)
        clip_shape = ClipShape(vocab=99, hidden=64, layers=1, heads=1, mlp=64, eos=98)
    t5, clip = filled(T5Encoder, t5_shape, run), filled(ClipTextEncoder, clip_shape, run)
    for tokens in (256, 512):
        ids = torch.randint(0, t5_shape.vocab, (1, tokens), device=run.device)
        found[f"t5 {tokens}"] = timed(run, lambda ids=ids: t5(ids))
    ids = torch.randint(0, clip_shape.vocab, (1, 77), device=run.device)
    found["clip"] = timed(run, lambda: clip(ids)[1])
    run.kept["t5"] = t5


def schnell(run: Run, found: dict[str, Any]) -> None:
    """From token ids to a picture's bytes on the host: 256 words, four steps, the decoder. By the quickest of each."""
    case = replace(run.case, text=256, shape=replace(run.case.shape, guided=False)) if run.case is DEV else run.case
    vae, _ = run.kept["vae"]
    given, shape = Given.of(case, run.device, BF16), vae.shape
    for name in ("fused", "fp8"):
        model = run.kept.get(name)
        if model is None:
            continue
        modulation = given.modulation(model)
        ids = torch.zeros(1, case.text, dtype=torch.long, device=run.device)

        def picture(model: Flux = model, modulation: Any = modulation, ids: Tensor = ids) -> Tensor:
            run.kept["t5"](ids)
            for level in range(4):
                v = given.step(model, modulation, level)
            latent = unpack(v, *case.grid)[:, : shape.latent]
            pixels = vae.decode(latent.to(memory_format=torch.channels_last))
            return (pixels * 127.5 + 127.5).clamp(0, 255).to(torch.uint8).cpu()

        found[name] = timed(run, picture)


def compiled_ends(run: Run, found: dict[str, Any]) -> None:
    """The decoder and T5's blocks, compiled."""
    vae, small = run.kept["vae"]
    quick = torch.compile(vae.decoder.forward)
    found["decode"] = timed(run, lambda: quick(small))
    for block in run.kept["t5"].encoder.block:
        block.compile()
    ids = torch.zeros(1, 256, dtype=torch.long, device=run.device)
    found["t5 256"] = timed(run, lambda: run.kept["t5"](ids))


def memory(run: Run, found: dict[str, Any]) -> None:
    """Peak of a step in fp8 with the modulation's weights gone: what a card must hold."""
    run.state()
    model = run.kept.pop("fp8", None)
    if model is None:
        model = ours(run.case, run.state())
        quantize(model, "fp8-dynamic", BF16)
    for module in model.modulators():
        module.to("meta")
    given, modulation = run.kept["given"], run.kept["modulation"]
    run.kept.clear()
    empty(run)
    before = held(run)
    given.step(model, modulation, 0)
    found |= {"weights": before, "peak": peak(run)}


def compiled(run: Run, found: dict[str, Any]) -> None:
    """A step with each block compiled: ours, and diffusers' with its own recipe."""
    state, attend = run.state(), run.kept.get("attend", "sdpa")
    model = ours(run.case, state)
    for block in (*model.double_blocks, *model.single_blocks):
        block.compile()
    ways = [run.way("few passes", run.kept.get("fused") or ours(run.case, state), attend)]
    ways.append(run.way("compiled blocks", model, attend))
    if run.left > 150 and "theirs" in run.kept:
        other, given = run.kept["theirs"], run.kept["given"]
        other.compile_repeated_blocks(fullgraph=True)
        ways.append(Way(name="diffusers compiled", step=lambda level: given.their_step(other, level)))
    found |= told(take_turns(ways, run.device, rounds=3, levels=LEVELS))


def tests(run: Run, found: dict[str, Any]) -> None:
    """`tests/gpu`."""
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", str(ROOT / "tests" / "gpu")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=max(20, run.left), check=False)
    found |= {"exit": done.returncode, "tail": done.stdout[-3000:]}


STAGES: dict[str, tuple[Callable[[Run, dict[str, Any]], None], float]] = {  # and the seconds that it needs, about
    "rates": (rates, 5),
    "step": (step, 20),
    "fp8": (fp8_step, 10),
    "decode": (decode, 5),
    "text": (text, 6),
    "schnell": (schnell, 4),
    "compiled-ends": (compiled_ends, 40),
    "compiled": (compiled, 60),
    "memory": (memory, 6),
    "tests": (tests, 40),
}
PATIENCE = 3  # times what a stage needs before it is stopped


def told(rows: list[Row]) -> dict[str, Any]:
    """Seconds, the ratio to the first with its interval, error, peak."""
    return {
        row.name: {
            "seconds": row.median, "least": min(row.seconds), "ratio": row.ratio(rows[0]), "error": row.error,
            "valid": row.valid, "peak": row.peak,
        }
        for row in rows
    }  # fmt: skip


def filled(kind: Callable[[Any], nn.Module], shape: object, run: Run) -> Any:
    """A network with small random weights."""
    with torch.device("meta"):
        network = kind(shape).to(BF16)
    network.to_empty(device=run.device).requires_grad_(False).eval()
    for tensor in (*network.parameters(), *network.buffers()):
        if tensor.is_floating_point():
            tensor.normal_(0, 0.02)
    return network


def timed(run: Run, work: Callable[[], Any]) -> float:
    """The median of five after two for warmth."""
    take = clock(run.device)
    with torch.inference_mode():
        return sorted(take(work)[1] for _ in range(7))[3]


def empty(run: Run) -> None:
    """Give everything back that nobody holds."""
    gc.collect()
    if run.device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(run.device)


def held(run: Run) -> int:
    """Bytes of the device that are in use."""
    return torch.cuda.memory_allocated(run.device) if run.device.type == "cuda" else 0


def peak(run: Run) -> int:
    """Bytes of the device at the worst moment."""
    return torch.cuda.max_memory_allocated(run.device) if run.device.type == "cuda" else 0


def commit() -> str:
    """The short name of the commit, where there is git."""
    command = ["git", "rev-parse", "--short", "HEAD"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    return done.stdout.strip() or "unknown"


def overdue(number: int, frame: object) -> None:
    """A stage has had its time."""
    raise TimeoutError("this stage took too long")


def main() -> None:
    """Run the stages."""
    os.environ["FLUXONE_TRITON"] = "1"  # the passes by Triton are among what is measured
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=450)
    parser.add_argument("--out", default="benchmarks")
    parser.add_argument("--only", default="", help="stages, with commas")
    parser.add_argument("--small", action="store_true", help="a tiny network, to try the script")
    options = parser.parse_args()
    device = torch.device("cuda:0" if torch.cuda.is_available() else "cpu")
    case = TINY if options.small else DEV
    run = Run(case=case, device=device, seconds=options.seconds, out=Path(options.out))
    run.found = {"commit": commit(), "case": replace(case).name, "facts": facts(run), "failed": {}, "left out": []}
    signal.signal(signal.SIGALRM, overdue)
    for name, (stage, needs) in STAGES.items():
        if options.only and name not in options.only.split(","):
            continue
        if run.left < needs:
            run.found["left out"].append(name)
            continue
        start = time.monotonic()
        found = run.found[name] = {}
        signal.alarm(max(1, int(min(run.left, PATIENCE * needs))))
        try:
            with torch.inference_mode():
                stage(run, found)
        except BaseException as error:  # noqa: BLE001  # the other stages are worth having
            run.found["failed"][name] = "".join(traceback.format_exception(error))[-3000:]
        finally:
            signal.alarm(0)
        print(f"{name}: {time.monotonic() - start:.1f} s {json.dumps(found)[:1500]}", flush=True)
        empty(run)
        run.write()
    print(json.dumps(run.found["failed"], indent=1))


if __name__ == "__main__":
    main()
