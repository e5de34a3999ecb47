"""The autoencoder's objective: crops of storybook pictures, rebuilt through a 16-channel latent.

Losses: absolute and squared error, error of the differences between neighbouring pixels (sharp edges and
letters), error after 4x averaging (right colours), likeness of structure (eyes in a dark face count as much as black
on white), and a light pull of the latent towards a unit Gaussian. The latent is shaken before it is decoded: what a
transformer draws is never quite clean, and what is said too quietly in the latent is never learnt. With a factor of
`moved`, latents stay near those that the run started from, so that transformers which know those find their way.

Source: Wang et al. 2004 (SSIM).
"""

from __future__ import annotations

from copy import deepcopy
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from PIL.Image import Image
from torch import Tensor, nn

from fluxone import storybook
from fluxone.nn.autoencoder import AutoEncoder
from fluxone.pixels import to_images, unit
from fluxone.shapes import AutoEncoderShape
from fluxone.train.config import TrainConfig
from fluxone.train.data.bank import Bank
from fluxone.train.data.scenes import draw, nth, pixels, world_of
from fluxone.train.export import BESIDE, channels_last, load_average

WEIGHTS = {"l1": 1.0, "l2": 1.0, "edges": 0.7, "colours": 0.5, "structure": 0.2, "kl": 1e-4, "moved": 0.0}
LOGVAR_START = -5.0  # without it the first hundreds of steps only learn to be less noisy
VALIDATION_SCENES = 48
NOISE = 0.1  # of the latent's deviation: how much it is shaken, give or take
WINDOW = 5  # px, in which structure is compared
SHARED = 4  # crops that come from one picture: drawing it costs as much as training on two
SIGN_SHARE = 0.3  # of crops taken from the upper half, where words are


