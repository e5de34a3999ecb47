"""CUDA graphs: a network whose kernels are shorter than their launches has them recorded once and replayed.

    first call of a shape: plain      second: recorded      later: inputs copied in, replayed, results copied out

A recording knows addresses. So it is thrown away when a tensor of the network lies elsewhere (offload), and a call is
plain where a recording would not do what the call does: gradients, hooks, layers that are not torch's own (packed,
with adapters), autocast, torch's compiler. Recorded are the `MOST` shapes that were used last; each holds what its
call held at most. A shape whose recording fails stays plain.
"""

from __future__ import annotations

import logging
import os
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from threading import Lock
from typing import Any

import torch
from torch import Tensor, nn

LOG = logging.getLogger(__name__)
ASKED = "FLUXONE_GRAPHS"
MOST = 4  # shapes of a network
Made = Tensor | tuple[Tensor, ...]


def wanted(device: torch.device, *, compiled: bool) -> bool:
    """Whether networks on a device shall be recorded: CUDA, and blocks are compiled or `FLUXONE_GRAPHS=1`; 0 never."""
    asked = os.environ.get(ASKED, "")
    return device.type == "cuda" and asked != "0" and (compiled or asked == "1")


def record(network: nn.Module, keep: Callable[..., object] = lambda *inputs: None) -> None:
    """Have a network replay its calls, as `network.compile()` has it compiled; `release` undoes it.

    Layers must not be replaced by others afterwards. Calls are made on one stream.

    Args:
        keep: of a call's inputs, those tensors outside of the network that the call reads: they must not go.
    """
    network._compiled_call_impl = Recorded(network, keep)


def release(network: nn.Module) -> None:
    """Let a network's calls be plain again, and their recordings go."""
    network._compiled_call_impl = None


@dataclass(frozen=True)
class Recording:
    """One call: what it reads, what it writes, and what must stay alive for it."""

    graph: torch.cuda.CUDAGraph
    inputs: tuple[Tensor, ...]
    made: Made
    kept: object

    def replay(self, inputs: tuple[Any, ...]) -> Made:
        """The call again with other inputs; the result is the caller's own."""
        for own, given in zip(self.inputs, inputs, strict=True):
            own.copy_(given)
        self.graph.replay()
        return self.made.clone() if isinstance(self.made, Tensor) else tuple(part.clone() for part in self.made)


class Recorded:
    """What a network is called through.

    Attributes:
        recordings: by shapes and types of the inputs, the latest last; None: seen once. What failed is in `failed`.
    """

    def __init__(self, network: nn.Module, keep: Callable[..., object]) -> None:
        self.network, self.keep = network, keep
        self.recordings: OrderedDict[object, Recording | None] = OrderedDict()
        self.failed: set[object] = set()
        self._inside = list(network.modules())
        self._state: object = None
        self._lock = Lock()  # a recording has one place for its inputs

    def __call__(self, *inputs: Any, **named: Any) -> Any:
        if named or not _can(inputs):
            return self.network._call_impl(*inputs, **named)
        with self._lock:
            state = self._now()
            if state != self._state:
                self.recordings.clear()
                self.failed.clear()
                self._state = state
            if state is None:
                return self.network._call_impl(*inputs)
            key = tuple((part.shape, part.dtype, part.device) for part in inputs)
            recording = self._find(key, inputs)
            if recording is not None:
                return recording.replay(inputs)
        return self.network._call_impl(*inputs)

    def _find(self, key: object, inputs: tuple[Tensor, ...]) -> Recording | None:
        """The recording of a shape, made if the shape was seen before."""
        if key in self.failed:
            return None
        seen = key in self.recordings
        recording = self.recordings.pop(key, None)
        if seen and recording is None:
            try:
                recording = self._record(inputs)
            except RuntimeError as error:
                LOG.warning("%s is not recorded: %s", type(self.network).__name__, error)
                self.failed.add(key)
                return None
        self.recordings[key] = recording
        if len(self.recordings) > MOST:
            self.recordings.popitem(last=False)
        return recording

    @torch.inference_mode(False)
    @torch.no_grad()
    def _record(self, inputs: tuple[Tensor, ...]) -> Recording:
        """One call on a stream of its own, for libraries to get ready there, then one that is recorded."""
        own = tuple(torch.empty_like(part).copy_(part) for part in inputs)
        kept = self.keep(*own)
        here, aside = torch.cuda.current_stream(), torch.cuda.Stream()
        aside.wait_stream(here)
        with torch.cuda.stream(aside):
            self.network._call_impl(*own)
        here.wait_stream(aside)
        graph = torch.cuda.CUDAGraph()
        # Only what this thread does counts: others may copy and allocate meanwhile.
        with torch.cuda.graph(graph, stream=aside, capture_error_mode="thread_local"):
            made = self.network._call_impl(*own)
        return Recording(graph=graph, inputs=own, made=made, kept=kept)

    def _now(self) -> object:
        """Of what kind every layer is, and where its tensors lie; None where the network should not be recorded."""
        found: list[object] = []
        for module in self._inside:
            kind = type(module)
            if module._forward_hooks or module._forward_pre_hooks or module.training:
                return None
            if kind is not nn.Linear and "in_features" in module.__dict__:
                return None
            found.append(kind)
            for slots in (module._parameters, module._buffers):
                for tensor in slots.values():
                    if tensor is not None:
                        found.append(tensor.data_ptr())
                        if not _here(tensor):
                            return None
        return found


def _here(tensor: Tensor) -> bool:
    """Whether a tensor is where work can be recorded."""
    return tensor.is_cuda


def _can(inputs: tuple[Any, ...]) -> bool:
    """Whether a call with such inputs, here and now, could be recorded."""
    if torch.compiler.is_compiling() or torch.is_grad_enabled() or torch.is_autocast_enabled("cuda"):
        return False
    if not inputs or not all(isinstance(part, Tensor) and part.is_cuda for part in inputs):
        return False
    own = all(part.device.index == torch.cuda.current_device() for part in inputs)
    return own and not torch.cuda.is_current_stream_capturing()
