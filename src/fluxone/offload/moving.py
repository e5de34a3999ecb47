"""Tensors of modules to a device and home again, copying nothing on the way home."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn

Slots = dict[str, Tensor | None]


def bring(modules: Iterable[nn.Module], device: torch.device) -> Callable[[], None]:
    """Put the tensors of `modules` themselves (not of their children) on the device; the result undoes it.

    The modules get other tensors for the time, so that the ones at home stay as they are.
    """
    home: list[tuple[Slots, str, Tensor]] = []
    moved: dict[Tensor, Tensor] = {}  # a tensor that two modules share is moved once
    with torch.inference_mode(False), torch.no_grad():
        for module in modules:
            for slots, name, tensor in tensors_of(module):
                if tensor.device == device:
                    continue
                if tensor not in moved:
                    data = tensor.data.to(device, non_blocking=True)
                    plain = not isinstance(tensor, nn.Parameter)
                    moved[tensor] = data if plain else nn.Parameter(data, requires_grad=tensor.requires_grad)
                home.append((slots, name, tensor))
                slots[name] = moved[tensor]

    def back() -> None:
        for slots, name, tensor in home:
            slots[name] = tensor

    return back


def tensors_of(module: nn.Module) -> list[tuple[Slots, str, Tensor]]:
    """Where the module keeps its own parameters and buffers, their names there, and they themselves."""
    kept: tuple[Slots, ...] = (module._parameters, module._buffers)  # type: ignore[assignment]
    return [(slots, name, tensor) for slots in kept for name, tensor in slots.items() if tensor is not None]
