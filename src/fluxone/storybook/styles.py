"""Looks that a whole picture can take on: SVG filters over the things and over the picture, and what to call them."""

from __future__ import annotations

from dataclasses import dataclass

from fluxone.storybook.spec import Box

Matrix = tuple[float, ...]  # 20 numbers: what each of r, g, b, a takes from r, g, b, a and 1
WHOLE: Box = (0.0, 0.0, 100.0, 100.0)
MARGIN = 1.0  # picture units beyond the contour
SAME: Matrix = (1, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 1, 0)


@dataclass(frozen=True, kw_only=True)
class Style:
    """One row: phrases that follow a caption, the contour around each thing,
    and a change of all colours."""

    phrases: tuple[str, ...]
    contour: str = ""  # colour of a line around things; none when empty
    width: float = 0.7  # of that line, in picture units
    colours: Matrix = ()  # over the whole picture; none when empty
    light: str = ""  # a row of light.LIGHTS, which makes the pixels of backdrop and things one picture

    def thing(self, body: str, index: int, box: Box) -> str:
        """Thing number `index` in the style's colours, with its contour; `box` (picture units) is what it covers.

        The filter reaches no farther than the thing and its contour: a whole picture takes five times as long.
        """
        if not (self.contour or self.colours):
            return body
        wide = self.width + MARGIN
        region = (box[0] - wide, box[1] - wide, box[2] + wide, box[3] + wide)
        return f'{self._filter(f"thing{index}", self._line(), region)}<g filter="url(#thing{index})">{body}</g>'

    def around(self, body: str) -> str:
        """What is behind the things."""
        if not self.colours:
            return body
        return f'{self._filter("behind", "", WHOLE)}<g filter="url(#behind)">{body}</g>'

    def _line(self) -> str:
        if not self.contour:
            return ""
        return (
            f'<feMorphology in="SourceAlpha" operator="dilate" radius="{self.width}"/>'
            '<feComponentTransfer result="fat"><feFuncA type="linear" slope="4"/></feComponentTransfer>'
            f'<feFlood flood-color="{self.contour}"/><feComposite in2="fat" operator="in" result="line"/>'
            '<feMerge><feMergeNode in="line"/><feMergeNode in="filled"/></feMerge>'
        )

    def _filter(self, name: str, line: str, region: Box) -> str:
        left, top, right, bottom = (min(max(v, 0.0), 100.0) for v in region)
        matrix = " ".join(f"{v:g}" for v in self.colours or SAME)
        return (
            f'<filter id="{name}" filterUnits="userSpaceOnUse" x="{left:.2f}" y="{top:.2f}"'
            f' width="{right - left:.2f}" height="{bottom - top:.2f}"'
            ' color-interpolation-filters="sRGB">'
            f'<feColorMatrix type="matrix" values="{matrix}" result="filled"/>{line}</filter>'
        )


def _pale(gain: float, lift: float, kept: float) -> Matrix:
    """Scaled and lifted towards white, with `kept` of the colourfulness."""
    weights = (0.3, 0.59, 0.11)
    rows = [(*(gain * (w * (1 - kept) + kept * (i == k)) for k, w in enumerate(weights)), 0.0, lift) for i in range(3)]
    return (*rows[0], *rows[1], *rows[2], 0, 0, 0, 1, 0)


STYLES: dict[str, Style] = {
    "sketch": Style(
        phrases=("as a pencil sketch", "in sketch style", "drawn with pencils"),
        contour="#45454d",
        width=0.5,
        colours=_pale(0.52, 0.49, 0.62),
    ),
    "comic": Style(phrases=("in comic style", "as a comic"), contour="#1d1a26", width=0.8),
    "sticker": Style(phrases=("in sticker style", "as stickers"), contour="#ffffff", width=1.6),
    "night": Style(phrases=("by moonlight", "in moonlight", "in dark night lighting"), light="moon"),
    "photo": Style(phrases=("as a photo", "photographic", "as a photograph", "photo"), light="photo"),
}
