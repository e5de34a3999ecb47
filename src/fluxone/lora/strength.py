"""How strongly an adapter works: everywhere, in some blocks, along the steps; and how a recipe says it.

    FILE    FILE:0.8    FILE:0.8,single_blocks=0.5,double_blocks.1*=0    FILE:1..0    FILE:0.8,1..0.5..0
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path

from fluxone.errors import BadRequest
from fluxone.lora.load import PARTS

MOST = 100.0
HOW = "write 0.8, single_blocks=0.5 for some blocks, 1..0 for a course over the steps; commas between them"


@dataclass(frozen=True, kw_only=True)
class Strength:
    """How strongly an adapter works.

    Attributes:
        scale: everywhere.
        blocks: pattern (`transformer.double_blocks.1*`, `single_blocks`, `text_encoder`) -> factor; the last
            pattern that fits a module counts.
        course: factors over the steps of a walk, evenly from the first step to the last; empty is 1 throughout.
    """

    scale: float = 1.0
    blocks: Mapping[str, float] = field(default_factory=dict)
    course: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        numbers: tuple[object, ...] = (self.scale, *self.blocks.values(), *self.course)
        for number in numbers:
            if not isinstance(number, int | float) or isinstance(number, bool) or not abs(number) <= MOST:
                raise BadRequest(f"the strength of an adapter is {number!r:.80}", hint="use a number such as 0.8")

    def __str__(self) -> str:
        """As `read_strength` reads it."""
        course = "..".join(f"{factor:g}" for factor in (*self.course, *self.course[:1] * (len(self.course) == 1)))
        words = (f"{self.scale:g}", *(f"{pattern}={factor:g}" for pattern, factor in self.blocks.items()), course)
        return ",".join(word for word in words if word)

    def at(self, part: str, module: str) -> float:
        """The strength at one module."""
        factor = 1.0
        for pattern, value in self.blocks.items():
            if fits(pattern, part, module):
                factor = value
        return self.scale * factor

    def after(self, share: float) -> float:
        """The factor after a share (0..1) of a walk, on straight lines between those of the course."""
        if not self.course:
            return 1.0
        place = min(max(share, 0.0), 1.0) * (len(self.course) - 1)
        i = min(int(place), len(self.course) - 2) if len(self.course) > 1 else 0
        following = self.course[min(i + 1, len(self.course) - 1)]
        return self.course[i] + (place - i) * (following - self.course[i])

    def check(self, modules: Mapping[str, Iterable[str]]) -> None:
        """Refuse a pattern that fits nothing.

        Args:
            modules: part -> names of its modules.

        Raises:
            BadRequest: there is one.
        """
        for pattern in self.blocks:
            if not any(fits(pattern, part, name) for part, names in modules.items() for name in names):
                hint = "use names such as single_blocks, double_blocks.1*, *.img_mlp.*, text_encoder"
                raise BadRequest(f"the strength for {pattern!r} fits no block of the model", hint=hint)


def fits(pattern: str, part: str, module: str) -> bool:
    """Whether a module of a part is one that a pattern means, or below one."""
    head, _, rest = pattern.partition(".")
    whole = ".".join(word for word in (PARTS.get(head, head), rest) if word)
    return any(fnmatchcase(name, whole) or f"{name}.".startswith(f"{whole}.") for name in (f"{part}.{module}", module))


def read_strength(text: str) -> tuple[str, Strength]:
    """`FILE:0.8,single_blocks=0.5,1..0` as the file and its strength; 1 if nothing is said.

    Raises:
        BadRequest: what follows the last colon begins with a number, but is no strength.
    """
    file, colon, said = text.rpartition(":")
    words = said.split(",")
    if not colon or not file or Path(text).exists() or file == "civitai" or _numbers(words[0]) is None:
        return text, Strength()
    scale = 1.0
    course: tuple[float, ...] = ()
    blocks: dict[str, float] = {}
    for place, word in enumerate(words):
        pattern, equal, number = word.rpartition("=")
        numbers = _numbers(number) or ()
        if equal and pattern and len(numbers) == 1:
            blocks[pattern] = numbers[0]
        elif not equal and len(numbers) > 1:
            course = numbers
        elif not equal and numbers and place == 0:
            scale = numbers[0]
        else:
            raise BadRequest(f"the strength of {file} is {said!r:.80}", hint=HOW)
    return file, Strength(scale=scale, blocks=blocks, course=course)


def read_scale(text: str) -> tuple[str, float]:
    """`FILE:0.8` as the file and its scale; 1 if there is none.

    Raises:
        BadRequest: what follows the last colon begins with a number, but is not one finite number.
    """
    file, strength = read_strength(text)
    if strength.blocks or strength.course:
        raise BadRequest(f"{file} is given a strength for some blocks or steps", hint="give one number, such as 0.8")
    return file, strength.scale


def _numbers(word: str) -> tuple[float, ...] | None:
    """`0.8` or `1..0.5..0` as numbers; None if it is something else."""
    try:
        return tuple(float(number) for number in word.split(".."))
    except ValueError:
        return None
