"""Several processes of one machine that share a worker's networks, each with a device of its own.

    worker's process   requests, text, samplers, decoding; leads every call of a network's blocks
    followers          the blocks alone: they know of no requests      (follower.py)

    a call: skeleton to each by its standard input, tensors by the group, then all go through the blocks together

What is drawn is known to the worker alone, so followers can be replaced between two calls: when one ends, all are
started anew, and the call that it left is made again. Requests notice nothing but the time.
"""

from __future__ import annotations

import logging
import pickle
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import IO, TYPE_CHECKING

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed import TCPStore  # type: ignore[attr-defined]

from fluxone.errors import BadRequest, FluxoneError, UserError
from fluxone.lora.adapters import Share
from fluxone.lora.strength import Strength
from fluxone.nn.attention import ATTENTION
from fluxone.nn.rope import Rotation
from fluxone.nn.transformer import Flux, Modulation
from fluxone.parallel import regroup
from fluxone.serve.parcel import fill, pack
from fluxone.serve.settings import Settings

if TYPE_CHECKING:
    from fluxone.pipeline import Pipeline

log = logging.getLogger("fluxone.serve")

FOLLOWER = "fluxone.serve.follower"
HERE = "127.0.0.1"  # where processes of one machine meet
TRIES = 3  # to start the followers anew, and to make a call that they have left
PATIENCE = timedelta(minutes=10)  # with a process that neither goes on nor ends
ENDING = 10.0  # s that a follower has to end
FALLING = 1.0  # s, within which a process has ended that others have lost


class Deserted(FluxoneError):
    """The processes that share a worker's models cannot be had; it can draw nothing more."""


@dataclass(frozen=True, kw_only=True)
class Start:
    """The first thing that a follower hears.

    Attributes:
        port: of this machine, where the group meets.
    """

    settings: Settings
    models: tuple[str, ...]
    rank: int
    port: int


@dataclass(frozen=True, kw_only=True)
class Call:
    """What a follower hears of a call: arguments of the network's blocks, and which adapters work how strongly."""

    model: str
    img: Tensor
    txt: Tensor
    modulation: Modulation
    pe: Rotation
    adapters: Mapping[str, Strength]
    shares: Mapping[str, Share]


def meeting(devices: Sequence[str], port: int = 0) -> TCPStore:
    """Where the group meets on this machine; without a port it is opened."""
    return TCPStore(HERE, port, len(devices), is_master=not port, wait_for_workers=False)


def enter(devices: Sequence[str], rank: int, store: TCPStore) -> None:
    """Join the group, as one of those that share."""
    on_gpu = devices[rank].startswith("cuda")
    if on_gpu:
        torch.cuda.set_device(devices[rank])
    kind = "nccl" if on_gpu else "gloo"
    dist.init_process_group(kind, store=store, rank=rank, world_size=len(devices), timeout=PATIENCE)


