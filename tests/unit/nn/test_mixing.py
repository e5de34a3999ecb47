"""Who attends to whom: regions by their masks, negative text by NAG; checked against attention written out by hand."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from fluxone.nn.attention import sdpa
from fluxone.nn.mixing import Mixing, Nag, attending
from fluxone.nn.transformer import Flux
from unit.tiny import TINY

CPU = torch.device("cpu")


def heads(length: int, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    source = torch.Generator().manual_seed(seed)
    q, k, v = torch.randn(3, 2, 3, length, 4, generator=source).unbind(0)
    return q, k, v


def plain(q: Tensor, k: Tensor, v: Tensor, sees: Tensor) -> Tensor:
    """Attention of one token after the other over what it sees, weighed."""
    scores = (q @ k.transpose(-2, -1) / q.shape[-1] ** 0.5).exp() * sees
    return scores / scores.sum(-1, keepdim=True) @ v


def test_regions_see_what_their_masks_say() -> None:
    mixing = Mixing(text=2, masks=(torch.tensor([1.0, 0.5, 0.0]), torch.tensor([0.0, 0.0, 3.0])), words=(1, 2))
    q, k, v = heads(9)  # 2 of the prompt, 1 and 2 of the regions, 3 of the picture, 1 of a reference
    sees = torch.tensor(
        [
            [1, 1, 0, 0, 0, 1, 1, 1, 1],
            [1, 1, 0, 0, 0, 1, 1, 1, 1],
            [0, 0, 1, 0, 0, 1, 0.5, 0, 0],
            [0, 0, 0, 1, 1, 0, 0, 3, 0],
            [0, 0, 0, 1, 1, 0, 0, 3, 0],
            [1, 1, 1, 0, 0, 1, 1, 1, 1],
            [1, 1, 0.5, 0, 0, 1, 1, 1, 1],
            [1, 1, 0, 3, 3, 1, 1, 1, 1],
            [1, 1, 0, 0, 0, 1, 1, 1, 1],
        ]
    )
    made = mixing.around(sdpa, 0.5, 9, CPU)(q, k, v)
    assert torch.allclose(made, plain(q, k, v, sees), atol=1e-5)


def test_a_window_sees_its_part_of_the_masks() -> None:
    whole = Mixing(text=1, masks=(torch.tensor([1.0, 0.0, 0.5, 0.0]),), words=(1,))
    part = Mixing(text=1, masks=(torch.tensor([0.0, 0.5]),), words=(1,))
    q, k, v = heads(4)
    before = whole.around(sdpa, 0.5, 6, CPU)(*heads(6))
    whole.look(torch.tensor([1, 2]))
    assert torch.equal(whole.around(sdpa, 0.5, 4, CPU)(q, k, v), part.around(sdpa, 0.5, 4, CPU)(q, k, v))
    whole.look(None)
    assert torch.equal(whole.around(sdpa, 0.5, 6, CPU)(*heads(6)), before)


def test_nag_goes_away_from_the_negative_text_and_bounds_it() -> None:
    nag = Nag(scale=4.0, tau=3.5, alpha=0.3)
    mixing = Mixing(text=2, negative=3, nag=nag)
    q, k, v = heads(9)  # 2 of the prompt, 3 negative, 4 of the picture
    ours, theirs, picture = [0, 1], [2, 3, 4], [5, 6, 7, 8]

    def seen(rows: list[int]) -> Tensor:
        every = torch.ones(len(rows), len(rows))
        return plain(q[:, :, rows], k[:, :, rows], v[:, :, rows], every)

    positive, negative = seen(ours + picture), seen(theirs + picture)
    z1, z2 = positive[:, :, 2:], negative[:, :, 3:]
    far = 4 * z1 - 3 * z2
    longer = far.abs().sum((1, 3), keepdim=True) / z1.abs().sum((1, 3), keepdim=True)
    assert (longer > 3.5).any() and (longer < 3.5).any()
    kept = far * torch.where(longer > 3.5, 3.5 / longer, 1.0)
    wanted = torch.cat((positive[:, :, :2], negative[:, :, :3], 0.3 * kept + 0.7 * z1), dim=2)
    assert torch.allclose(mixing.around(sdpa, 0.5, 9, CPU)(q, k, v), wanted, atol=1e-5)


def test_nag_works_between_its_levels_alone() -> None:
    mixing = Mixing(text=2, negative=3, nag=Nag(scale=4.0, low=0.2, high=0.8))
    q, k, v = heads(9)
    inside, outside = (mixing.around(sdpa, level, 9, CPU)(q, k, v) for level in (0.8, 0.2))
    rows = [0, 1, 5, 6, 7, 8]
    assert torch.allclose(outside[:, :, rows], sdpa(q[:, :, rows], k[:, :, rows], v[:, :, rows]), atol=1e-6)
    assert torch.allclose(inside[:, :, :5], outside[:, :, :5], atol=1e-6)
    assert not torch.allclose(inside[:, :, 5:], outside[:, :, 5:], atol=1e-3)
    assert mixing.around(sdpa, 0.5, 9, CPU) is mixing.around(sdpa, 0.6, 9, CPU), "compiled blocks see one object"


def test_the_network_gets_its_backend_back() -> None:
    model = Flux(TINY.shape)
    before = model.attend
    with pytest.raises(ZeroDivisionError), attending(model, Mixing(text=1, negative=1), 0.5, 4, CPU):
        assert model.attend is not before
        _ = 1 / 0
    assert model.attend is before
