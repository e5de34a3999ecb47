"""Samples that worker processes draw while a run goes on, encoded once and kept on the device.

    worker: number -> pictures, token numbers, what is where --shared memory--> encode --> shelves --> Batch

For runs that see thousands of samples a second, where drawing and reading a scene at every step would be the slowest
part. Workers are forked: make the bank before anything uses an accelerator. A shelf grows while it is drawn from, so
two runs do not see the same: exact resume needs the pool of `latents`.
"""

from __future__ import annotations

import mmap
import multiprocessing
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from tokenizers import Tokenizer
from torch import Tensor

from fluxone.conditions.fill import mask_tokens
from fluxone.conditions.reference import LAYOUT, laid_out
from fluxone.errors import BrokenModel, pick
from fluxone.nn.autoencoder import AutoEncoder
from fluxone.nn.tokens import pack
from fluxone.storybook import Scene, World
from fluxone.train.data.answers import Answers
from fluxone.train.data.batch import Batch
from fluxone.train.data.samples import SHELVES, WORDINGS, Sample
from fluxone.train.data.tasks import WORDS_ALONE
from fluxone.train.tokenizer import encode as encode_words

CHUNK = 32  # samples that a worker hands over at once
SLOTS = 8  # chunks of a worker on their way
MOST = 4  # pictures of one sample
FRESH = 0.25  # more would hold the loop up
OWED = 8.0  # chunks that are encoded before one batch, at most
WAIT = 600.0  # seconds without a sample after which the workers are taken for dead
Arrays = dict[str, NDArray[np.generic]]
Extra = Callable[[Scene], Mapping[str, NDArray[np.generic]]]

REFERRING = {"edit": 0.85, "both": 0.15}

# task -> shelves it is drawn from, by share of the steps
MIXES: dict[str, dict[str, float]] = {
    "text": {"text": 1.0},
    "plain": {"text": 1.0},
    "photo": {"photo": 1.0},
    "edit": REFERRING,
    "kontext": REFERRING,
    "mix": {"text": WORDS_ALONE} | {shelf: (1 - WORDS_ALONE) * share for shelf, share in REFERRING.items()},
    "depth": {"control": 1.0},
    "canny": {"control": 1.0},
    "pose": {"pose": 1.0},
    "control": {"control": 0.65, "pose": 0.35},  # one of the maps that the shelf has
    "fill": {"control": 1.0},
}
SEEN = ("pictures", "extra ")  # what names of rows begin with that are kept of few samples
SAID = "plain"  # the task that asks in a scene's one wording, of samples whose pictures are there
HOLED = ("fill",)  # tasks that are given the picture with a hole, and the hole
MAPS = {"control": ("depth", "canny"), "pose": ("pose",)}


