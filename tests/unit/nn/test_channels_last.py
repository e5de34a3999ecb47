"""The passes for channels last, in Triton's interpreter, against torch; where they work; where they step aside."""

from __future__ import annotations

import sys

import pytest
import torch
from torch import Tensor, nn

from fluxone.nn import channels_last
from fluxone.nn.autoencoder import AutoEncoder
from fluxone.shapes import AutoEncoderShape

SHAPE = AutoEncoderShape(channels=(8, 8, 16, 16), blocks=1, latent=4, groups=4)
KERNELS = {"fluxone.nn.channels_last_triton", "fluxone.quant.kernels_triton"}
triton = pytest.mark.skipif(
    not channels_last.available() or torch.cuda.is_available(), reason="there is no Triton, or a device for it"
)


@pytest.fixture
def _interpreted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Triton's interpreter; it is chosen when Triton is imported, which torch's compiler may have done before."""
    if "triton" in sys.modules and not KERNELS & sys.modules.keys():
        pytest.skip("Triton is there without its interpreter: run this file alone")
    monkeypatch.setenv("TRITON_INTERPRET", "1")


def expected(x: Tensor, norm: nn.GroupNorm, before: Tensor | None, *, silu: bool) -> Tensor:
    """The same in float64."""
    x = x.double() if before is None else x.double() + before.double()[:, None, None]
    rows = x.contiguous().reshape(len(x), norm.num_groups, -1)
    rows = (rows - rows.mean(-1, keepdim=True)) / (rows.var(-1, keepdim=True, correction=0) + norm.eps).sqrt()
    out = rows.reshape(x.shape) * norm.weight.double()[:, None, None] + norm.bias.double()[:, None, None]
    return nn.functional.silu(out) if silu else out


@triton
@pytest.mark.usefixtures("_interpreted")
@pytest.mark.filterwarnings("ignore:overflow encountered in exp")  # SiLU of -100: 1 / inf is what it should be
@pytest.mark.parametrize("silu", [False, True])
@pytest.mark.parametrize(
    ("shape", "groups", "mean"),
    [((2, 96, 33, 5), 32, 3), ((1, 64, 130, 64), 32, 100), ((1, 40, 13, 1), 8, -5), ((2, 1, 5, 5), 1, 0),
     ((1, 512, 4, 5), 32, 1)],
)  # fmt: skip
def test_groups_are_normalised(shape: tuple[int, ...], groups: int, mean: float, silu: bool) -> None:
    torch.manual_seed(0)
    norm = nn.GroupNorm(groups, shape[1], eps=1e-6).requires_grad_(False)
    norm.weight.normal_()
    norm.bias.normal_()
    x = (mean + torch.randn(shape) * torch.rand(shape[1], 1, 1)).contiguous(memory_format=torch.channels_last)
    for before in (None, torch.randn(shape[1])):
        found = channels_last.group_norm(x, norm, silu=silu, before=before)
        assert found.is_contiguous(memory_format=torch.channels_last)
        torch.testing.assert_close(found.double(), expected(x, norm, before, silu=silu), rtol=0, atol=1e-4)


@triton
@pytest.mark.usefixtures("_interpreted")
@pytest.mark.parametrize(("dtype", "limit"), [(torch.float16, 2e-3), (torch.bfloat16, 1.6e-2)])
def test_half_precision_is_rounded_at_the_end_alone(dtype: torch.dtype, limit: float) -> None:
    torch.manual_seed(0)
    x = torch.randn(1, 32, 9, 7).to(dtype).contiguous(memory_format=torch.channels_last)
    norm, bias = nn.GroupNorm(8, 32, eps=1e-6).requires_grad_(False).to(dtype), torch.randn(32).to(dtype)
    found = channels_last.group_norm(x, norm, silu=True, before=bias)
    torch.testing.assert_close(found.double(), expected(x, norm, bias, silu=True), rtol=limit, atol=limit)
    other = torch.randn_like(x)
    wanted = x.double() + other.double() + bias.double()[:, None, None]
    torch.testing.assert_close(channels_last.added(x, other, bias).double(), wanted, rtol=limit, atol=limit)


@triton
@pytest.mark.usefixtures("_interpreted")
def test_a_picture_is_that_of_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    vae, pixels, latent = AutoEncoder(SHAPE).eval(), torch.rand(2, 3, 24, 16) * 2 - 1, torch.randn(2, 4, 3, 2)
    with torch.inference_mode():
        plain = vae.encode(pixels), vae.decode(latent)
        monkeypatch.setattr(channels_last, "wanted", lambda x: True)
        asked: list[bool] = []
        own = channels_last.group_norm
        monkeypatch.setattr(channels_last, "group_norm", lambda *x, **y: asked.append(True) or own(*x, **y))
        found = vae.encode(pixels), vae.decode(latent)
        assert len(asked) == sum(isinstance(module, nn.GroupNorm) for module in vae.modules())
        for a, b in zip(found, plain, strict=True):
            assert a.is_contiguous()
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)
        asked.clear()
        vae.decode(latent, tile=1)
        vae.decoder.walk = lambda decoder, z: z
        vae.decode(latent)
        vae.encoder._compiled_call_impl = vae.encoder._call_impl
        vae.encode(pixels)
        norms = sum(isinstance(module, nn.GroupNorm) for module in vae.decoder.mid.modules())
        assert len(asked) <= norms, "tiles, bands and torch's compiler have their channels first"


class OnDevice(Tensor):
    """What says that it is on a GPU."""

    is_cuda = True
    device = torch.device("cuda", 0)


@pytest.mark.parametrize(
    ("asked", "capability", "dtype", "works"),
    [
        ("", (9, 0), torch.bfloat16, True),
        ("", (9, 0), torch.float16, True),
        ("", (9, 0), torch.float32, True),
        ("", (8, 9), torch.bfloat16, False),
        ("1", (8, 9), torch.bfloat16, True),
        ("0", (9, 0), torch.float32, False),
        ("1", (9, 0), torch.float64, False),
        ("0", (9, 0), torch.bfloat16, False),
    ],
)
def test_kernels_work_where_they_are_known_or_asked_for(
    asked: str, capability: tuple[int, int], dtype: torch.dtype, works: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(channels_last.ASKED, asked)
    monkeypatch.setattr(channels_last, "available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    x = torch.zeros(1, dtype=dtype).as_subclass(OnDevice)
    assert channels_last.wanted(x) is False, "there may be gradients"
    with torch.no_grad():
        assert channels_last.wanted(x) is works
        assert channels_last.layout(x) is (torch.channels_last if works else torch.contiguous_format)
        with monkeypatch.context() as patch:
            patch.setattr(torch, "is_autocast_enabled", lambda kind: True)
            assert channels_last.wanted(x) is False, "norms are float32 there"
        monkeypatch.setattr(torch.cuda, "current_device", lambda: 1)
        assert channels_last.wanted(x) is False, "Triton would launch on another device"
