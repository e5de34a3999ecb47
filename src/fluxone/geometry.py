"""Sizes of pictures: pixels, cells (8 px) and tokens (16 px), and the aspect ratios people ask for.

Source of `KONTEXT_SIZES`: black-forest-labs/flux, `util.PREFERED_KONTEXT_RESOLUTIONS`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from fluxone.errors import BadRequest

CELL = 8  # px: one position of the latent, with FLUX.1's own autoencoder
TOKEN = 16  # px: 2x2 cells, one position of the transformer
MAX_SIDE = 8192  # px: beyond this a request is a mistake, not a wish
MAX_TOKENS = 2**16  # likewise; 4096x4096 px of FLUX.1

KONTEXT_AREA = 1024  # px: side of the square of the area that the sizes below share
KONTEXT_SIZES = (  # width, height: what Kontext was trained on
    (672, 1568), (688, 1504), (720, 1456), (752, 1392), (800, 1328), (832, 1248), (880, 1184), (944, 1104),
    (1024, 1024), (1104, 944), (1184, 880), (1248, 832), (1328, 800), (1392, 752), (1456, 720), (1504, 688),
    (1568, 672),
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Resolution:
    """A picture's size in pixels. Any size from one token to 8192 px a side; the model works on whole tokens.

    A size that is not a multiple of 16 px is rounded down to one, at every door and with a notice, as diffusers
    and the reference implementation do. A model whose autoencoder has another factor has other tokens: `whole`
    and `grid_of` take their size.
    """

    height: int
    width: int

    def __post_init__(self) -> None:
        for side, px in (("height", self.height), ("width", self.width)):
            if type(px) is not int:
                raise BadRequest(f"{side} is {px!r}, not a whole number of pixels", hint="use e.g. 1024x1024")
            if not 1 <= px <= MAX_SIDE:
                raise BadRequest(f"{side} is {px} px", hint=f"use {TOKEN} to {MAX_SIDE} px")

    def grid_of(self, token: int) -> tuple[int, int]:
        """Rows and columns of image tokens that are `token` px wide and high.

        Raises:
            BadRequest: a side is smaller than one token, or the tokens are too many for any model.
        """
        for side, px in (("height", self.height), ("width", self.width)):
            if px < token:
                raise BadRequest(f"{side} is {px} px, less than one token", hint=f"use {token} to {MAX_SIDE} px")
        rows, columns = self.height // token, self.width // token
        if rows * columns > MAX_TOKENS:
            most = token * math.isqrt(MAX_TOKENS)
            raise BadRequest(f"{self} is {rows * columns} tokens", hint=f"use at most {MAX_TOKENS}: {most}x{most} px")
        return rows, columns

    def whole(self, token: int = TOKEN) -> Resolution:
        """The size the model works at and the picture gets: each side rounded down to whole tokens."""
        rows, columns = self.grid_of(token)
        return Resolution(height=rows * token, width=columns * token)

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of image tokens of 16 px."""
        return self.grid_of(TOKEN)

    @property
    def cells(self) -> tuple[int, int]:
        """Rows and columns of the latent, always even."""
        rows, columns = self.grid
        return 2 * rows, 2 * columns

    @property
    def tokens(self) -> int:
        """Noise tokens: what `mu` counts."""
        rows, columns = self.grid
        return rows * columns

    @classmethod
    def parse(cls, text: str) -> Resolution:
        """`1024x768` is width x height, as people write it; `512` is a square.

        Raises:
            BadRequest: not two whole numbers.
        """
        width, cross, height = text.lower().replace("×", "x").partition("x")
        try:
            return cls(width=int(width), height=int(height if cross else width))
        except ValueError:
            raise BadRequest(f"size is {text!r}", hint="write WIDTHxHEIGHT, e.g. 1024x768") from None

    @classmethod
    def from_aspect(cls, aspect: str, pixels: float) -> Resolution:
        """The size of about `pixels` in all whose sides are multiples of 16 px and nearest the aspect `16:9`."""
        try:
            across, down = (float(part) for part in aspect.split(":"))
        except ValueError:
            raise BadRequest(f"aspect is {aspect!r}", hint="write ACROSS:DOWN, e.g. 16:9") from None
        if not (across > 0 and down > 0 and math.isfinite(across / down)):
            raise BadRequest(f"aspect is {aspect!r}", hint="both numbers must be positive, e.g. 16:9")
        width = TOKEN * max(1, round(math.sqrt(pixels * across / down) / TOKEN))
        height = TOKEN * max(1, round(math.sqrt(pixels * down / across) / TOKEN))
        if max(width, height) > MAX_SIDE:
            hint = f"no side can be longer than {MAX_SIDE} px: choose a squarer aspect, or say the size"
            raise BadRequest(f"the aspect {aspect} makes {width}x{height} px", hint=hint)
        return cls(height=height, width=width)

    @classmethod
    def preferred(cls, aspect: float, size: int, token: int = TOKEN) -> Resolution:
        """The one of Kontext's sizes that is nearest in aspect, for a model trained on squares of `size` px."""
        _, width, height = min((abs(aspect - w / h), w, h) for w, h in KONTEXT_SIZES)
        sides = (token * max(1, round(side * size / KONTEXT_AREA / token)) for side in (height, width))
        return cls(height=next(sides), width=next(sides))

    def of_area(self, pixels: float) -> Resolution:
        """The size of about `pixels` in all and this one's aspect, as diffusers brings sizes to `max_area`."""
        aspect = self.width / self.height
        sides = (max(1, round((pixels * ratio) ** 0.5)) for ratio in (1 / aspect, aspect))
        return Resolution(height=next(sides), width=next(sides))

    def up(self, token: int = TOKEN) -> Resolution:
        """Each side rounded up to whole tokens."""
        return Resolution(height=-(-self.height // token) * token, width=-(-self.width // token) * token)

    def place_in(self, canvas: Resolution, token: int = TOKEN) -> tuple[int, int, int, int]:
        """Where a picture of this size goes on a canvas, whole: left, top, width and height, px.

        As it is where the canvas is larger by less than a token; else as large as fits, in the middle.
        """
        if 0 <= canvas.width - self.width < token and 0 <= canvas.height - self.height < token:
            return 0, 0, self.width, self.height
        scale = min(canvas.width / self.width, canvas.height / self.height)
        width = min(canvas.width, max(1, round(self.width * scale)))
        height = min(canvas.height, max(1, round(self.height * scale)))
        return (canvas.width - width) // 2, (canvas.height - height) // 2, width, height

    def __str__(self) -> str:
        return f"{self.width}x{self.height}"
