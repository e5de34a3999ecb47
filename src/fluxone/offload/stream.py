"""A part whose blocks come one by one, in the order of their use; on an accelerator the next while one computes.

    block i computes                    |  copies on a stream of their own
    come(i): wait for its copy          |
    ... its work is queued ...          |
    go(i): forget it, fetch the next    |  copy of i+1, once i-1 is done: never more than three on the device

The blocks' order is that of their lists; after the last comes the first, for the next step.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import torch
from torch import Tensor, nn

from fluxone.offload.moving import Slots, bring, tensors_of


class Lane(Protocol):
    """How copies run beside the computation."""

    def fetch(self, modules: Sequence[nn.Module], device: torch.device) -> Callable[[], None]:
        """Start to bring the modules; the result undoes it."""

    def wait(self) -> None:
        """Let what is computed from now on see what was fetched last."""

    def mark(self) -> None:
        """A block's work is queued: two marks later, at the latest, its memory can be used again."""


class Straight:
    """No lane of its own: copies are done when `fetch` returns."""

    def fetch(self, modules: Sequence[nn.Module], device: torch.device) -> Callable[[], None]:
        return bring(modules, device)

    def wait(self) -> None:
        return

    def mark(self) -> None:
        return


class Beside:
    """A CUDA stream for copies."""

    def __init__(self, device: torch.device) -> None:
        self.device, self.side = device, torch.cuda.Stream(device)
        self._there: torch.cuda.Event | None = None
        self._moved: list[Tensor] = []
        self._done: list[torch.cuda.Event] = []

    def fetch(self, modules: Sequence[nn.Module], device: torch.device) -> Callable[[], None]:
        while len(self._done) > 1:
            self._done.pop(0).synchronize()
        with torch.cuda.stream(self.side):
            back = bring(modules, device)
            self._there = self.side.record_event()
        self._moved = [tensor for module in modules for _, _, tensor in tensors_of(module) if tensor.is_cuda]
        return back

    def wait(self) -> None:
        main = torch.cuda.current_stream(self.device)
        if self._there is not None:
            main.wait_event(self._there)
            for tensor in self._moved:
                tensor.record_stream(main)
        self._there, self._moved = None, []

    def mark(self) -> None:
        self._done.append(torch.cuda.current_stream(self.device).record_event())


class Parade:
    """The blocks of a part on their way.

    Args:
        own: of each block, the modules that come with it.
        ahead: whether the next block is fetched while one computes.
        left: called with a block's number when it has gone.
        moved: called when a block has been brought.
    """

    def __init__(
        self,
        own: Sequence[Sequence[nn.Module]],
        device: torch.device,
        lane: Lane,
        *,
        ahead: bool,
        left: Callable[[int], None] = lambda index: None,
        moved: Callable[[], None] = lambda: None,
    ) -> None:
        self.own, self.device, self.lane, self.ahead = own, device, lane, ahead
        self._left, self._moved = left, moved
        self._here: dict[int, Callable[[], None]] = {}

    def come(self, index: int) -> None:
        """A block is about to compute."""
        for other in [one for one in self._here if one != index]:
            self._leave(other)  # fetched for nothing, if the blocks came in another order
        self._fetch(index)
        self.lane.wait()

    def go(self, index: int) -> None:
        """A block's work is queued."""
        self.lane.mark()
        self._leave(index)
        if self.ahead and len(self.own) > 1:
            self._fetch((index + 1) % len(self.own))

    def end(self) -> None:
        """Everything goes home."""
        for index in list(self._here):
            self._leave(index)

    def _fetch(self, index: int) -> None:
        if index not in self._here:
            self._here[index] = self.lane.fetch(self.own[index], self.device)
            self._moved()

    def _leave(self, index: int) -> None:
        back = self._here.pop(index, None)
        if back is not None:
            back()
            self._left(index)


def pin(modules: Sequence[nn.Module]) -> None:
    """Let tensors at home lie in pages that an accelerator can copy by itself; those that cannot stay as they are."""
    for module in modules:
        for slots, name, tensor in tensors_of(module):
            if tensor.device.type == "cpu" and tensor.layout == torch.strided and not tensor.is_pinned():
                slots[name] = _pinned(tensor)


def _pinned(tensor: Tensor) -> Tensor:
    with torch.inference_mode(False), torch.no_grad():
        try:
            data = tensor.data.pin_memory()
        except RuntimeError:  # the system gives no more such pages
            return tensor
        return nn.Parameter(data, requires_grad=tensor.requires_grad) if isinstance(tensor, nn.Parameter) else data


__all__ = ["Beside", "Lane", "Parade", "Slots", "Straight", "pin"]
