"""One picture's tokens on several processes while it is learnt from: each remembers its part of them for the way back.

    8 processes, context 2      [0 1] [2 3] [4 5] [6 7]      a fourth of the batch each; in it, half of the tokens

The words are with every process. What is drawn, measured and written in between, the first process does alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

from torch import distributed as dist

from fluxone.errors import BadRequest
from fluxone.nn.transformer import Flux, Trunk
from fluxone.parallel.context import share_tokens
from fluxone.train.group import PATIENCE, Group
from fluxone.tune.settings import Settings

WAY = "ulysses"  # each process then keeps the keys and values of its part alone, and sends less the more there are


def check(group: Group, settings: Settings) -> None:
    """Refuse numbers of processes that the batch cannot be shared among.

    Raises:
        BadRequest: the settings and the processes do not go together.
    """
    if group.world % settings.context:
        raise BadRequest(
            f"context is {settings.context}, and {group.world} process{'es run' if group.world > 1 else ' runs'}",
            hint=f"start a multiple of {settings.context}: torchrun --nproc-per-node {settings.context} -m fluxone ...",
        )
    shares = group.world // settings.context
    if settings.batch < shares:
        apart = f"{shares} processes" if settings.context == 1 else f"{shares} shares of {settings.context} processes"
        raise BadRequest(f"a batch of {settings.batch} for {apart}", hint="use a batch of as many at least")


def sharing(network: Flux, group: Group) -> Callable[[], AbstractContextManager[None]]:
    """What makes contexts in which the network's tokens are shared out; all processes of the group must ask for it.

    Raises:
        BadRequest: the network has fewer heads than processes share its tokens.
    """
    if group.context == 1:
        return nullcontext
    own, _ = dist.new_subgroups(group.context, timeout=PATIENCE)
    assert own is not None, "every process is in one of them"
    before = network.trunk
    share_tokens(network, WAY, own)
    runner, network.trunk = network.trunk, before
    return lambda: _worn(network, runner)


@contextmanager
def _worn(network: Flux, runner: Trunk) -> Iterator[None]:
    before, network.trunk = network.trunk, runner
    try:
        yield
    finally:
        network.trunk = before
