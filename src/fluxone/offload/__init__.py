"""Where the parts of a model live, and when they come to the device: one row a mode.

    with on_device("transformer"):      its weights are on the device in here
        ...                             afterwards they are wherever the mode wants them

`none` brings a part at its first use and leaves it there; `lean` does so with the transformer alone. `model` brings
a part and takes it away again. `block` does the same, but the blocks of transformer and text encoders come one by
one, each for the time of its own forward pass; so does `disk`, from a file (`disk.py`). What a part computes never
depends on the mode. Weights do not change while they are used here, so taking them away copies nothing: the tensors
at home were never given up.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager

import torch
from torch import nn

from fluxone.errors import pick
from fluxone.offload.disk import Spill
from fluxone.offload.moving import bring
from fluxone.offload.stream import Beside, Parade, Straight, pin

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
        self.spills: dict[str, Spill] = {}
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
    """The children of the outermost lists below `module`: the blocks of a transformer or a text encoder.

    A linear layer's own list is of the adapters beside it, which come with the layer.
    """
    if isinstance(module, nn.ModuleList):
        return list(module)
    if isinstance(getattr(module, "in_features", None), int):
        return []
    return [block for child in module.children() for block in blocks_of(child)]


def pieces_of(module: nn.Module) -> list[nn.Module]:
    """What of a part comes one by one: its blocks; without blocks itself, unless others reach into it."""
    return blocks_of(module) or ([] if isinstance(module, nn.Sequential) else [module])


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
def some_stay(offload: Offload, name: str) -> Iterator[None]:
    """Leave the parts that every step needs where they are, and bring the others for the time of the context."""
    with (stay if name in STAYING else visit)(offload, name):
        yield


@contextmanager
def visit_by_block(offload: Offload, name: str) -> Iterator[None]:
    """Bring the part without its blocks; each block comes for the time of its own forward pass."""
    with _by_block(offload, name, spilt=False):
        yield


@contextmanager
def visit_from_disk(offload: Offload, name: str) -> Iterator[None]:
    """The same, with the blocks at home in a file."""
    with _by_block(offload, name, spilt=True):
        yield


@contextmanager
def _by_block(offload: Offload, name: str, *, spilt: bool) -> Iterator[None]:
    """Tables inside a block come with the part: T5's bias by position lies in the first block and serves them all."""
    if name not in offload.streamed:
        with visit(offload, name):
            yield
        return
    modules = offload.modules(name)
    blocks = [block for root in offload.parts[name] for block in pieces_of(root)]
    inside = [{module for module in block.modules() if not isinstance(module, nn.Embedding)} for block in blocks]
    own = [[module for module in modules if module in of_block] for of_block in inside]
    spill = _spill(offload, name, own) if spilt else None
    on_cuda = offload.device.type == "cuda"
    if on_cuda and not spilt:
        for each in own:
            pin(each)

    def moved() -> None:
        offload.moves[name] += 1

    parade = Parade(
        own,
        offload.device,
        Beside(offload.device) if on_cuda else Straight(),
        ahead=on_cuda,
        left=(lambda index: None) if spill is None else spill.release,
        moved=moved,
    )
    streamed = set().union(*inside) if inside else set()
    with ExitStack() as stack:
        stack.callback(parade.end)
        for index, block in enumerate(blocks):
            stack.enter_context(_hooked(block, parade, index))
        offload.moves[name] += 1
        stack.callback(bring([module for module in modules if module not in streamed], offload.device))
        yield


def _spill(offload: Offload, name: str, own: Sequence[Sequence[nn.Module]]) -> Spill:
    """The part's file, written at its first use."""
    if name not in offload.spills:
        offload.spills[name] = Spill(own)
    return offload.spills[name]


@contextmanager
def _hooked(block: nn.Module, parade: Parade, index: int) -> Iterator[None]:
    def come(module: nn.Module, args: object) -> None:
        parade.come(index)

    def go(module: nn.Module, args: object, result: object) -> None:
        parade.go(index)

    hooks = [block.register_forward_pre_hook(come), block.register_forward_hook(go, always_call=True)]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


STAYING = ("transformer",)  # parts that `lean` leaves on the device
STREAMED = ("block", "disk")  # modes whose blocks come one by one
Mode = Callable[[Offload, str], AbstractContextManager[None]]
MODES: dict[str, Mode] = {
    "none": stay, "lean": some_stay, "model": visit, "block": visit_by_block, "disk": visit_from_disk,
}  # fmt: skip
