"""What steers one walk, as tensors: hints for ControlNets, looks for IP-Adapters."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from fluxone.errors import BadRequest, pick
from fluxone.request import MODES


@dataclass(frozen=True, kw_only=True)
class Hint:
    """What one ControlNet looks at in one walk.

    Attributes:
        net: its name.
        picture: packed latents, or pixels for XLabs' own encoder; a row a picture of the batch, on the CPU.
        start, end: shares of the schedule's steps between which it works.
    """

    net: str
    picture: Tensor
    scale: float = 1.0
    start: float = 0.0
    end: float = 1.0
    mode: int | None = None

    def works(self, step: int, steps: int) -> bool:
        """Whether it works in one of so many steps. Source: diffusers, `FluxControlNetPipeline`."""
        return self.scale != 0 and step / steps >= self.start and (step + 1) / steps <= self.end


@dataclass(frozen=True, kw_only=True)
class Look:
    """What one IP-Adapter looks at in one walk: vectors (B P E) of P pictures, for each side of true guidance."""

    adapter: str
    vectors: Tensor
    away: Tensor


@dataclass(frozen=True, kw_only=True)
class Steer:
    """All that steers one walk."""

    hints: tuple[Hint, ...] = ()
    looks: tuple[Look, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.hints or self.looks)


def mode_of(given: int | str | None, modes: int, name: str) -> int | None:
    """The number of a mode, for a ControlNet that knows so many."""
    if modes == 0:
        if given is not None:
            raise BadRequest(f"the ControlNet {name!r} knows no modes", hint="leave control_mode out")
        return None
    known = [word for word, number in MODES.items() if number < modes]
    if given is None:
        raise BadRequest(f"the ControlNet {name!r} is not told its mode", hint=f"give one of {', '.join(known)}")
    number = pick(MODES, given, "control mode") if isinstance(given, str) else given
    if not 0 <= number < modes:
        raise BadRequest(f"control mode {number} is none of the {modes} of {name!r}", hint=f"{', '.join(known)} are")
    return number
