"""Where the parts of a model live, and when they come to the device: one row a mode.

    with on_device("transformer"):      its weights are on the device in here
        ...                             afterwards they are wherever the mode wants them

`none` brings a part at its first use and leaves it there. `model` brings it and takes it away again. `block` does
the same, but the blocks of transformer and text encoders come one by one, each for the time of its own forward
pass. What a part computes never depends on the mode. Weights do not change while they are used here, so taking
them away copies nothing: the tensors at home were never given up.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager

import torch
from torch import Tensor, nn

from fluxone.errors import pick

Slots = dict[str, Tensor | None]
OnDevice = Callable[[str], AbstractContextManager[None]]


class Offload:
    """The parts of one model by name, the device they work on, and the mode.

    Args:
        parts: name -> modules. A module below two parts belongs to the one that names it more closely:
            `modulators`, inside the transformer, are not moved with `transformer`.
        streamed: names of the parts whose blocks (the children of their outermost lists) can come one by one.

    Attributes:
        moves: how many times modules were brought to the device, by part.
    """

    def __init__(
        self,
        parts: Mapping[str, Sequence[nn.Module]],
        device: torch.device,
        mode: str = "none",
        *,
        streamed: Collection[str] = (),
    ) -> None:
        self.parts = {name: list(modules) for name, modules in parts.items()}
        self.streamed = set(streamed)
        self.device = exactly(device)
        self.mode = mode
        self.moves = dict.fromkeys(self.parts, 0)
        self._mode = pick(MODES, mode, "offload mode")
        self._named = {module for modules in self.parts.values() for module in modules}

    def __call__(self, name: str) -> AbstractContextManager[None]:
        """A context in which the part `name` can compute on the device."""
        pick(self.parts, name, "part of the model")
        return self._mode(self, name)

    def add(self, name: str, modules: Sequence[nn.Module], *, streamed: bool) -> None:
        """Take in a part that came later; it lives by the same mode as the others."""
        assert name not in self.parts, f"there is a part {name} already"
        self.parts[name], self.moves[name] = list(modules), 0
        self._named |= set(modules)
        if streamed:
            self.streamed.add(name)

    def drop(self, name: str) -> None:
        """Forget a part; whoever still has its modules finds them where they are."""
        self._named -= set(self.parts.pop(name))
        del self.moves[name]
        self.streamed.discard(name)

    def change(self, mode: str, device: torch.device) -> None:
        """Go over to another mode or device; every part goes home first."""
        self._mode = pick(MODES, mode, "offload mode")
        self.mode, self.device = mode, exactly(device)
        with torch.inference_mode(False):
            for module in self._named:
                module.to("cpu")

    def modules(self, name: str) -> list[nn.Module]:
        """The modules that move with the part: all below it that no other part names."""
        roots = self.parts[name]
        return [module for root in roots for module in _below(root, self._named.difference(roots))]


def exactly(device: torch.device) -> torch.device:
    """The device with its number, as tensors on it say it: `cuda` is `cuda:0`, or whichever is current."""
    return torch.empty(0, device=device).device


def _below(module: nn.Module, without: Collection[nn.Module]) -> Iterator[nn.Module]:
    yield module
    for child in module.children():
        if child not in without:
            yield from _below(child, without)


def blocks_of(module: nn.Module) -> list[nn.Module]:
    """The children of the outermost lists below `module`: the blocks of a transformer or a text encoder."""
    if isinstance(module, nn.ModuleList):
        return list(module)
    return [block for child in module.children() for block in blocks_of(child)]


def bring(modules: Iterable[nn.Module], device: torch.device) -> Callable[[], None]:
    """Put the tensors of `modules` themselves (not of their children) on the device; the result undoes it.

    The modules get other tensors for the time, so that the ones at home stay as they are.
    """
    home: list[tuple[Slots, str, Tensor]] = []
    moved: dict[Tensor, Tensor] = {}  # a tensor that two modules share is moved once
    with torch.inference_mode(False), torch.no_grad():
        for module in modules:
            for slots, name, tensor in _tensors(module):
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


def _tensors(module: nn.Module) -> list[tuple[Slots, str, Tensor]]:
    """Where the module keeps its own parameters and buffers, their names there, and they themselves."""
    kept: tuple[Slots, ...] = (module._parameters, module._buffers)  # type: ignore[assignment]
    return [(slots, name, tensor) for slots in kept for name, tensor in slots.items() if tensor is not None]


@contextmanager
def stay(offload: Offload, name: str) -> Iterator[None]:
    """Bring the part at its first use; it stays."""
    offload.moves[name] += 1
    bring(offload.modules(name), offload.device)
    yield


@contextmanager
def visit(offload: Offload, name: str) -> Iterator[None]:
    """Bring the part for the time of the context."""
    offload.moves[name] += 1
    back = bring(offload.modules(name), offload.device)
    try:
        yield
    finally:
        back()


@contextmanager
def visit_by_block(offload: Offload, name: str) -> Iterator[None]:
    """Bring the part without its blocks; each block comes for the time of its own forward pass.

    Tables inside a block come with the part: T5's bias by position lies in the first block and serves them all.
    """
    if name not in offload.streamed:
        with visit(offload, name):
            yield
        return
    modules = offload.modules(name)
    with ExitStack() as stack:
        streamed: set[nn.Module] = set()
        for block in (block for root in offload.parts[name] for block in blocks_of(root)):
            inside = {module for module in block.modules() if not isinstance(module, nn.Embedding)}
            stack.enter_context(_streamed(offload, name, block, [module for module in modules if module in inside]))
            streamed |= inside
        offload.moves[name] += 1
        stack.callback(bring([module for module in modules if module not in streamed], offload.device))
        yield


@contextmanager
def _streamed(offload: Offload, name: str, block: nn.Module, own: Sequence[nn.Module]) -> Iterator[None]:
    leave: list[Callable[[], None]] = []

    def come(module: nn.Module, args: object) -> None:
        offload.moves[name] += 1
        leave.append(bring(own, offload.device))

    def go(module: nn.Module, args: object, result: object) -> None:
        while leave:
            leave.pop()()

    hooks = [block.register_forward_pre_hook(come), block.register_forward_hook(go, always_call=True)]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


Mode = Callable[[Offload, str], AbstractContextManager[None]]
MODES: dict[str, Mode] = {"none": stay, "model": visit, "block": visit_by_block}
