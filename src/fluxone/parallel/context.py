"""The picture's tokens shared out; text is with every process, for it is short.

    process r:  [ text | r's part of the picture ]  through all blocks, with attention over everything:
    ulysses     by heads: each process attends for its heads over all tokens; queries, keys, values and results travel
    gather      by queries: each process attends for its tokens; keys and values of all travel
    at the end the parts of the picture are gathered

Source: Jacobs et al. 2023 (DeepSpeed Ulysses).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
import torch.distributed as dist
from torch import Tensor

from fluxone.errors import BadRequest
from fluxone.nn.attention import ATTENTION, Attend
from fluxone.nn.rope import Rotation
from fluxone.nn.transformer import Flux, Modulation, trunk
from fluxone.parallel.travel import exchanged, gathered


@dataclass(frozen=True, kw_only=True)
class Share:
    """What attention has to know: tokens of text, tokens of every process's part, and which part is its own."""

    text: int
    sizes: tuple[int, ...]
    rank: int
    group: dist.ProcessGroup


def parts(count: int, world: int) -> tuple[int, ...]:
    """How many each process gets: as many, or one more."""
    return tuple(count // world + (rank < count % world) for rank in range(world))


def ulysses(attend: Attend, share: Share, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Attention by heads: heads to their process, and results back."""
    text, rank = share.text, share.rank
    both = torch.stack((q, k, v))  # 3 B H N D
    heads = parts(both.shape[2], len(share.sizes))
    own = both.split(heads, dim=2)[rank][:, :, :, :text]
    sent = both[:, :, :, text:].split(heads, dim=2)
    picture = torch.cat(exchanged(sent, _shapes(own, share.sizes), share.group), dim=3)
    out = attend(*torch.cat((own, picture), dim=3).unbind(0))
    batch, size = out.shape[0], out.shape[3]
    words = gathered(out[:, :, :text], [(batch, count, text, size) for count in heads], share.group)
    shapes = [(batch, count, share.sizes[rank], size) for count in heads]
    back = exchanged(out[:, :, text:].split(share.sizes, dim=2), shapes, share.group)
    return torch.cat((torch.cat(words, dim=1), torch.cat(back, dim=1)), dim=2)


def gather(attend: Attend, share: Share, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Attention by queries: the keys and values of all."""
    both = torch.stack((k, v))
    words, own = both[:, :, :, : share.text], both[:, :, :, share.text :]
    whole = torch.cat((words, *gathered(own, _shapes(own, share.sizes), share.group)), dim=3)
    return attend(q, *whole.unbind(0))


def _shapes(like: Tensor, sizes: Sequence[int]) -> list[tuple[int, ...]]:
    """The shapes of parts whose fourth axis is of these sizes."""
    return [(*like.shape[:3], size, *like.shape[4:]) for size in sizes]


KINDS: dict[str, Callable[[Attend, Share, Tensor, Tensor, Tensor], Tensor]] = {"ulysses": ulysses, "gather": gather}


class Shared:
    """The runner of a network whose tokens are shared out: a `Trunk`."""

    def __init__(self, way: str, group: dist.ProcessGroup) -> None:
        self.way, self.group = way, group
        self.rank, self.world = dist.get_rank(group), dist.get_world_size(group)

    def __call__(self, model: Flux, img: Tensor, txt: Tensor, modulation: Modulation, pe: Rotation) -> Tensor:
        """The picture's stream after all blocks, the whole of it on every process.

        Raises:
            BadRequest: there are fewer tokens than processes, or attention has a mask that knows all queries.
        """
        text, tokens = txt.shape[1], img.shape[1]
        if tokens < self.world:
            raise BadRequest(f"{tokens} tokens for {self.world} processes", hint="draw a larger picture")
        if self.way != "ulysses" and model.attend not in ATTENTION.values():
            raise BadRequest("regions and nag need every query of a head together", hint="share tokens by ulysses")
        sizes = parts(tokens, self.world)
        start = sum(sizes[: self.rank])
        stop = start + sizes[self.rank]
        turns = torch.cat((pe.turns[..., :text, :, :], pe.turns[..., text + start : text + stop, :, :]), dim=-3)
        share = Share(text=text, sizes=sizes, rank=self.rank, group=self.group)
        before = model.attend
        model.attend = partial(KINDS[self.way], before, share)
        try:
            own = trunk(model, img[:, start:stop], txt, modulation, Rotation(turns=turns))
        finally:
            model.attend = before
        shapes = [(own.shape[0], size, own.shape[2]) for size in sizes]
        return torch.cat(gathered(own, shapes, self.group), dim=1)


def share_tokens(network: Flux, way: str, group: dist.ProcessGroup) -> None:
    """Let the processes of a group each take some of the picture's tokens through the blocks.

    Raises:
        BadRequest: there are processes without a head.
    """
    world = dist.get_world_size(group)
    if way == "ulysses" and network.shape.heads < world:
        raise BadRequest(f"{network.shape.heads} heads for {world} processes", hint="take fewer, or share by gather")
    network.trunk = Shared(way, group)
