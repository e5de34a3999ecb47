"""Draws what is not a sprite and not a person: signs, tables, open boxes, and animals that peek out of them."""

from __future__ import annotations

from collections.abc import Callable

from fluxone.storybook.canvas import Canvas
from fluxone.storybook.colours import PALETTE, mix, shade
from fluxone.storybook.spec import Book, Crate, Peek, Sign, Table

Painter = Callable[[Canvas, Sign], None]
LEADING = 0.98  # em from line to line
SPINE = {"book cover": 2.0}  # how far right of its middle a sign of the kind has its text


def _edges(s: Sign) -> tuple[float, float]:
    return s.x - s.width / 2, s.y - s.height / 2


def lines(s: Sign) -> tuple[tuple[str, float], ...]:
    """The sign's one or two lines with the height, in picture units, that each is centred on."""
    if not s.breaks:
        return ((s.text, s.y),)
    half = LEADING * s.em / 2
    return (s.text[: s.breaks], s.y - half), (s.text[s.breaks + 1 :], s.y + half)


def _letter(c: Canvas, s: Sign, ink: str) -> None:
    """The sign's text, a little higher when letters reach below the line."""
    lift = 0.09 * s.em if set(s.text) & set("gjpqy") else 0.0
    for text, y in lines(s):
        c.text(text, s.font, s.x + SPINE.get(s.kind, 0.0), y - lift, s.em, ink)


def _wooden(c: Canvas, s: Sign) -> None:
    x, y = _edges(s)
    c.rect(s.x - 2, s.y, 4, s.foot - s.y, "#8a5a34", round=1)
    c.rect(x, y, s.width, s.height, "#8a5a34", round=2.5)
    c.rect(x + 1.2, y + 1.2, s.width - 2.4, s.height - 2.4, "#d9a066", round=1.8)
    _letter(c, s, "#4a2f1e")


def _banner(c: Canvas, s: Sign) -> None:
    x, y = _edges(s)
    fill = PALETTE[s.colour]
    fold = shade(fill, -0.12)
    for side in (-1, 1):
        inner, outer = s.x + side * (s.width / 2 - 3), s.x + side * (s.width / 2 + 4)
        c.poly(
            (
                (inner, y + 3),
                (outer, y + 3),
                (outer - side * 3, y + 3 + s.height / 2),
                (outer, y + 3 + s.height),
                (inner, y + 3 + s.height),
            ),
            fold,
        )
    c.rect(x, y, s.width, s.height, fill, round=1.5)
    _letter(c, s, "#4a3b57" if s.colour in ("white", "yellow") else "#ffffff")


def _bubble(c: Canvas, s: Sign) -> None:
    x, y = _edges(s)
    c.poly(
        ((s.x - 5, s.y + s.height / 2 - 1), (s.x + 5, s.y + s.height / 2 - 1), (s.x, s.y + s.height / 2 + 8)),
        "#ffffff",
        round=1,
    )
    c.rect(x, y, s.width, s.height, "#ffffff", round=min(s.height / 2, 9))
    _letter(c, s, "#2f2d38")


def _chalkboard(c: Canvas, s: Sign) -> None:
    x, y = _edges(s)
    for side in (-1, 1):
        c.line(((s.x + side * s.width * 0.25, s.y), (s.x + side * s.width * 0.36, s.foot - 1)), "#a9713f", 2.4)
    c.rect(x, y, s.width, s.height, "#b98550", round=2)
    c.rect(x + 2, y + 2, s.width - 4, s.height - 4, "#2f4a43", round=1)
    _letter(c, s, "#f6f3e6")


def _neon(c: Canvas, s: Sign) -> None:
    x, y = _edges(s)
    glow = PALETTE[s.colour]
    c.rect(x, y, s.width, s.height, "#2a2438", round=3)
    c.rect(x + 1.4, y + 1.4, s.width - 2.8, s.height - 2.8, glow, round=2.2)
    c.rect(x + 2.6, y + 2.6, s.width - 5.2, s.height - 5.2, "#2a2438", round=1.6)
    _letter(c, s, mix(glow, "#ffffff", 0.35))


