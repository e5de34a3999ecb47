"""Attention backends: those that work here attend alike; what is not installed says so; the quickest is one of them."""

from __future__ import annotations

import sys
from types import ModuleType

import pytest
import torch
from torch import Tensor

from fluxone.assembly import assemble
from fluxone.errors import BadRequest, UnknownName
from fluxone.nn import attention
from fluxone.nn.attention import ATTENTION, EXACT, measured, quickest
from fluxone.recipe import Recipe

CPU = torch.device("cpu")


def test_backends_that_work_here_attend_alike() -> None:
    q, k, v = torch.randn(3, 1, 2, 9, 16).unbind(0)
    there = measured(CPU, torch.float32, tokens=9, heads=2, size=16)
    assert {"sdpa"} <= there.keys() <= set(EXACT) and all(seconds > 0 for seconds in there.values())
    for name in (*there, "matmul"):
        torch.testing.assert_close(ATTENTION[name](q, k, v), ATTENTION["sdpa"](q, k, v), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("name", "package"), [("flash3", "flash_attn_interface"), ("sage", "sageattention")])
def test_packages_that_are_not_installed_are_named(name: str, package: str) -> None:
    q = torch.randn(1, 2, 9, 16)
    with pytest.raises(BadRequest, match=f"attention of {package} cannot be used"):
        ATTENTION[name](q, q, q)


def test_packages_are_called_in_their_own_layout(monkeypatch: pytest.MonkeyPatch) -> None:
    def flash_attn_func(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, None]:
        out = ATTENTION["sdpa"](*(part.transpose(1, 2) for part in (q, k, v)))
        return out.transpose(1, 2), None

    made = ModuleType("flash_attn_interface")
    made.flash_attn_func = flash_attn_func  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "flash_attn_interface", made)
    q, k, v = torch.randn(3, 1, 2, 9, 16).unbind(0)
    torch.testing.assert_close(ATTENTION["flash3"](q, k, v), ATTENTION["sdpa"](q, k, v))


def test_the_quickest_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    assert quickest(CPU, torch.float32, tokens=9, heads=2, size=16) == "sdpa"
    monkeypatch.setattr(attention, "measured", lambda *given, **named: {"sdpa": 2.0, "cudnn": 1.0})
    assert quickest(torch.device("cuda"), torch.float32, tokens=9, heads=2, size=16) == "cudnn"


def test_a_recipe_can_leave_it_open() -> None:
    pipe = assemble("mini", Recipe(device="cpu", attention="auto"))
    assert pipe.recipe.attention == "sdpa" and pipe.transformer.attend is ATTENTION["sdpa"]
    with pytest.raises(UnknownName, match="did you mean 'flash'"):
        assemble("mini", Recipe(device="cpu", attention="flahs"))
