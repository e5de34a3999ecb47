"""How previews are shown: half blocks on a terminal, or a small PNG beside the output.

`fluxone.preview` makes them.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from fluxone.errors import CannotWrite

if TYPE_CHECKING:
    from PIL.Image import Image

COLUMNS = 64  # of a terminal's width at most
SIDE = 256  # px: longest side of a preview file at least


class Screen:
    """Draws each preview over the one before, two pixels a character, in true colour."""

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream
        self._lines = 0

    def show(self, picture: Image) -> None:
        """Draw; the cursor ends on the line below."""
        text = half_blocks(picture, min(COLUMNS, shutil.get_terminal_size().columns - 1))
        self.stream.write("\r" + (f"\x1b[{self._lines}A" if self._lines else "") + text)
        self.stream.flush()
        self._lines = text.count("\n")

    def close(self) -> None:
        """Wipe the picture: the finished one is in its file."""
        if self._lines:
            self.stream.write(f"\r\x1b[{self._lines}A\x1b[J")
            self.stream.flush()
            self._lines = 0


class File:
    """Keeps `NAME.preview.png` beside the output, whole at any moment, until the work is over."""

    def __init__(self, output: Path) -> None:
        self.path = output.with_suffix(".preview.png")

    def show(self, picture: Image) -> None:
        """Replace the file.

        Raises:
            CannotWrite: the disk is full, or the folder is not writable any more.
        """
        times = max(1, SIDE // max(picture.size))
        part = self.path.with_suffix(".png.part")
        try:
            picture.resize((picture.width * times, picture.height * times)).save(part, format="png", compress_level=1)
            part.replace(self.path)
        except OSError as error:
            reason = error.strerror or error
            raise CannotWrite(f"cannot write the preview {self.path}: {reason}", hint="leave out --preview") from error
        finally:
            part.unlink(missing_ok=True)

    def close(self) -> None:
        """Remove the file."""
        self.path.unlink(missing_ok=True)


def half_blocks(picture: Image, columns: int) -> str:
    """The picture as lines of upper half blocks: the colour of the sign is the upper pixel, behind it the lower."""
    columns = min(columns, 2 * picture.width)
    rows = max(2, round(picture.height * columns / picture.width) // 2 * 2)
    small = picture.convert("RGB").resize((columns, rows))
    data = small.tobytes()
    colours = [f"{data[i]};{data[i + 1]};{data[i + 2]}" for i in range(0, len(data), 3)]
    lines = []
    for start in range(0, len(colours), 2 * columns):
        upper, lower = colours[start : start + columns], colours[start + columns : start + 2 * columns]
        signs = [f"\x1b[38;2;{above}m\x1b[48;2;{below}m▀" for above, below in zip(upper, lower, strict=True)]
        lines.append("".join(signs) + "\x1b[0m\n")
    return "".join(lines)