class AutoEncoderObjective:
    """Trains an `AutoEncoder` on crops; the latent's scale and shift are measured at validation.

    With a frozen encoder the latents stay what they are, and so do scale and shift.

    Args:
        bank: where pictures come from; None draws them as they are needed.
    """

    def __init__(self, config: TrainConfig, bank: Bank | None = None) -> None:
        model = config.model
        torch.manual_seed(config.seed)
        shape = AutoEncoderShape(
            channels=model.channels, blocks=model.blocks, groups=model.groups, scale=1.0, shift=0.0
        )
        self.config, self.shape = config, shape
        self.world = world_of(config.data)
        self.weights = WEIGHTS | config.weights
        self.model = AutoEncoder(shape)
        with torch.no_grad():
            bias = self.model.encoder.conv_out.bias
            assert bias is not None
            bias[shape.latent :] = LOGVAR_START
        self.device = torch.device(config.device)
        channels_last(self.model.to(self.device)).requires_grad_(True).train()
        self.latent = {"scale": 1.0, "shift": 0.0}
        for name in config.model.frozen:
            self.model.get_submodule(name).requires_grad_(False)
        self.bank = bank
        if config.model.start:
            self.latent |= load_average(self.modules(), config.model.start).get("latent", {})
        self._before = deepcopy(self.model).requires_grad_(False) if self.weights["moved"] else None

    def modules(self) -> dict[str, nn.Module]:
        return {"autoencoder": self.model}

    def muon(self, name: str, parameter: nn.Parameter) -> bool:
        return parameter.ndim == 4 and "conv_in" not in name and "conv_out" not in name

    def pace(self, _name: str) -> float:
        return 1.0

    def meta(self) -> dict[str, Any]:
        beside = {BESIDE: list(self.config.model.start)} if self.config.model.frozen else {}
        return {"latent": self.latent} | beside

    def loss(self, step: int, share: slice) -> dict[str, Tensor]:
        x = self._crops(step, share) if self.bank is None else self._kept(self.bank, step)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.config.autocast):
            return self._terms(x.to(self.device), step, share)

    def _terms(self, x: Tensor, step: int, share: slice) -> dict[str, Tensor]:
        mean, logvar = self.model.moments(x)
        rows = [draw(self.config.seed, step, 1, row) for row in range(share.start, share.stop)]
        noise = torch.stack([torch.randn(mean.shape[1:], generator=rng) for rng in rows]).to(self.device)
        shaken = NOISE * torch.stack([torch.randn(1, 1, 1, generator=rng) for rng in rows]).to(self.device)
        spread = (shaken * mean.std()).square()  # not detached: louder is no way out
        if self.model.encoder.conv_in.weight.requires_grad:
            spread = spread + logvar.exp()
        terms = compare(self.model.decode_raw(mean + spread.sqrt() * noise).float(), x)
        terms["kl"] = 0.5 * (mean.square() + logvar.exp() - 1 - logvar).mean()
        if self._before is not None:
            with torch.no_grad():
                before = self._before.moments(x)[0]
            terms["moved"] = F.mse_loss(mean, before) / before.var()
        terms["loss"] = torch.stack([self.weights[name] * value for name, value in terms.items()]).sum()
        return terms

    def _kept(self, bank: Bank, step: int) -> Float[Tensor, "B 3 crop crop"]:
        """Crops of pictures that the bank keeps, all from one place a step."""
        rng, crop = draw(self.config.seed, step), self.config.data.crop
        pictures = bank.seen(self.config.batch, rng)["pictures"]
        top, left = (int(at) for at in torch.randint(pictures.shape[1] - crop + 1, (2,), generator=rng))
        cut = pictures[:, top : top + crop, left : left + crop].permute(0, 3, 1, 2)
        return (cut.float() / 127.5 - 1).contiguous(memory_format=torch.channels_last)

    def _crops(self, step: int, share: slice) -> Float[Tensor, "B 3 crop crop"]:
        """A few crops a picture; rows of the batch are fixed by (seed, step, row)."""
        size, crop = self.config.data.size, self.config.data.crop
        crops = []
        for row in range(share.start, share.stop):
            rng = draw(self.config.seed, step, -1 - row // SHARED, row % SHARED)
            number = step * (self.config.batch // SHARED + 1) + row // SHARED
            y, x, upper = (float(u) for u in torch.rand(3, generator=rng))
            room = size - crop
            top = int(y * (room // 2 if upper < SIGN_SHARE else room))
            picture = self._picture(number)
            crops.append(picture[:, top : top + crop, int(x * room) : int(x * room) + crop])
        return torch.stack(crops).contiguous(memory_format=torch.channels_last)

    def _picture(self, number: int) -> Float[Tensor, "3 H W"]:
        if getattr(self, "_last", (None, None))[0] != number:
            self._last = number, pixels(storybook.render(nth(self.world, number), self.config.data.size))
        return self._last[1]

    def _held_out(self, count: int) -> Float[Tensor, "N 3 H W"]:
        scenes = (nth(self.world, i, held_out=True) for i in range(count))
        pictures = [pixels(storybook.render(scene, self.config.data.size)) for scene in scenes]
        return torch.stack(pictures).to(self.device)

    def validate(self) -> dict[str, float]:
        x = self._held_out(VALIDATION_SCENES)
        z = torch.cat([self.model.moments(part)[0] for part in torch.split(x, 8)])
        rebuilt = torch.cat([self.model.decode_raw(part) for part in torch.split(z, 8)]).clamp(-1, 1)
        if "encoder" not in self.config.model.frozen:
            self.latent = {"scale": float(1 / z.std()), "shift": float(z.mean())}
        error = ((rebuilt - x) / 2).square().mean((1, 2, 3))
        return {"psnr": float((-10 * error.log10()).mean()), "std": float(z.std()), "mean": float(z.mean())}

    def sheet(self) -> Image:
        x = self._held_out(12)
        both = torch.stack([x, self.model.decode_raw(self.model.moments(x)[0])], 1).flatten(0, 1)
        return storybook.sheet(to_images(unit(both)), ["picture", "rebuilt"] * 12, 6)


def compare(ours: Tensor, theirs: Tensor) -> dict[str, Tensor]:
    """The terms of the reconstruction loss."""
    down_ours, down_theirs = ours.diff(dim=-2), theirs.diff(dim=-2)
    across_ours, across_theirs = ours.diff(dim=-1), theirs.diff(dim=-1)
    return {
        "l1": F.l1_loss(ours, theirs),
        "l2": F.mse_loss(ours, theirs),
        "edges": F.l1_loss(down_ours, down_theirs) + F.l1_loss(across_ours, across_theirs),
        "colours": F.l1_loss(F.avg_pool2d(ours, 4), F.avg_pool2d(theirs, 4)),
        "structure": 1 - _likeness(ours, theirs),
    }


def _likeness(ours: Tensor, theirs: Tensor) -> Tensor:
    """SSIM of pixels in -1..1, over square windows."""
    mean = partial(F.avg_pool2d, kernel_size=WINDOW, stride=1)
    a, b = mean(ours), mean(theirs)
    along = mean(ours * theirs) - a * b
    apart = mean(ours.square()) - a.square() + mean(theirs.square()) - b.square()
    c1, c2 = (0.01 * 2) ** 2, (0.03 * 2) ** 2  # its constants, times the range of the pixels
    alike = (2 * a * b + c1) / (a.square() + b.square() + c1) * (2 * along + c2) / (apart + c2)
    return alike.mean()
