"""A stage of `gpu_suite.py`: decoder and text encoders by kernels of their own, and replayed as CUDA graphs."""

from __future__ import annotations

import copy
import os
from collections.abc import Callable
from typing import Any

import torch
from gpu_stages import BF16, WORDS, Run, ends, latent_of, schnell
from torch import Tensor

from fluxone.nn import channels_last, graphs
from fluxone.nn.attention import sdpa
from fluxone.nn.autoencoder import AutoEncoder


def kernels_of(work: Callable[[], Any]) -> dict[str, list[float]]:
    """What the device spent most on: how often, and milliseconds."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as seen:
        work()
        torch.cuda.synchronize()
    rows = sorted(seen.key_averages(), key=lambda row: -row.self_device_time_total)[:16]
    return {row.key[:90]: [row.count, round(row.self_device_time_total / 1000, 3)] for row in rows}


def decoded(run: Run) -> Callable[[], None]:
    """The decoder in rows, then with channels last and its kernels; of more on top of that what is quicker stays.

    The result measures it in float32.
    """
    vae = ends(run)[0].to(BF16, memory_format=torch.contiguous_format)
    small = latent_of(run, BF16)
    torch.backends.cudnn.allow_tf32 = False
    wide = copy.deepcopy(vae).float()
    exact = wide.decode(small.float())
    torch.backends.cudnn.allow_tf32 = True

    def measured(asked: str, network: AutoEncoder = vae, given: Tensor = small) -> dict[str, float]:
        os.environ[channels_last.ASKED] = asked
        seconds, apart = run.timed(lambda: network.decode(given)), network.decode(given).float() - exact
        return {
            "seconds": seconds, "error": float(apart.norm() / exact.norm()), "most": float(apart.abs().max()),
            "of": float(exact.abs().max()),
        }  # fmt: skip

    def in_float32() -> None:
        run.note("decode, float32, rows", lambda: measured("0", wide, small.float()))
        run.note("decode, float32, channels last", lambda: measured("1", wide, small.float()))

    rows = run.note("decode, rows", lambda: measured("0"))
    if run.device.type != "cuda":
        return in_float32
    best = run.note("decode, channels last", lambda: measured("1"))
    middle = vae.decoder.mid.attn_1
    more: dict[str, tuple[Callable[[], Any], Callable[[], Any]]] = {
        "attention by products": (
            lambda: setattr(middle, "attend", channels_last.by_products), lambda: setattr(middle, "attend", sdpa),
        ),
        "weights laid out once": (
            lambda: vae.to(memory_format=torch.channels_last), lambda: vae.to(memory_format=torch.contiguous_format),
        ),
        "replayed": (lambda: graphs.record(vae.decoder), lambda: graphs.release(vae.decoder)),
    }  # fmt: skip
    for name, (on, off) in more.items():
        on()
        found = run.note(f"decode, {name}", lambda: measured("1"))
        if found is None or best is None or found["seconds"] > best["seconds"]:
            off()
        else:
            best = found
    os.environ[channels_last.ASKED] = "0" if best is None or rows["seconds"] < best["seconds"] else "1"
    return in_float32


def graphed(run: Run) -> None:
    """The ends by kernels of their own and replayed; then Schnell's picture once more, with them."""
    vae, t5, clip = ends(run)
    in_float32 = run.safely("decoder", lambda: decoded(run))
    ids = torch.randint(0, t5.shape.vocab, (1, WORDS), device=run.device)
    words = torch.randint(0, clip.shape.vocab, (1, 77), device=run.device)
    networks = {"t5": lambda: t5(ids), "clip": lambda: clip(words)[1], "both": lambda: (t5(ids), clip(words))}
    for name, call in networks.items():
        run.note(f"{name}, plain", lambda call=call: run.timed(call))
    if run.device.type != "cuda":
        os.environ.pop(channels_last.ASKED, None)
        return
    plain = t5(ids), clip(words)[1]
    graphs.record(t5, lambda ids: t5.encoder.places(ids.shape[1], ids.device))
    graphs.record(clip)
    for name, call in networks.items():
        run.note(f"{name}, replayed", lambda call=call: run.timed(call))
    ways = {"t5": t5._compiled_call_impl, "clip": clip._compiled_call_impl}
    run.note("recorded", lambda: {name: [len(way.recordings), len(way.failed)] for name, way in ways.items()})
    again = t5(ids), clip(words)[1]
    run.note("apart", lambda: [float((a - b).abs().max()) for a, b in zip(plain, again, strict=True)])
    laid = vae.decoder.conv_in.weight.is_contiguous(memory_format=torch.channels_last)
    schnell(run, torch.channels_last if laid else torch.contiguous_format)
    small = latent_of(run, BF16)
    graphs.release(vae.decoder)
    run.note("kernels of decode", lambda: kernels_of(lambda: vae.decode(small)))
    torch.backends.cudnn.benchmark = True  # last, because its trials take long
    run.note("decode, cuDNN's trials", lambda: run.timed(lambda: vae.decode(small)))
    torch.backends.cudnn.benchmark = False
    if in_float32 is not None and run.left() > 15:
        in_float32()
    os.environ.pop(channels_last.ASKED, None)
    run.made.pop("ends")  # recorded, they are no longer what they were
