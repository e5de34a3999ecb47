"""int8 products are exact, by our loop and by torch's."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from fluxone.quant import native

SIZES = [  # rows, columns, and what comes out
    (1, 64, 64), (7, 192, 448), (13, 1344, 192), (385, 64, 128), (12, 2624, 64),
    (5, 96, 64), (5, 64, 32),  # not multiples of 64
]  # fmt: skip


def numbers(rows: int, columns: int) -> Tensor:
    return torch.randint(-128, 128, (rows, columns), dtype=torch.int8)


@pytest.mark.parametrize(("rows", "columns", "out"), SIZES)
def test_products_are_exact(rows: int, columns: int, out: int) -> None:
    torch.manual_seed(0)
    x, weight = numbers(rows, columns), numbers(out, columns)
    assert torch.equal(native.product(x, weight).double(), x.double() @ weight.double().t())


@pytest.mark.parametrize("least", [-128, 127])
def test_the_largest_sums_do_not_saturate(least: int) -> None:
    x, weight = torch.full((6, 15360), least, dtype=torch.int8), torch.full((64, 15360), -128, dtype=torch.int8)
    assert native.product(x, weight).unique().tolist() == [15360 * least * -128]


def test_threads_share_the_panels(monkeypatch: pytest.MonkeyPatch) -> None:
    x, weight = numbers(9, 128), numbers(320, 128)
    expected = native.product(x, weight)
    monkeypatch.setattr(native, "MANY", 1)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    assert torch.equal(native.product(x, weight), expected)


def test_without_the_loop_torch_multiplies(monkeypatch: pytest.MonkeyPatch) -> None:
    x, weight = numbers(9, 128), numbers(64, 128)
    expected = native.product(x, weight)
    monkeypatch.setattr(native, "_product", lambda: None)
    assert torch.equal(native.product(x, weight), expected)
    assert torch.equal(native.product(x.t().contiguous().t(), weight), expected)
