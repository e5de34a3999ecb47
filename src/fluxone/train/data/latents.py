"""Latents of a pool of scenes, encoded once by worker processes and kept on disk.

The pool grows while the trainer runs: at step `s` the first `known(s)` scenes may be drawn. If the workers
are behind, the trainer waits, so what is trained never depends on how fast anybody was.
"""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import time
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from fluxone.errors import BrokenModel
from fluxone.nn.autoencoder import AutoEncoder
from fluxone.storybook import World
from fluxone.train.config import Data, Model
from fluxone.train.data.scenes import pixels, world_of
from fluxone.train.data.views import VIEWS
from fluxone.train.export import autoencoder

CHUNK = 32  # scenes that a worker encodes between two notes of its progress
POLITE = 10  # by which workers go behind the trainer: filling ahead at full speed, they took most of its core
PATIENCE = 600  # seconds without progress after which the workers are taken for dead


@torch.no_grad()
def encode(
    encoder: AutoEncoder, world: World, size: int, numbers: range, *, held_out: bool = False, view: str = "scene"
) -> Tensor:
    """Latents (N, 16, h, w) of the scenes with these numbers, seen so; on the CPU, wherever the encoder is."""
    drawn = VIEWS[view]
    place = next(encoder.parameters()).device
    x = torch.stack([pixels(drawn(world, number, size, held_out)) for number in numbers]).to(place)
    parts = torch.split(x, 8)
    return torch.cat([encoder.encode(part.contiguous(memory_format=torch.channels_last)).cpu() for part in parts])


class Pool:
    """The latents of scenes 0 to `data.scenes`, on disk in a folder below `place` that is named by what is in it.

    Runs of the same world, size and autoencoder share them.

    Args:
        view: row of `VIEWS`: what of a scene is seen.
    """

    def __init__(self, place: Path, data: Data, model: Model, view: str = "scene") -> None:
        self.data, self.model, self.view = data, model, view
        self.opened = False
        encoder = autoencoder(model)
        cells = data.size // encoder.shape.factor
        self.row = (encoder.shape.latent, cells, cells)
        self.workers: list[multiprocessing.process.BaseProcess] = []
        what = [asdict(world_of(data)), data.size, data.scenes, *([view] if view != "scene" else [])]
        digest = hashlib.sha256(json.dumps(what, default=str).encode())
        for value in encoder.state_dict().values():
            digest.update(value.contiguous().numpy().tobytes())
        self.key = digest.hexdigest()
        self.folder = place / self.key[:12]

    def open(self, *, fill: bool) -> None:
        """Map the file; with `fill`, make it where there is none, and start the workers."""
        self.opened = True
        path = self.folder / "latents.f16"
        size = (self.data.scenes, *self.row)
        if fill and not path.exists():
            self.folder.mkdir(parents=True, exist_ok=True)
            np.memmap(self.folder / ".latents.f16", np.float16, "w+", shape=size).flush()
            (self.folder / ".latents.f16").replace(path)
        while not path.exists():
            time.sleep(0.2)
        self.latents = np.memmap(path, np.float16, "r", shape=size)
        if fill and self.ready() < self.data.scenes:
            self._start()

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")
        for number in range(self.data.workers):
            worker = context.Process(
                target=_fill, args=(self.folder, self.data, self.model, number, self.view), daemon=True
            )
            worker.start()
            self.workers.append(worker)

    def known(self, step: int, steps: int) -> int:
        """How many scenes of the pool may be drawn at `step`."""
        grown = min(1.0, step / max(1.0, steps * self.data.full_at))
        return int(self.data.first_scenes + grown * (self.data.scenes - self.data.first_scenes))

    def ready(self) -> int:
        """How many scenes, from the first on, are encoded."""
        done = [_progress(self.folder, number) for number in range(self.data.workers)]
        chunks = min(count * self.data.workers + number for number, count in enumerate(done))
        return min(self.data.scenes, chunks * CHUNK)

    def take(self, numbers: Tensor) -> Float[Tensor, "N C h w"]:
        """The latents of these scenes; waits for the workers.

        Raises:
            BrokenModel: the workers made no progress for ten minutes.
        """
        need, seen, since = int(numbers.max()) + 1, -1, time.monotonic()
        while (now := self.ready()) < need:
            if now != seen:
                seen, since = now, time.monotonic()
            if time.monotonic() - since > PATIENCE:
                raise BrokenModel(f"the pool in {self.folder} stopped at {now} scenes", hint="start the run again")
            time.sleep(0.1)
        return torch.from_numpy(self.latents[numbers.numpy()]).float()


def _progress(folder: Path, number: int) -> int:
    path = folder / f"worker-{number}"
    return int(path.read_text() or 0) if path.exists() else 0


def _fill(folder: Path, data: Data, model: Model, number: int, view: str) -> None:
    """One worker: chunks number, number + workers, ... from where it stopped; the trainer comes first."""
    if hasattr(os, "nice"):
        os.nice(POLITE)
    torch.set_num_threads(1)
    encoder, world = autoencoder(model), world_of(data)
    cells = data.size // encoder.shape.factor
    shape = (data.scenes, encoder.shape.latent, cells, cells)
    out = np.memmap(folder / "latents.f16", np.float16, "r+", shape=shape)
    done = _progress(folder, number)
    for chunk in range(done * data.workers + number, -(-data.scenes // CHUNK), data.workers):
        numbers = range(chunk * CHUNK, min(data.scenes, (chunk + 1) * CHUNK))
        out[numbers.start : numbers.stop] = encode(encoder, world, data.size, numbers, view=view).half().numpy()
        out.flush()
        done += 1
        part = folder / f".worker-{number}"
        part.write_text(str(done))
        part.replace(folder / f"worker-{number}")
