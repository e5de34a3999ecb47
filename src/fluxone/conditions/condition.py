"""What every kind of condition is made from and becomes, whichever door the pictures came in by."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from jaxtyping import Float
from torch import Tensor

from fluxone.errors import BadRequest
from fluxone.pixels import Mask, Pixels

Tokens = Float[Tensor, "B L C"]
Latent = Float[Tensor, "B C h w"]
COLOURS = 3


@dataclass(frozen=True, kw_only=True)
class Pictures:
    """What was given besides words, each at the size that the network works at; some may be latents already.

    Attributes:
        init: the picture to start from, or to repaint.
        mask: 1 where it is repainted.
        left: in place of both, what the mask leaves of the picture as the network is to see it; see `fill.left_of`.
        control: edges or depths, as a picture.
        references: one batch a reference; their sizes differ.
        layout: row of `LAYOUTS`.
        hints: for ControlNets, one batch each.
        edited: the latent of an edit, which the next one looks at in place of the references.
    """

    init: Pixels | Latent | None = None
    mask: Mask | None = None
    left: Tokens | None = None
    control: Pixels | Latent | None = None
    references: tuple[Pixels | Latent, ...] = ()
    layout: str = "offset"
    hints: tuple[Pixels, ...] = ()
    edited: Latent | None = None

    def repeated(self, times: int) -> Pictures:
        """The same with every picture to encode so many times; references are only ever encoded to their mean."""
        init, control = (None if p is None else p.repeat(times, 1, 1, 1) for p in (self.init, self.control))
        hints = tuple(hint.repeat(times, 1, 1, 1) for hint in self.hints)
        return replace(self, init=init, control=control, hints=hints)


@dataclass(frozen=True, kw_only=True)
class Studio:
    """What conditions are made with.

    Attributes:
        sample: pixels -> latent: a sample of the posterior where the compatibility says so.
        mean: pixels -> the mean latent.
        batch: pictures that are drawn together.
        factor: px a cell.
        channels: of the latent.
    """

    sample: Callable[[Pixels], Tensor]
    mean: Callable[[Pixels], Tensor]
    batch: int
    factor: int
    channels: int

    def encode(self, picture: Pixels | Latent) -> Tensor:
        """The latents of the whole batch."""
        return self.whole(picture if self.encoded(picture) else self.sample(picture))

    def look(self, picture: Pixels | Latent) -> Tensor:
        """The same of what the network only looks at: the mean."""
        return self.whole(picture if self.encoded(picture) else self.mean(picture))

    def encoded(self, picture: Pixels | Latent) -> bool:
        """Whether a picture was given as latents, which its channels tell."""
        return picture.shape[1] == self.channels != COLOURS

    def first(self, pictures: Pictures) -> Tensor:
        """The latents that the picture to start from, or to repaint, has by now."""
        assert pictures.init is not None
        return self.whole(pictures.edited) if pictures.edited is not None else self.encode(pictures.init)

    def whole(self, rows: Tensor) -> Tensor:
        """As many rows as the batch has: fewer are taken again and again.

        Raises:
            BadRequest: the batch is no multiple of them.
        """
        if self.batch % len(rows):
            raise BadRequest(f"{len(rows)} images for {self.batch} pictures", hint="give one, or one a prompt")
        return rows.repeat(self.batch // len(rows), *[1] * (rows.ndim - 1))


@dataclass(frozen=True, kw_only=True)
class Extra:
    """What a condition gives the network, float32 on the CPU; see `nn.inputs.Inputs` for the names."""

    channels: Tokens | None = None
    reference: Tokens | None = None
    reference_ids: Float[Tensor, "R 3"] | None = None


Condition = Callable[[Pictures, Studio], Extra]