def share_cores(devices: Sequence[str]) -> None:
    """Leave the other processes their cores."""
    if devices[0] == "cpu":
        torch.set_num_threads(max(1, torch.get_num_threads() // len(devices)))


class Lead:
    """The runner of a network that is shared, in the worker's process: a `Trunk`."""

    def __init__(self, crew: Crew, name: str, pipeline: Pipeline) -> None:
        self.crew, self.name, self.pipeline = crew, name, pipeline
        self.own = pipeline.transformer.trunk

    def __call__(self, model: Flux, img: Tensor, txt: Tensor, modulation: Modulation, pe: Rotation) -> Tensor:
        """The picture's stream after all blocks.

        Raises:
            BadRequest: attention is not one that the others have.
            Deserted: there are no others any more.
        """
        if model.attend not in ATTENTION.values():
            raise BadRequest("several processes draw no regions, and no nag", hint="leave them out")
        adapters = self.pipeline.adapters
        call = Call(
            model=self.name, img=img, txt=txt, modulation=modulation, pe=pe,
            adapters=dict(adapters.active), shares=dict(adapters.shares),
        )  # fmt: skip
        return self.crew.make(call, partial(self.own, model, img, txt, modulation, pe))

    def regroup(self) -> None:
        """Go on in a group of other processes."""
        regroup(self.pipeline.transformer, self.own)


class Crew:
    """The processes that share one worker's models. It belongs to the worker's thread.

    Args:
        devices: the worker's own, and one for each follower.
        load: makes the worker's pipelines, once the group is there.
    """

    def __init__(
        self, settings: Settings, models: Sequence[str], devices: Sequence[str], load: Callable[[], dict[str, Pipeline]]
    ) -> None:
        self.settings, self.models, self.devices = settings, tuple(models), tuple(devices)
        self._load = load
        self._leads: list[Lead] = []
        self._followers: list[subprocess.Popen[bytes]] = []

    @property
    def whole(self) -> bool:
        """Whether all followers live."""
        return bool(self._followers) and all(follower.poll() is None for follower in self._followers)

    def load(self) -> dict[str, Pipeline]:
        """The worker's pipelines, whose blocks all processes go through together.

        Raises:
            BadRequest: the process is in a group already, or a model cannot be shared.
            Deserted: a follower does not start.
            UserError: a model cannot be loaded.
        """
        if dist.is_initialized():
            raise BadRequest("this process is in a group of processes already", hint="start the server by itself")
        share_cores(self.devices)
        self._start()
        pipelines = self._load()
        self._hear()
        for name, pipeline in pipelines.items():
            lead = Lead(self, name, pipeline)
            self._leads.append(lead)
            pipeline.transformer.trunk = lead
        return pipelines

    def tend(self) -> None:
        """See that all followers are there.

        Raises:
            Deserted: they cannot be started any more.
        """
        trouble: Exception | None = None
        for _ in range(TRIES):
            if self.whole:
                return
            log.warning("the processes that share the models are started anew")
            self.close()
            try:
                self._start()
                self._hear()
                for lead in self._leads:
                    lead.regroup()
            except (Deserted, RuntimeError, OSError) as error:
                trouble = error
                self.close()
        if not self.whole:
            raise Deserted(f"the processes that share the models do not live: {trouble or 'they ended at once'}")

    def make(self, call: Call, own: Callable[[], Tensor]) -> Tensor:
        """Let all go through the blocks.

        Args:
            own: the worker's part.

        Raises:
            Deserted: there are no followers any more.
            FluxoneError: this call ends them each time.
        """
        data, tensors = pack(call)
        for _ in range(TRIES):
            self.tend()
            try:
                for follower in self._followers:
                    _say(follower, data)
                fill(tensors, call.img.device)
                out = own()
                if out.is_cuda:
                    torch.cuda.synchronize(out.device)
            except UserError:  # said before anything is exchanged, by each of them
                raise
            except BaseException as error:
                lost = self._lost()
                self.close()  # what the others are at is not known
                if not lost or not isinstance(error, RuntimeError | OSError):
                    raise
                continue
            if self.whole:  # else a GPU may not have waited for what did not come
                return out
        raise FluxoneError(f"{TRIES} times a process ended that shares the model", hint="its errors are in the log")

    def close(self) -> None:
        """Let the followers end, and leave the group."""
        followers, self._followers = self._followers, []
        for follower in followers:
            with suppress(OSError):
                _pipe(follower.stdin).close()
        for follower in followers:
            try:
                follower.wait(ENDING)
            except subprocess.TimeoutExpired:
                follower.kill()
                follower.wait()
            _pipe(follower.stdout).close()
        if followers and dist.is_initialized():
            if self.devices[0].startswith("cuda"):
                _abort()
            dist.destroy_process_group()

    def _start(self) -> None:
        store = meeting(self.devices)
        for rank in range(1, len(self.devices)):
            command = [sys.executable, "-m", FOLLOWER]
            follower = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
            self._followers.append(follower)
            start = Start(settings=self.settings, models=self.models, rank=rank, port=store.port)
            with suppress(OSError):  # it has ended, as will be heard
                _say(follower, pickle.dumps(start))
        self._hear()
        enter(self.devices, 0, store)
        for follower in self._followers if self.devices[0].startswith("cuda") else []:
            threading.Thread(target=self._watch, args=(follower,), daemon=True).start()

    def _hear(self) -> None:
        """Wait until all followers say that they go on.

        Raises:
            Deserted: one ended instead, or says why it cannot.
        """
        for follower in self._followers:
            try:
                trouble: str = pickle.load(_pipe(follower.stdout))
            except (EOFError, pickle.UnpicklingError):
                trouble = "it ended, and its errors are in the log"
            if trouble:
                raise Deserted(f"a process that shares the models does not start: {trouble}")

    def _lost(self) -> bool:
        """Whether one has ended: others hear of it a little before."""
        for follower in self._followers:
            with suppress(subprocess.TimeoutExpired):
                follower.wait(FALLING)
        return not self.whole

    def _watch(self, follower: subprocess.Popen[bytes]) -> None:
        """Where a follower ends, a GPU would wait for it for ever."""
        follower.wait()
        if follower in self._followers:
            _abort()


def _abort() -> None:
    group = dist.group.WORLD
    if group is not None:
        group.abort()


def _pipe(pipe: IO[bytes] | None) -> IO[bytes]:
    assert pipe is not None, "a follower is started with pipes"
    return pipe


def _say(follower: subprocess.Popen[bytes], data: bytes) -> None:
    """Let a follower hear something.

    Raises:
        OSError: it has ended.
    """
    pipe = _pipe(follower.stdin)
    pickle.dump(data, pipe)
    pipe.flush()