def _cover(c: Canvas, s: Sign) -> None:
    x, y = _edges(s)
    fill = PALETTE[s.colour]
    c.rect(x + 3, y + 2, s.width, s.height, shade(fill, -0.18), round=1.5)
    c.rect(x + 2, y + 1.2, s.width - 0.6, s.height - 0.2, "#fffaf0", round=1)
    c.rect(x, y, s.width, s.height, fill, round=1.5)
    c.rect(x, y, 4, s.height, shade(fill, -0.1), round=1.5)
    ink = "#3d3248" if s.colour in PALE else "#ffffff"
    for down in (5.0, s.height - 6.2):
        c.rect(x + 8, y + down, s.width - 12, 1.2, mix(fill, ink, 0.6))
    _letter(c, s, ink)


def _poster(c: Canvas, s: Sign) -> None:
    x, y = _edges(s)
    fill = PALETTE[s.colour]
    c.rect(x, y - 2, s.width, s.height + 4, "#fffdf6", round=0.6)
    c.rect(x + 1.6, y - 0.4, s.width - 3.2, s.height + 0.8, mix(fill, "#ffffff", 0.72), round=0.4)
    for down in (y - 0.4, y + s.height - 1.2):
        c.rect(x + 1.6, down, s.width - 3.2, 1.6, fill)
    for side in (-1, 1):
        c.rect(s.x + side * (s.width / 2 - 3) - 3, y - 3.6, 6, 3, "#e9d9a4")
    _letter(c, s, shade(fill, -0.38) if s.colour in PALE else shade(fill, -0.22))


SIGNS: dict[str, Painter] = {
    "wooden sign": _wooden,
    "banner": _banner,
    "speech bubble": _bubble,
    "chalkboard": _chalkboard,
    "neon sign": _neon,
    "book cover": _cover,
    "poster": _poster,
}
PALE = ("white", "yellow")


def draw_sign(c: Canvas, s: Sign) -> None:
    """The sign and its text."""
    SIGNS[s.kind](c, s)


def draw_table(c: Canvas, t: Table) -> None:
    """A flat top on two legs."""
    fill = PALETTE[t.colour]
    for side in (-1, 1):
        c.rect(t.x + side * (t.width / 2 - 5) - 1.8, t.top + 2, 3.6, t.foot - t.top - 2, shade(fill, -0.1), round=1)
    c.rect(t.x - t.width / 2, t.top, t.width, 5, fill, round=1.6)
    c.rect(t.x - t.width / 2 + 1.5, t.top + 3.4, t.width - 3, 1.6, shade(fill, -0.07))


def draw_crate(c: Canvas, b: Crate) -> None:
    """The dark inside and the back flaps, or the front with its tape."""
    fill, rim, half = PALETTE[b.colour], b.foot - b.height, b.width / 2
    if b.part == "back":
        inner = half * 0.86
        c.poly(
            ((b.x - half, rim + 1), (b.x - inner, rim - 5), (b.x + inner, rim - 5), (b.x + half, rim + 1)),
            shade(fill, -0.2),
            round=0.6,
        )
        return
    for side in (-1, 1):
        c.poly(
            ((b.x + side * half, rim), (b.x + side * (half + 6), rim + 5), (b.x + side * half, rim + 6)),
            shade(fill, -0.09),
            round=0.8,
        )
    c.rect(b.x - half, rim, b.width, b.height, fill, round=1)
    c.rect(b.x - half, rim, b.width, 3, shade(fill, 0.05), round=1)
    c.rect(b.x - 3, rim, 6, b.height * 0.4, shade(fill, 0.1))


