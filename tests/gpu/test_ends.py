"""On an accelerator: the decoder's kernels against float32, and replayed encoders against plain ones."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from fluxone.bench.ends import filled
from fluxone.nn import channels_last, graphs
from fluxone.nn.autoencoder import AutoEncoder
from fluxone.nn.clip import ClipTextEncoder
from fluxone.nn.t5 import T5Encoder
from fluxone.shapes import AutoEncoderShape, ClipShape, T5Shape

pytestmark = pytest.mark.gpu
CUDA = torch.device("cuda", 0)
T5 = T5Shape(vocab=99, hidden=128, layers=3, heads=4, head_dim=32, mlp=256)
CLIP = ClipShape(vocab=99, hidden=128, layers=2, heads=2, mlp=256, eos=98)


@pytest.fixture(autouse=True)
def asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernels are at work."""
    if not channels_last.available():
        pytest.skip("there is no Triton")
    monkeypatch.setenv(channels_last.ASKED, "1")


def error(found: Tensor, wanted: Tensor) -> float:
    return float((found.float() - wanted.float()).norm() / wanted.float().norm())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("shape", [(1, 128, 257, 130), (2, 256, 33, 65), (1, 512, 128, 128), (3, 96, 7, 5)])
@torch.inference_mode()
def test_groups_are_normalised_as_in_float32(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    x = (3 + torch.randn(shape, device=CUDA)).to(dtype).contiguous(memory_format=torch.channels_last)
    norm = nn.GroupNorm(32, shape[1], eps=1e-6, device=CUDA, dtype=dtype)
    norm.weight.normal_()
    norm.bias.normal_()
    before = torch.randn(shape[1], device=CUDA, dtype=dtype)
    limit = 4e-3 if dtype is torch.bfloat16 else 5e-4
    for silu in (False, True):
        for bias in (None, before):
            rows = x.float().contiguous() if bias is None else x.float().contiguous() + bias.float()[:, None, None]
            wanted = nn.functional.group_norm(rows, 32, norm.weight.float(), norm.bias.float(), norm.eps)
            wanted = nn.functional.silu(wanted) if silu else wanted
            found = channels_last.group_norm(x, norm, silu=silu, before=bias)
            assert found.is_contiguous(memory_format=torch.channels_last) and error(found, wanted) < limit
    assert error(channels_last.added(x, x, before), 2 * x.float() + before.float()[:, None, None]) < limit


@torch.inference_mode()
def test_offsets_are_wide_enough() -> None:
    x = torch.empty(3, 256, 2048, 2048, device=CUDA, dtype=torch.bfloat16, memory_format=torch.channels_last).fill_(1)
    x[2, :, -1, -1] = 3
    norm = nn.GroupNorm(32, 256, eps=1e-6, device=CUDA, dtype=torch.bfloat16)
    out = channels_last.group_norm(x, norm, silu=False)[2]
    assert abs(float(out[0, -1, -1]) - 1431) < 15 and abs(float(out[0, 0, 0])) < 1e-2  # 2 / sqrt(4 / 2048**2 + eps)


@torch.inference_mode()
def test_the_decoder_loses_no_more_than_torch_does(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    with CUDA:
        vae = AutoEncoder(AutoEncoderShape(channels=(64, 64, 128, 128))).eval().bfloat16()
        latent, pixels = torch.randn(1, 16, 24, 40, dtype=torch.bfloat16), torch.rand(1, 3, 200, 136).bfloat16()
    exact = AutoEncoder(vae.shape).to(CUDA).eval()
    exact.load_state_dict(vae.state_dict())
    found = vae.decode(latent), vae.encode(pixels)
    monkeypatch.setenv(channels_last.ASKED, "0")
    plain = vae.decode(latent), vae.encode(pixels)
    for own, torchs, wanted in zip(
        found, plain, (exact.decode(latent.float()), exact.encode(pixels.float())), strict=True
    ):
        assert own.is_contiguous() and error(own, wanted) < 1.2 * error(torchs, wanted) + 1e-3


@torch.inference_mode()
def test_one_wide_head_attends_alike() -> None:
    q, k, v = torch.randn(3, 2, 1, 5000, 512, device=CUDA, dtype=torch.bfloat16).unbind(0)
    wanted = nn.functional.scaled_dot_product_attention(q.float(), k.float(), v.float())
    assert error(channels_last.by_products(q, k, v), wanted) < 0.01


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@torch.inference_mode()
def test_replayed_encoders_say_what_plain_ones_say(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    t5, clip = filled(T5Encoder, T5, CUDA, dtype), filled(ClipTextEncoder, CLIP, CUDA, dtype)
    ids = torch.randint(0, 98, (6, 2, 40), device=CUDA)
    plain = [(t5(one), *clip(one)) for one in ids]
    graphs.record(t5, lambda ids: t5.encoder.places(ids.shape[1], ids.device))
    graphs.record(clip)
    again = [(t5(one), *clip(one)) for one in ids]
    for network in (t5, clip):
        assert all(network._compiled_call_impl.recordings.values()) and not network._compiled_call_impl.failed
    for length in range(20, 20 + 2 * graphs.MOST):
        t5(ids[0, :, :length])
        t5(ids[0, :, :length])
    assert len(t5._compiled_call_impl.recordings) == graphs.MOST
    again.append((t5(ids[0]), *clip(ids[0])))
    for found, wanted in zip(again, [*plain, plain[0]], strict=True):
        for a, b in zip(found, wanted, strict=True):
            assert error(a, b) < (1e-5 if dtype is torch.float32 else 1e-2)


@torch.inference_mode()
def test_a_recorded_decoder_draws_the_same_and_weights_may_go() -> None:
    torch.manual_seed(0)
    with CUDA:
        vae = AutoEncoder(AutoEncoderShape(channels=(32, 32, 64, 64), blocks=1)).eval().bfloat16()
        latents = torch.randn(4, 1, 16, 8, 8, dtype=torch.bfloat16)
    plain = [vae.decode(latent) for latent in latents]
    graphs.record(vae.decoder)
    for _ in range(2):
        for latent, wanted in zip(latents, plain, strict=True):
            assert error(vae.decode(latent), wanted) < 1e-2
        assert any(vae.decoder._compiled_call_impl.recordings.values())  # type: ignore[union-attr]
        vae.to("cpu").to(CUDA)
