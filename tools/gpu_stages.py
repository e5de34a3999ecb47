"""The stages of `gpu_suite.py`: each is a function of a run, in order of worth, with the seconds that it needs.

A stage asks the run for what it shares with others (weights, networks, encoders), which is made when it is first asked
for, so that any stage can be run alone.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fluxone.bench import ceilings
from fluxone.bench.ends import filled
from fluxone.bench.measure import Row, Way, clock, take_turns
from fluxone.bench.nets import Case, Given, ours, theirs, weights
from fluxone.nn import channels_last
from fluxone.nn.attention import ATTENTION
from fluxone.nn.autoencoder import AutoEncoder
from fluxone.nn.clip import ClipTextEncoder
from fluxone.nn.t5 import T5Encoder
from fluxone.nn.tokens import unpack
from fluxone.nn.transformer import Flux
from fluxone.quant.apply import quantize
from fluxone.quant.cuda import ASKED, ROWS
from fluxone.quant.fused import fuse
from fluxone.shapes import AutoEncoderShape, ClipShape, FluxShape, T5Shape

ROOT = Path(__file__).parent.parent
DEV = Case(name="dev", shape=FluxShape(), grid=(64, 64), text=512)
TINY = Case(
    name="tiny", grid=(4, 6), text=8,
    shape=FluxShape(hidden=128, heads=2, axes=(16, 24, 24), double_blocks=2, single_blocks=2, text_dim=64, vec_dim=32),
)  # fmt: skip
TINY_VAE = AutoEncoderShape(channels=(32, 32, 32, 32), blocks=1)
TINY_T5 = T5Shape(vocab=99, hidden=64, layers=2, heads=2, head_dim=32, mlp=64)
TINY_CLIP = ClipShape(vocab=99, hidden=64, layers=1, heads=1, mlp=64, eos=98)
BF16 = torch.bfloat16
ROUNDS, LEVELS = 3, 2  # noise levels a round: compute-bound work takes as long at each
STEPS, WORDS = 4, 256  # of Schnell


class Overdue(BaseException):
    """A stage has had its time: no handler of errors may take it for one."""


@dataclass
class Run:
    """What the stages share: the case, the time, what was made, where what they find goes."""

    case: Case
    device: torch.device
    until: float
    made: dict[str, Any] = field(default_factory=dict)
    found: dict[str, Any] = field(default_factory=dict)
    write: Callable[[], None] = lambda: None

    def left(self) -> float:
        """Seconds until the time is up."""
        return self.until - time.time()

    def safely(self, name: str, work: Callable[[], Any]) -> Any:
        """What some work gives; or None, and its error written down."""
        try:
            return work()
        except Exception as error:  # noqa: BLE001  # what others measure is worth having
            self.found[name] = {"error": f"{type(error).__name__}: {error}"[-1500:]}
            self.write()
            return None

    def note(self, name: str, work: Callable[[], Any]) -> Any:
        """The same, written at once."""
        result = self.safely(name, work)
        if result is not None:
            self.found[name] = result
            self.write()
        return result

    def once(self, name: str, make: Callable[[], Any]) -> Any:
        """Something that several stages use."""
        if name not in self.made:
            self.made[name] = make()
        return self.made[name]

    def state(self) -> dict[str, Tensor]:
        """The weights."""
        return self.once("state", lambda: weights(self.case, self.device, BF16))

    def given(self) -> Given:
        """The inputs."""
        return self.once("given", lambda: Given.of(self.case, self.device, BF16))

    def modulation(self) -> Any:
        """The modulation at every noise level."""
        return self.once("modulation", lambda: self.given().modulation(ours(self.case, self.state())))

    def network(self, quant: str | None = None, *, few: bool = False) -> Flux:
        """Ours: on the weights as they are, in few passes, or packed (which goes through few passes too)."""

        def make() -> Flux:
            model = ours(self.case, self.state())
            if quant is not None:
                quantize(model, quant, BF16)
            elif few:
                fuse(model)
            return model

        return self.once(f"network {quant} {few}", make)

    def way(self, name: str, model: Flux, attend: str, *, limit: float | None = None, **asked: str) -> Way:
        """A contestant of ours; `asked` are variables of the environment for the time of its step."""
        given, modulation = self.given(), self.modulation()

        def step(level: int) -> Tensor:
            model.attend = ATTENTION[attend]  # the same network may stand for several contestants
            os.environ.update({ASKED: "1", ROWS: "0"} | asked)
            return given.step(model, modulation, level)

        return Way(name=f"{name}, {attend}", step=step, limit=limit)

    def rival(self) -> Way:
        """diffusers, eager."""
        model, given = self.once("theirs", lambda: theirs(self.case, self.state())), self.given()
        return Way(name="diffusers eager", step=lambda level: given.their_step(model, level))

    def attention(self) -> str:
        """The quickest attention that was found, or torch's own choice."""
        return self.made.get("attend", "sdpa")

    def race(self, ways: dict[str, Callable[[], Way]]) -> None:
        """Those that can be made and take a step, taking turns; the first is what others are compared to."""
        tried = [self.safely(name, lambda make=make: _tried(make(), self.device)) for name, make in ways.items()]
        fit = [way for way in tried if way is not None]
        if fit:
            self.found.update(told(take_turns(fit, self.device, rounds=ROUNDS, levels=LEVELS)))
        self.write()

    def timed(self, work: Callable[[], Any], tries: int = 5) -> float:
        """The median, after two for warmth."""
        take = clock(self.device)
        return sorted([take(work)[1] for _ in range(tries + 2)][2:])[tries // 2]


def _tried(way: Way, device: torch.device) -> Way:
    out = way.step(0)
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    if not torch.isfinite(out).all():
        raise ValueError("the velocity is not finite")
    return way


def told(rows: list[Row]) -> dict[str, Any]:
    """Seconds, the ratio to the first with its interval, error, peak."""
    return {
        row.name: {
            "seconds": row.median, "least": min(row.seconds), "ratio": row.ratio(rows[0]), "error": row.error,
            "valid": row.valid, "peak": row.peak,
        }
        for row in rows
    }  # fmt: skip


def rates(run: Run) -> None:
    """Ceilings, and the quickest attention."""
    reached = run.note("attention", lambda: ceilings.attentions(run.case, run.device, BF16)) or {}
    run.made["attend"] = max(reached, key=reached.__getitem__, default="sdpa")
    run.note("products", lambda: ceilings.products(run.case, run.device, BF16))
    run.note("copy", lambda: ceilings.copies(run.device))


def steps(run: Run) -> None:
    """A step in bfloat16: ours plain and in few passes, diffusers eager."""
    best = run.attention()
    ways = {"plain": lambda: run.way("plain", run.network(), "sdpa")}
    ways["few passes"] = lambda: run.way("few passes", run.network(few=True), "sdpa")
    if best != "sdpa":
        ways["few passes, best"] = lambda: run.way("few passes", run.network(few=True), best)
    run.race(ways | {"diffusers": run.rival})


def fp8(run: Run) -> None:
    """A step in fp8, scales after the products and in them, beside bfloat16."""
    best = run.attention()

    def packed(name: str, **asked: str) -> Callable[[], Way]:
        return lambda: run.way(name, run.network("fp8-dynamic"), best, limit=0.1, **asked)

    run.race({
        "few passes": lambda: run.way("few passes", run.network(few=True), best),
        "after": packed("fp8-dynamic"),
        "rows": packed("fp8-dynamic, scales in the product", **{ROWS: "1"}),
        "torch": packed("fp8-dynamic by torch's passes", **{ASKED: "0"}),
    })  # fmt: skip


def ends(run: Run) -> tuple[AutoEncoder, T5Encoder, ClipTextEncoder]:
    """Decoder and text encoders of the case, in bfloat16."""
    large = run.case.name == DEV.name

    def make() -> tuple[Any, ...]:
        t5 = filled(T5Encoder, T5Shape() if large else TINY_T5, run.device, BF16)
        clip = filled(ClipTextEncoder, ClipShape() if large else TINY_CLIP, run.device, BF16)
        with torch.device(run.device):
            vae = AutoEncoder(AutoEncoderShape() if large else TINY_VAE).requires_grad_(False).eval()
        return vae, t5, clip

    return run.once("ends", make)


def latent_of(run: Run, dtype: torch.dtype) -> Tensor:
    """Noise of the decoder's size."""
    shape = ends(run)[0].shape
    return torch.randn(1, shape.latent, 2 * run.case.grid[0], 2 * run.case.grid[1], device=run.device, dtype=dtype)


def decode(run: Run) -> None:
    """The decoder at the size of the case by torch alone: as it is, in bfloat16, and that with channels last."""
    os.environ[channels_last.ASKED] = "0"
    vae = ends(run)[0].float()
    run.note("float32", lambda: run.timed(lambda: vae.decode(latent_of(run, torch.float32))))
    vae.to(BF16)
    run.note("bfloat16", lambda: run.timed(lambda: vae.decode(latent_of(run, BF16))))
    vae.to(memory_format=torch.channels_last)
    small = latent_of(run, BF16).to(memory_format=torch.channels_last)
    run.note("bfloat16, channels last", lambda: run.timed(lambda: vae.decode(small)))
    os.environ.pop(channels_last.ASKED)


def text(run: Run) -> None:
    """T5-XXL at 256 and 512 tokens and CLIP-L."""
    _, t5, clip = ends(run)
    for tokens in (WORDS, 2 * WORDS):
        ids = torch.randint(0, t5.shape.vocab, (1, tokens), device=run.device)
        run.note(f"t5 {tokens}", lambda ids=ids: run.timed(lambda: t5(ids)))
    ids = torch.randint(0, clip.shape.vocab, (1, 77), device=run.device)
    run.note("clip", lambda: run.timed(lambda: clip(ids)[1]))


def schnell(run: Run, layout: torch.memory_format = torch.contiguous_format) -> None:
    """From token ids to a picture's bytes on the host: words, four steps, the decoder. In bfloat16 and in fp8."""
    small = replace(run.case, text=WORDS) if run.case is DEV else run.case
    given, best = Given.of(small, run.device, BF16), run.attention()
    vae, t5, clip = ends(run)
    vae.to(BF16, memory_format=layout)
    ids = torch.zeros(1, small.text, dtype=torch.long, device=run.device)

    def picture(model: Flux) -> Tensor:
        t5(ids)
        clip(ids[:, :77])
        x = given.img[:1]
        for level in range(STEPS):
            x = x - given.step(model, run.modulation(), level) / STEPS
        latent = unpack(x, *small.grid)[:, : vae.shape.latent]
        pixels = vae.decode(latent.contiguous(memory_format=layout))
        return (pixels * 127.5 + 127.5).clamp(0, 255).to(torch.uint8).cpu()

    for name, quant in (("few passes", None), ("fp8-dynamic", "fp8-dynamic")):
        model = run.network(quant, few=quant is None)
        model.attend = ATTENTION[best]
        os.environ.update({ASKED: "1", ROWS: "0"})
        run.note(name, lambda model=model: run.timed(lambda: picture(model)))


def graphed(run: Run) -> None:
    """The ends by kernels of their own and replayed: `gpu_graphs.py`."""
    from gpu_graphs import graphed as measured

    measured(run)


def compiled_ends(run: Run) -> None:
    """The decoder and T5's blocks, compiled; then Schnell's picture once more, with them."""
    vae, t5, _ = ends(run)
    vae.to(BF16, memory_format=torch.channels_last)
    small = latent_of(run, BF16).to(memory_format=torch.channels_last)
    vae.decoder.compile()
    run.note("decode", lambda: run.timed(lambda: vae.decode(small)))
    for block in t5.encoder.block:
        block.compile()
    ids = torch.zeros(1, WORDS, dtype=torch.long, device=run.device)
    run.note(f"t5 {WORDS}", lambda: run.timed(lambda: t5(ids)))
    schnell(run, torch.channels_last)
    run.made.pop("ends")  # compiled, they are no longer what they were


def compiled(run: Run) -> None:
    """A step with each block compiled: ours, and diffusers' by its own recipe."""
    best = run.attention()

    def blocks() -> Way:
        model = ours(run.case, run.state())
        for block in (*model.double_blocks, *model.single_blocks):
            block.compile()
        return run.way("compiled blocks", model, best)

    def diffusers() -> Way:
        way, model = run.rival(), run.made["theirs"]
        model.compile_repeated_blocks(fullgraph=True)
        return replace(way, name="diffusers compiled")

    few = {"few passes": lambda: run.way("few passes", run.network(few=True), best)}
    run.race(few | {"compiled blocks": blocks, "diffusers compiled": diffusers})


def memory(run: Run) -> None:
    """Peak of a step in fp8 with the modulation's weights gone: what a card must hold."""
    model, given, modulation = run.network("fp8-dynamic"), run.given(), run.modulation()
    for module in model.modulators():
        module.to("meta")
    run.made = {"attend": run.attention()}
    model.attend = ATTENTION[run.attention()]
    if run.device.type != "cuda":
        run.note("seconds", lambda: run.timed(lambda: given.step(model, modulation, 0)))
        return
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats(run.device)
    run.note("weights", lambda: torch.cuda.memory_allocated(run.device))
    run.note("seconds", lambda: run.timed(lambda: given.step(model, modulation, 0)))
    run.note("peak", lambda: torch.cuda.max_memory_allocated(run.device))


def tests(run: Run) -> None:
    """`tests/gpu`, by itself; warnings of another machine's packages are no failures."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-W", "default", str(ROOT / "tests/gpu")]

    def done() -> dict[str, Any]:
        limit = max(20, run.left() - 5)
        ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=limit, check=False)
        return {"exit": ended.returncode, "tail": (ended.stdout + ended.stderr)[-4000:]}

    run.note("pytest", done)


STAGES: dict[str, tuple[Callable[[Run], None], float]] = {  # and the seconds that it needs, about
    "rates": (rates, 8),
    "steps": (steps, 30),
    "fp8": (fp8, 20),
    "decode": (decode, 6),
    "text": (text, 8),
    "schnell": (schnell, 8),
    "graphs": (graphed, 35),
    "tests": (tests, 45),
    "compiled-ends": (compiled_ends, 45),
    "compiled": (compiled, 60),
    "memory": (memory, 8),
}