def draw_book(c: Canvas, b: Book) -> None:
    """Two covers that meet in a spine, with the edges of the pages above them."""
    fill, half, high = PALETTE[b.colour], b.width / 2, b.width * 0.62
    top = b.foot - high
    for side in (-1, 1):
        outer = b.x + side * half
        c.poly(
            ((b.x, top + 1), (outer - side * 1.5, top - 1.5), (outer - side * 1.5, b.foot - 3), (b.x, b.foot - 1)),
            "#fffaf0",
            round=1,
        )
        c.poly(
            ((b.x, top + 3.4), (outer, top + 1), (outer, b.foot - 2.4), (b.x, b.foot - 0.4)),
            shade(fill, 0.03 * side),
            round=1,
        )
    c.line(((b.x, top + 3), (b.x, b.foot - 0.4)), shade(fill, -0.12), 1.6)
    c.oval(b.x + half * 0.5, top + high * 0.5, half * 0.2, half * 0.2, mix(fill, "#ffffff", 0.45))


def draw_peek(c: Canvas, p: Peek) -> None:
    """A raised tail or a pair of ears; what is below the rim is for the box's front to cover."""
    if p.part == "tail":
        _tail(c, p)
        return
    for side in (-1, 1):
        EARS[p.animal](c, p, side)


def _tail(c: Canvas, p: Peek) -> None:
    fill, x, y = PALETTE[p.colour], p.x, p.rim
    if p.animal == "fox":
        c.poly(((x - 3, y + 3), (x - 9, y - 14), (x, y - 30), (x + 9, y - 14), (x + 3, y + 3)), fill, round=5)
        c.poly(((x - 4, y - 22), (x, y - 30), (x + 4, y - 22), (x, y - 19)), "#fffaf0", round=5)
        return
    thick = 6.5 if p.animal == "cat" else 7.5
    bend = 14 if p.animal == "cat" else 6
    c.curve((x, y + 6), (x + bend, y - 10), (x, y - 28), fill, thick)
    if p.animal == "cat":
        c.curve((x, y - 28), (x - 6, y - 36), (x - 10, y - 27), fill, thick)


def _pointed(c: Canvas, p: Peek, side: int) -> None:
    for share, fill in ((1.0, PALETTE[p.colour]), (0.5, "#f7a9b8")):
        x = p.x + side * 10
        c.poly(
            ((x - side * 7 * share, p.rim + 3), (x + side * 3, p.rim - 19 * share), (x + side * 8 * share, p.rim + 3)),
            fill,
            round=1.6,
        )


def _tufted(c: Canvas, p: Peek, side: int) -> None:
    """Taller than a cat's, with dark tips and white fur inside."""
    x, fill = p.x + side * 10.5, PALETTE[p.colour]
    outer = ((x - side * 8, p.rim + 3), (x + side * 4.5, p.rim - 26), (x + side * 9, p.rim + 3))
    c.poly(outer, fill, round=2)
    c.poly(((x - side * 4, p.rim + 3), (x + side * 3, p.rim - 14), (x + side * 6.5, p.rim + 3)), "#fffaf0", round=1.6)
    c.poly(((x + side * 0.3, p.rim - 17.5), (x + side * 4.5, p.rim - 26), (x + side * 6.2, p.rim - 17.5)),
           "#4a3640" if p.colour != "black" else "#fffaf0", round=2)  # fmt: skip


def _floppy(c: Canvas, p: Peek, side: int) -> None:
    fill = PALETTE[p.colour]
    c.oval(p.x + side * 9, p.rim - 5, 5.5, 11, fill)
    c.oval(p.x + side * 14, p.rim - 8, 5, 9, shade(fill, -0.08))


def _long(c: Canvas, p: Peek, side: int) -> None:
    c.oval(p.x + side * 6.5, p.rim - 11, 5, 16, PALETTE[p.colour])
    c.oval(p.x + side * 6.5, p.rim - 10, 2.4, 11, "#f7a9b8")


def _rounded(c: Canvas, p: Peek, side: int) -> None:
    c.oval(p.x + side * 10.5, p.rim - 6, 9.5, 9.5, PALETTE[p.colour])
    c.oval(p.x + side * 10.5, p.rim - 5, 5.6, 5.6, "#f7a9b8")


EARS: dict[str, Callable[[Canvas, Peek, int], None]] = {
    "cat": _pointed,
    "fox": _tufted,
    "dog": _floppy,
    "rabbit": _long,
    "mouse": _rounded,
}
