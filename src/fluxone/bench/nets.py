"""Networks of any shape with random weights, ours and diffusers', sharing their tensors; and what they are given."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from fluxone.errors import MissingExtra
from fluxone.nn.rope import Rotation, rotation
from fluxone.nn.tokens import image_ids, text_ids
from fluxone.nn.transformer import Flux, Modulation
from fluxone.shapes import FluxShape
from fluxone.weights.configs import write_flux
from fluxone.weights.formats import FORMATS
from fluxone.weights.save import in_format

SIGMAS = (1.0, 0.95, 0.85, 0.75, 0.6, 0.45, 0.25, 0.1)
GUIDANCE = 3.5


@dataclass(frozen=True, kw_only=True)
class Case:
    """A network and a size of picture.

    Attributes:
        grid: rows and columns of tokens.
        text: tokens.
        seed: of weights and inputs.
    """

    name: str
    shape: FluxShape
    grid: tuple[int, int]
    text: int
    seed: int = 0

    @property
    def tokens(self) -> int:
        """Of picture and text."""
        return self.grid[0] * self.grid[1] + self.text


def weights(case: Case, device: torch.device, dtype: torch.dtype) -> dict[str, Tensor]:
    """Random weights by native names, as large as a trained network's, so that every part matters."""
    with torch.device("meta"):
        state = Flux(case.shape).state_dict()
    make = torch.Generator(device).manual_seed(case.seed)
    found = {}
    for name, empty in state.items():
        if empty.ndim < 2:
            fill = torch.ones if name.endswith("scale") else torch.zeros
            found[name] = fill(empty.shape, device=device, dtype=dtype)
        else:
            spread = (0.5 if "mod" in name else 1.0) / empty.shape[1] ** 0.5
            found[name] = torch.randn(empty.shape, generator=make, device=device, dtype=dtype).mul_(spread)
    return found


def ours(case: Case, state: dict[str, Tensor]) -> Flux:
    """Our network on these very tensors."""
    with torch.device("meta"):
        model = Flux(case.shape)
    model.requires_grad_(False).load_state_dict(state, assign=True)
    return model.requires_grad_(False).eval()


def theirs(case: Case, state: dict[str, Tensor]) -> nn.Module:
    """diffusers' network on the same numbers.

    Raises:
        MissingExtra: it is not installed.
    """
    try:
        from diffusers import FluxTransformer2DModel
    except ImportError:
        raise MissingExtra("dev", "diffusers is not installed") from None
    config = {key: value for key, value in write_flux(case.shape).items() if not key.startswith("_")}
    with torch.device("meta"):
        build: Any = FluxTransformer2DModel
        model: nn.Module = build(**config)
    model.load_state_dict(in_format(state, FORMATS["diffusers transformer"]), assign=True)
    return model.requires_grad_(False).eval()


@dataclass(frozen=True, kw_only=True)
class Given:
    """The same for all contestants: states at every noise level, text, pooled text, positions; in one type."""

    case: Case
    img: Tensor
    txt: Tensor
    pooled: Tensor
    pe: Rotation

    @classmethod
    def of(cls, case: Case, device: torch.device, dtype: torch.dtype) -> Given:
        """Seeded noise; the same numbers on every device."""
        make = torch.Generator().manual_seed(case.seed + 1)

        def noise(*shape: int) -> Tensor:
            return torch.randn(shape, generator=make).to(device, dtype)

        shape, count = case.shape, case.grid[0] * case.grid[1]
        ids = torch.cat((text_ids(case.text), image_ids(*case.grid)))
        return cls(
            case=case, img=noise(len(SIGMAS), count, shape.in_channels), txt=noise(1, case.text, shape.text_dim),
            pooled=noise(1, shape.vec_dim), pe=rotation(ids, shape.axes, shape.theta).to(device),
        )  # fmt: skip

    @torch.inference_mode()
    def modulation(self, model: Flux) -> Modulation:
        """The modulation at every noise level, by a network in the type of these inputs or a wider one."""
        many, weight = len(SIGMAS), model.vector_in.in_layer.weight
        levels = torch.tensor(SIGMAS, device=weight.device)
        pooled = self.pooled.to(weight.dtype).expand(many, -1)
        found = model.modulation(model.vector(levels, torch.full_like(levels, GUIDANCE), pooled))
        return found.each(lambda rows: rows.to(self.img.dtype))

    def step(self, model: Flux, modulation: Modulation, level: int) -> Tensor:
        """Our velocity at a noise level."""
        return model.predict(self.img[level : level + 1], self.txt, self.pe, modulation.rows(level))

    def their_step(self, model: Any, level: int) -> Tensor:
        """diffusers' velocity at a noise level, its time and guidance rounded as it does."""
        dtype, device = self.img.dtype, self.img.device
        guidance = torch.full((1,), GUIDANCE, device=device) if self.case.shape.guided else None
        out: Tensor = model(
            hidden_states=self.img[level : level + 1], encoder_hidden_states=self.txt, pooled_projections=self.pooled,
            timestep=torch.tensor([SIGMAS[level]], device=device).to(dtype), guidance=guidance,
            img_ids=image_ids(*self.case.grid).to(device), txt_ids=text_ids(self.case.text).to(device),
            return_dict=False,
        )[0]  # fmt: skip
        return out
