"""One picture by several processes, launched by torchrun: its tokens shared out, or the network's weights.

    spread(network, "ulysses")                          every process then calls the network with the same inputs
    torchrun --nproc-per-node 2 -m fluxone generate ... --parallel ulysses                         the command line
"""

from __future__ import annotations

import os
from collections.abc import Callable

import torch
import torch.distributed as dist

from fluxone.errors import BadRequest, pick
from fluxone.nn.autoencoder import Decoder
from fluxone.nn.transformer import Flux, Trunk
from fluxone.parallel.bands import Bands
from fluxone.parallel.context import Shared, share_tokens
from fluxone.parallel.tensor import Summed, share_weights
from fluxone.recipe import AUTO, Recipe

Group = dist.ProcessGroup
TENSOR = "tensor"
WAYS: dict[str, Callable[[Flux, str, Group], None]] = {
    "ulysses": share_tokens, "gather": share_tokens, TENSOR: share_weights,
}  # fmt: skip


def join() -> Group:
    """The group of all processes that torchrun started; NCCL between GPUs, gloo between CPUs.

    Raises:
        BadRequest: torchrun did not start this process.
    """
    if not dist.is_initialized():
        if "RANK" not in os.environ:
            raise BadRequest("this process is alone", hint="start it with torchrun --nproc-per-node 2 ...")
        on_gpu = torch.cuda.is_available()
        if on_gpu:
            torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
        dist.init_process_group("nccl" if on_gpu else "gloo")
    whole = dist.group.WORLD
    assert whole is not None, "init_process_group makes it"
    return whole


def place(device: str | None) -> str | None:
    """The device of this process: its own of the machine's GPUs, where none is named."""
    if device in (None, "cuda") and torch.cuda.is_available():
        return f"cuda:{os.environ.get('LOCAL_RANK', '0')}"
    return device


def agreed(number: int) -> int:
    """The first process's number, for all."""
    numbers = [number]
    dist.broadcast_object_list(numbers, src=0, group=join())
    return numbers[0]


def leave() -> None:
    """Go out of the group. Who ends while still in it may be aborted when another one ends, and so may who holds it
    until the interpreter ends: the command line does not wait for that (see `cli.main`)."""
    if dist.is_initialized():
        dist.destroy_process_group()


def check(recipe: Recipe) -> None:
    """Refuse what does not go together with sharing.

    Raises:
        BadRequest: the recipe has something beside it that knows the whole picture, or whole weights, or decides alone.
    """
    whole = {
        "a cache": recipe.cache or recipe.max_drift, "ControlNets": recipe.controlnets,
        "IP-Adapters": recipe.ip_adapters, "quant auto": AUTO in (recipe.quant, recipe.quant_t5),
        "offload auto": recipe.offload == AUTO,
    }  # fmt: skip
    if recipe.parallel == TENSOR:
        whole |= {"quant": recipe.quant, "adapters": recipe.adapters}
    for name, given in whole.items():
        if given:
            raise BadRequest(f"parallel {recipe.parallel} and {name} are both on", hint="use one of them")


def spread(network: Flux, way: str, group: Group | None = None) -> None:
    """Share a network's work among the processes of a group; all of them then have to call it, alike.

    Args:
        way: row of `WAYS`. `ulysses` and `gather` share the picture's tokens: attention by heads, or with the keys
            and values of all. `tensor` shares the weights of the blocks.

    Raises:
        UnknownName: there is no such way.
        BadRequest: heads cannot be shared out among so many, or weights are packed.
    """
    pick(WAYS, way, "way of sharing")(network, way, join() if group is None else group)


def spread_rows(decoder: Decoder, group: Group | None = None) -> None:
    """Share a decoder's rows among the processes of a group; all of them then have to call it, alike."""
    decoder.walk = Bands(join() if group is None else group)


def regroup(network: Flux, runner: Trunk, group: Group | None = None) -> None:
    """Let a network that is shared go on in another group of as many processes, as the same one of them.

    Args:
        runner: of its blocks, as `spread` left it.
    """
    whole = join() if group is None else group
    for part in (runner, *network.modules()):
        if isinstance(part, Shared | Summed):
            part.group = whole