@dataclass(frozen=True, kw_only=True)
class Order:
    """What the workers make.

    Attributes:
        phases: shelf and number of samples, one after the other.
        size: px each way of the pictures.
        length: token numbers a text.
        keep: samples of the shelf `text` whose pictures stay, with what `extra` says of their scenes.
    """

    world: World
    phases: tuple[tuple[str, int], ...]
    size: int
    length: int
    workers: int
    keep: int = 0
    extra: Extra | None = None

    def chunks(self) -> list[tuple[str, int]]:
        """All chunks in order: shelf and number of the first sample."""
        made: dict[str, int] = {}
        rows = []
        for name, count in self.phases:
            for _ in range(-(-count // CHUNK)):
                rows.append((name, made.get(name, 0)))
                made[name] = made.get(name, 0) + CHUNK
        return rows


@dataclass(kw_only=True)
class Kept:
    """One shelf on the device: rows of every tensor, of which the first `filled` are there."""

    rows: dict[str, Tensor] = field(default_factory=dict)
    filled: int = 0

    def add(self, new: Mapping[str, Tensor], capacity: int, keep: int) -> None:
        """Put rows behind those that are there; of pictures, and what goes with them, only the first `keep`."""
        count = len(next(iter(new.values())))
        for name, value in new.items():
            rows = min(capacity, keep) if name.startswith(SEEN) else capacity
            if self.filled + count > rows:
                continue
            if name not in self.rows:
                self.rows[name] = torch.empty((rows, *value.shape[1:]), dtype=value.dtype, device=value.device)
            self.rows[name][self.filled : self.filled + count] = value
        self.filled += count


class Bank:
    """Shelves of samples, and the processes that fill them.

    Args:
        order: what is made.
        tokenizer, answers: number words, and what tokens show.

    Attributes:
        halves: share of the batches whose pictures are half as large, where samples have such.
        fresh: of as many samples as are drawn, so many new ones are encoded at most.
    """

    halves = 0.0
    fresh = FRESH

    def __init__(self, order: Order, tokenizer: Tokenizer, answers: Answers) -> None:
        self.order = order
        self.shelves: dict[str, Kept] = {name: Kept() for name, _ in order.phases}
        self.capacity = {
            name: sum(-(-count // CHUNK) * CHUNK for other, count in order.phases if other == name)
            for name in self.shelves
        }
        self.slot = CHUNK * MOST * order.size**2 * 3
        self.memory = mmap.mmap(-1, order.workers * SLOTS * self.slot)
        self.pipes: list[Connection] = []
        context = multiprocessing.get_context("fork")
        for number in range(order.workers):
            ours, theirs = context.Pipe()
            args = (order, tokenizer, answers, number, self.memory, theirs)
            context.Process(target=_work, args=args, daemon=True).start()
            theirs.close()
            self.pipes.append(ours)
        self.encode: Callable[[Tensor], Tensor] | None = None
        self.owed = 0.0  # chunks that may be encoded by now

    def attach(self, autoencoder: AutoEncoder, device: torch.device, *, compiled: bool = False) -> None:
        """Say who encodes, and where samples are kept. Nothing is taken from the workers before."""
        self.device, self.factor = device, autoencoder.shape.factor
        run = torch.compile(autoencoder.encode) if compiled else autoencoder.encode

        def encode(x: Tensor) -> Tensor:
            with torch.no_grad(), torch.autocast(device.type, torch.bfloat16, enabled=device.type != "cpu"):
                return pack(run(x).float())

        self.encode = encode

    def fill(self, shelf: str, count: int) -> None:
        """Wait until a shelf holds so many samples.

        Raises:
            BrokenModel: the workers died, or made nothing for ten minutes.
        """
        while self.shelves[shelf].filled < min(count, self.capacity[shelf]):
            if not self.take(1, WAIT):
                raise BrokenModel(f"the workers stopped at {self.shelves[shelf].filled} samples of {shelf}",
                                  hint="look for their error above")  # fmt: skip

    def take(self, most: int, seconds: float = 0.0) -> int:
        """Encode up to `most` chunks that are ready, waiting `seconds` for the first; returns how many there were."""
        assert self.encode is not None, "attach the bank first"
        taken, until = 0, time.monotonic() + seconds
        while taken < most and self.pipes:
            ready = wait(self.pipes, timeout=max(0.0, until - time.monotonic()) if not taken else 0.0)
            if not ready:
                break
            for pipe in ready[: most - taken]:
                assert isinstance(pipe, Connection)
                taken += self._one(pipe)
        return taken

    def _one(self, pipe: Connection) -> int:
        try:
            slot, name, pictures, arrays = pipe.recv()
        except (EOFError, ConnectionResetError):  # that worker has made all that it had to
            self.pipes.remove(pipe)
            return 0
        size, rows = self.order.size, CHUNK * len(pictures)
        raw = np.frombuffer(self.memory, np.uint8, rows * size**2 * 3, slot * self.slot)
        pixels = torch.from_numpy(raw.reshape(rows, size, size, 3)).to(self.device)
        if self.device.type == "cpu":
            pixels = pixels.clone()
        pipe.send(slot)
        keep = self.order.keep if name == "text" else 0
        self.shelves[name].add(self._tensors(pixels, pictures, arrays), self.capacity[name], keep)
        return 1

    def _tensors(self, pixels: Tensor, names: Sequence[str], arrays: Arrays) -> dict[str, Tensor]:
        assert self.encode is not None
        x = pixels.permute(0, 3, 1, 2).float().div_(127.5).sub_(1).contiguous(memory_format=torch.channels_last)
        made = {"": self.encode(x).half()}
        if not set(names) & set(sum(MAPS.values(), ())):  # maps are only followed at full size
            made["half "] = self.encode(F.avg_pool2d(x, 2)).half()
        rows = {
            f"{scale}{name}": tokens[k * CHUNK : (k + 1) * CHUNK]
            for scale, tokens in made.items()
            for k, name in enumerate(names)
        }
        rows |= {name: torch.from_numpy(value).to(self.device) for name, value in arrays.items()}
        return rows | {"pictures": pixels[:CHUNK]}

    def batch(self, task: str, side: int, count: int, rng: torch.Generator) -> Batch:
        """Samples of a task at `side` tokens each way; fewer than `count` where references make them longer."""
        self.owed = min(OWED, self.owed + self.fresh * count / CHUNK)
        self.owed -= self.take(int(self.owed))
        mixed = pick(MIXES, task, "mix of shelves")
        if not any(self.shelves[name].filled for name in mixed):
            self.fill(next(iter(mixed)), CHUNK)
        shares = {name: share for name, share in mixed.items() if self.shelves[name].filled}
        at = int(torch.multinomial(torch.tensor(list(shares.values())), 1, generator=rng))
        name = list(shares)[at]
        kept = self.shelves[name]
        if "half x" in kept.rows and float(torch.rand((), generator=rng)) < self.halves:
            side //= 2
        scale = "" if side == self.order.size // self.factor // 2 else "half "
        given = SHELVES[name].given if name in ("edit", "both") else ()
        count = _fewer(count, side**2, len(given), self.order.length)
        there = min(kept.filled, len(kept.rows["pictures"])) if task == SAID else kept.filled
        rows = torch.randint(there, (count,), generator=rng).to(self.device)
        wording = torch.randint(WORDINGS, (count,), generator=rng).to(self.device)
        references, places = None, None
        if given:
            references = torch.cat([kept.rows[scale + one][rows] for one in given], dim=1).float()
            places = laid_out([(side, side)] * len(given), LAYOUT)
        return Batch(
            x=kept.rows[scale + "x"][rows].float(),
            ids=(kept.rows["plain ids"][rows] if task == SAID else kept.rows["ids"][rows, wording]).long(),
            shown=kept.rows[scale + "shown"][rows],
            reference=references,
            places=places,
            channels=self._channels(task, name, scale, rows, rng),
            pictures=kept.rows["pictures"][rows] if task == SAID else None,
        )

    def _channels(self, task: str, shelf: str, scale: str, rows: Tensor, rng: torch.Generator) -> Tensor | None:
        kept = self.shelves[shelf].rows
        if task in HOLED:
            size = self.order.size // (2 if scale else 1)
            mask = holes(kept["hole"][rows], size)
            return torch.cat((kept[scale + "covered"][rows].float(), mask_tokens(mask, self.factor)), dim=-1)
        if shelf not in MAPS:
            return None
        maps = MAPS[shelf]
        name = task if task in maps else maps[int(torch.randint(len(maps), (), generator=rng))]
        return kept[scale + name][rows].float()

    def seen(self, count: int, rng: torch.Generator) -> dict[str, Tensor]:
        """Samples of the shelf `text` whose pictures were kept, with what was asked to be said of their scenes."""
        kept = self.shelves["text"]
        rows = torch.randint(min(kept.filled, len(kept.rows["pictures"])), (count,), generator=rng).to(self.device)
        return {
            name.removeprefix("extra "): value[rows]
            for name, value in kept.rows.items()
            if name in ("x", "ids", "shown") or name.startswith(SEEN)
        }


def _fewer(count: int, tokens: int, references: int, length: int) -> int:
    """As many samples as make about the same number of tokens, in whole eights."""
    return max(8, round(count * (tokens + length) / (tokens * (1 + references) + length) / 8) * 8)


def holes(edges: Tensor, size: int) -> Tensor:
    """Masks (B 1 size size), 1 inside a box; `edges` (B 4) in shares of the picture."""
    at = (torch.arange(size, device=edges.device) + 0.5) / size
    left, top, right, bottom = edges.float().T[:, :, None]
    across, down = (at >= left) & (at < right), (at >= top) & (at < bottom)
    inside: Tensor = down[:, :, None] & across[:, None, :]
    return inside.float()[:, None]


def _work(
    order: Order, tokenizer: Tokenizer, answers: Answers, number: int, memory: mmap.mmap, pipe: Connection
) -> None:
    """One worker: chunks number, number + workers, ..., each into a slot that the bank has emptied."""
    torch.set_num_threads(1)
    os.nice(5)  # the loop that feeds the device comes first
    free = [number * SLOTS + n for n in range(SLOTS)]
    stride = CHUNK * MOST * order.size**2 * 3
    for shelf, first in order.chunks()[number :: order.workers]:
        samples = [SHELVES[shelf].make(order.world, first + n, order.size) for n in range(CHUNK)]
        names = ("x", *SHELVES[shelf].given)
        pictures = np.stack([sample.pictures[name] for name in names for sample in samples])
        arrays = _arrays(order, tokenizer, answers, samples)
        if not free:
            free.append(pipe.recv())
        slot = free.pop()
        np.frombuffer(memory, np.uint8, pictures.size, slot * stride)[:] = pictures.reshape(-1)
        pipe.send((slot, shelf, names, arrays))
    while len(free) < SLOTS:  # closed with an answer unread, the other end would lose what it has not read yet
        free.append(pipe.recv())
    pipe.close()


def _arrays(order: Order, tokenizer: Tokenizer, answers: Answers, samples: Sequence[Sample]) -> Arrays:
    side = order.size // 16
    texts = [text for sample in samples for text in sample.texts]
    ids = np.array(encode_words(tokenizer, texts, order.length), np.int16)
    rows: Arrays = {
        "ids": ids.reshape(len(samples), WORDINGS, -1),
        "shown": _shown(answers, samples, side),
        "half shown": _shown(answers, samples, side // 2),
        "hole": np.array([sample.hole for sample in samples], np.float32),
    }
    if all(sample.plain for sample in samples):
        plain = [sample.plain for sample in samples]
        rows["plain ids"] = np.array(encode_words(tokenizer, plain, order.length), np.int16)
    if order.extra is not None:
        said = [order.extra(sample.scene) for sample in samples]
        rows |= {f"extra {name}": np.stack([one[name] for one in said]) for name in said[0]}
    return rows


def _shown(answers: Answers, samples: Sequence[Sample], side: int) -> NDArray[np.uint8]:
    rows = np.stack([answers.shown(sample.scene, side).numpy() for sample in samples])
    assert rows.max() < 256, "one byte a number"
    return rows.astype(np.uint8)
