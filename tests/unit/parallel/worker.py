"""One of several gloo processes: the tiny network by every way of sharing, held against the network alone."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from itertools import product

import torch
import torch.distributed as dist
from torch import Tensor

from fluxone.errors import BadRequest
from fluxone.nn.autoencoder import AutoEncoder
from fluxone.nn.rope import rotation
from fluxone.nn.tokens import image_ids, text_ids
from fluxone.nn.transformer import Flux
from fluxone.parallel import WAYS, join, spread, spread_rows
from fluxone.shapes import AutoEncoderShape, FluxShape
from fluxone.tune.recompute import recomputed

SHAPE = FluxShape(
    in_channels=16, out_channels=16, hidden=64, heads=4, axes=(4, 6, 6), double_blocks=2, single_blocks=2,
    text_dim=24, vec_dim=16, guided=False,
)  # fmt: skip


def network(shape: FluxShape = SHAPE) -> Flux:
    torch.manual_seed(0)
    model = Flux(shape)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=1.3 / parameter.shape[-1] ** 0.5)
    return model.requires_grad_(False).eval()


def velocity(model: Flux, rows: int, columns: int, text: int, vec: Tensor) -> Tensor:
    make = torch.Generator().manual_seed(1)
    img, txt = (torch.randn(2, n, d, generator=make) for n, d in ((rows * columns, 16), (text, 24)))
    pe = rotation(torch.cat((text_ids(text), image_ids(rows, columns))), SHAPE.axes, SHAPE.theta)
    return model.predict(img, txt, pe, model.modulation(vec))


def gradients(way: str | None, group: dist.ProcessGroup, tokens: tuple[int, int], twice: bool) -> list[Tensor]:
    """Of a loss over every token, by whatever goes in and by every weight."""
    model = network()
    model.requires_grad_(way != "tensor")
    if twice:
        recomputed(model)
    make = torch.Generator().manual_seed(1)
    count = tokens[0] * tokens[1]
    img, txt = (torch.randn(2, n, d, generator=make).requires_grad_() for n, d in ((count, 16), (4, 24)))
    vec = torch.randn(2, SHAPE.hidden, generator=make).requires_grad_()
    pe = rotation(torch.cat((text_ids(4), image_ids(*tokens))), SHAPE.axes, SHAPE.theta)
    if way is not None:
        spread(model, way, group)
    aim = torch.randn(2, count, 16, generator=make)
    share = dist.get_world_size(group) if way is not None else 1
    ((model.predict(img, txt, pe, model.modulation(vec)) - aim).square().mean() / share).backward()
    found = [x.grad for x in (img, txt, vec, *(model.parameters() if way != "tensor" else ())) if x.grad is not None]
    if way is not None:
        for grad in found:
            dist.all_reduce(grad, group=group)
    return found


def refused(work: Callable[[], object]) -> bool:
    try:
        work()
    except BadRequest:
        return True
    return False


def main() -> None:
    """Compare, and say so; any difference ends the process with an error."""
    torch.set_num_threads(1)
    group = join()
    three = FluxShape(**{**vars(SHAPE), "hidden": 48, "heads": 3})
    for rows, columns, text, shape in ((4, 4, 5, SHAPE), (3, 5, 4, SHAPE), (3, 5, 4, three)):  # even and uneven parts
        vec = torch.randn(2, shape.hidden, generator=torch.Generator().manual_seed(2))
        alone = velocity(network(shape), rows, columns, text, vec)
        for way in WAYS:
            if shape is three and way == "tensor":
                continue
            model = network(shape)
            spread(model, way, group)
            found = velocity(model, rows, columns, text, vec)
            torch.testing.assert_close(found, alone, rtol=1e-5, atol=1e-5, msg=lambda text, way=way: f"{way}: {text}")
    for tokens in ((4, 4), (3, 5)):
        truth = gradients(None, group, tokens, False)
        for way, twice in product(WAYS, (False, True)):
            each = gradients(way, group, tokens, twice)
            assert len(each) == (3 if way == "tensor" else len(truth)) > 2
            for mine, right in zip(each, truth, strict=way != "tensor"):
                assert (mine - right).norm() < 1e-5 * right.norm() > 0, f"{way}, {tokens}, computed twice: {twice}"
    for rows, columns in ((4, 4), (5, 3), (1, 6)):  # even and uneven bands, and too few rows for all
        torch.manual_seed(3)
        coder = AutoEncoder(AutoEncoderShape(channels=(8, 16, 16), groups=4, latent=4)).eval().requires_grad_(False)
        z = 2 * torch.randn(2, 4, rows, columns)
        alone = coder.decode(z)
        spread_rows(coder.decoder, group)
        torch.testing.assert_close(coder.decode(z), alone, rtol=1e-5, atol=1e-5)
    model = network()
    spread(model, "tensor", group)
    weights = sum(parameter.numel() for parameter in model.double_blocks.parameters())
    assert weights < sum(parameter.numel() for parameter in network().double_blocks.parameters())
    odd = FluxShape(**{**vars(SHAPE), "heads": 1, "axes": (16, 24, 24)})
    assert refused(lambda: spread(network(odd), "ulysses")) and refused(lambda: spread(network(odd), "tensor"))
    shared = network()
    spread(shared, "gather")
    assert refused(lambda: velocity(shared, 1, 1, 3, torch.zeros(2, SHAPE.hidden)))
    print(f"process {dist.get_rank()} of {dist.get_world_size()}: the same", file=sys.stderr)
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
    sys.stderr.flush()
    os._exit(0)  # networks still hold the group: see `fluxone.cli.main`
