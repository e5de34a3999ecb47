"""Sizes by aspect, and the order in which pictures come: a function of seed and step, whatever else goes on.

    own size --nearest in aspect, of about the wanted area--> rows and columns of tokens: a bucket
    step --> the examples of its batch, all of one bucket

A bucket's examples come in one endless row, a fresh permutation after the other, so that what is left of one epoch
begins the next: none is dropped, none comes twice before all have come once.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass

import torch

from fluxone.geometry import Resolution

WIDEST = 4.0  # of any aspect: what is longer is cut
Grid = tuple[int, int]  # rows and columns of tokens


def grid_for(own: Resolution, size: int, token: int, *, enlarge: bool = False) -> Grid:
    """Rows and columns of tokens for a picture of that size.

    Args:
        size: px of the square whose area is wanted.
        token: px.
        enlarge: whether a picture smaller than that is enlarged; else it is taken as large as it is.
    """
    aspect = min(max(own.width / own.height, 1 / WIDEST), WIDEST)
    area = size * size if enlarge else min(size * size, own.width * own.height)
    best: tuple[float, Grid] | None = None
    ideal = math.sqrt(area / aspect) / token
    for rows in {max(1, math.floor(ideal) + more) for more in (-1, 0, 1, 2)}:
        columns = max(1, round(rows * aspect))
        off = abs(math.log(columns / rows / aspect)) + 0.5 * abs(math.log(rows * columns * token * token / area))
        if rows * columns * token * token <= area * (1 + token / size) and (best is None or off < best[0]):
            best = (off, (rows, columns))
    return best[1] if best is not None else (1, 1)


@dataclass(frozen=True, kw_only=True)
class Order:
    """Which examples each step has.

    Attributes:
        buckets: bucket -> numbers of its examples.
        batch: examples a step.
    """

    buckets: Mapping[Hashable, tuple[int, ...]]
    batch: int
    seed: int

    @classmethod
    def of(cls, keys: Sequence[Hashable], batch: int, seed: int) -> Order:
        """The order of examples whose buckets are these."""
        buckets: dict[Hashable, tuple[int, ...]] = {}
        for number, key in enumerate(keys):
            buckets[key] = (*buckets.get(key, ()), number)
        return cls(buckets=buckets, batch=batch, seed=seed)

    def at(self, step: int) -> list[int]:
        """The examples of a step, in order."""
        epoch, within = self._epoch(step)
        row = self._row(epoch)
        key, first = row[within]
        return [self._endless(key, first + i) for i in range(self.batch)]

    def epoch(self, step: int) -> int:
        """The epoch that a step belongs to."""
        return self._epoch(step)[0]

    def _epoch(self, step: int) -> tuple[int, int]:
        count = sum(len(numbers) for numbers in self.buckets.values())
        epoch = max(0, step * self.batch // count - len(self.buckets) - 1)
        done = sum(self._batches(key, epoch) for key in self.buckets)
        while True:
            more = sum(self._batches(key, epoch + 1) - self._batches(key, epoch) for key in self.buckets)
            if step < done + more:
                return epoch, step - done
            epoch, done = epoch + 1, done + more

    def _batches(self, key: Hashable, epochs: int) -> int:
        """Whole batches of a bucket in its first epochs."""
        return epochs * len(self.buckets[key]) // self.batch

    def _row(self, epoch: int) -> list[tuple[Hashable, int]]:
        """Bucket and first place of each batch of an epoch, shuffled."""
        batches = [
            (key, number * self.batch)
            for key in self.buckets
            for number in range(self._batches(key, epoch), self._batches(key, epoch + 1))
        ]
        order = torch.randperm(len(batches), generator=stream(self.seed, "batches", epoch)).tolist()
        return [batches[i] for i in order]

    def _endless(self, key: Hashable, place: int) -> int:
        numbers = self.buckets[key]
        epoch, within = divmod(place, len(numbers))
        order = torch.randperm(len(numbers), generator=stream(self.seed, "examples", key, epoch))
        return numbers[int(order[within])]


def stream(*words: Hashable) -> torch.Generator:
    """A source of chance that depends on these words alone."""
    digest = hashlib.sha256(repr(words).encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)


def held_out(digests: Sequence[str], share: float, seed: int) -> list[int]:
    """Numbers of the pictures that are never trained on: at least one of five and more, chosen by their content."""
    count = len(digests)
    wanted = max(1, round(share * count)) if count >= 5 and share > 0 else 0
    by_chance = sorted(range(count), key=lambda i: hashlib.sha256(f"{seed} {digests[i]}".encode()).hexdigest())
    return sorted(by_chance[:wanted])
