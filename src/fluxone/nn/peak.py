"""How much memory a computation needs at once, found without doing it: tensors without memory, counted as they live.

    with Peak() as peak:  network(x on meta)   ->   peak.most: bytes alive at the worst moment, of what was made
"""

from __future__ import annotations

import weakref
from typing import Any

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class Peak(TorchDispatchMode):
    """Counts the storages that operations make, from their birth to their end.

    Attributes:
        now: bytes alive.
        most: bytes alive at the worst moment so far.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.now = self.most = 0
        self._known: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Do the operation, and count what it made."""
        given = {storage._cdata for tensor in tree_leaves((args, kwargs or {})) for storage in _storage(tensor)}
        out = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(out):
            for storage in _storage(tensor):
                if storage._cdata in given or storage._cdata in self._known:
                    continue
                size, name = storage.nbytes(), storage._cdata
                self._known.add(name)
                self.now += size
                self.most = max(self.most, self.now)
                weakref.finalize(storage, self._gone, name, size)
        return out

    def _gone(self, name: int, size: int) -> None:
        self._known.discard(name)
        self.now -= size


def _storage(value: Any) -> list[Any]:
    return [value.untyped_storage()] if isinstance(value, Tensor) else []
