"""int8 products are exact, by our loop and by torch's; attention in our loop is nearer to the truth than in torch's."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from fluxone.nn.attention import ATTENTION
from fluxone.quant import native
from fluxone.quant.passes import CpuPasses, family

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


@pytest.mark.skipif(native._attend()[0] is None, reason="this processor has no such loop")
@pytest.mark.parametrize(("heads", "total", "size"), [(2, 1, 64), (3, 17, 64), (2, 130, 128)])
def test_attention_is_near_the_truth(heads: int, total: int, size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    q, k, v = (torch.randn(heads, total, size).bfloat16() for _ in range(3))
    exact = F.scaled_dot_product_attention(q.double(), k.double(), v.double())
    passes, backend = CpuPasses(family(torch.int8, torch.float32)), ATTENTION["sdpa"]
    found = passes.attend((q, k, v), backend)
    with monkeypatch.context() as patch:
        patch.setattr(native, "attended", lambda *given: None)
        torchs = passes.attend((q, k, v), backend)
    assert found.shares is None and torchs.shares is not None
    other = torchs.numbers.double() * torchs.shares[..., None]
    assert (found.numbers.double() - exact).norm() < 3e-3 * exact.norm()
    assert (other - exact).norm() < 6e-3 * exact.norm()
    monkeypatch.setattr(native, "MANY", 1)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    assert torch.equal(passes.attend((q, k, v), backend).numbers, found.numbers)


@pytest.mark.skipif(native._attend()[0] is None, reason="this processor has no such loop")
def test_attention_loses_no_nan_and_leaves_other_types_to_torch() -> None:
    q, k, v = (torch.randn(2, 70, 64).bfloat16() for _ in range(3))
    v[1, 69, 3] = float("nan")
    found = native.attended(q, k, v)
    assert found is not None and found[1, :, 3].isnan().all() and not found[0].isnan().any()
    q[0, 5, 0] = float("nan")
    found = native.attended(q, k, v)
    assert found is not None and found[0, 5].isnan().all() and not found[0, :5].isnan().any()
    assert native.attended(q.float(), k.float(), v.float()) is None
    assert native.attended(*(x[..., :32].contiguous() for x in (q, k, v))) is None
