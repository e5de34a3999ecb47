"""A process that shares a worker's models: its part of the blocks, whenever the worker's process calls (crew.py).

    standard input     what to load, then calls
    standard output    "" when it is here, and when it has loaded; or why it has not

It ends with the worker's process, whatever it is at, and only with it.
"""

from __future__ import annotations

import os
import pickle
import queue
import signal
import threading
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, BinaryIO

import torch

from fluxone.errors import FluxoneError, UserError
from fluxone.lora.load import load_lora
from fluxone.serve.crew import Call, Start, enter, meeting, share_cores
from fluxone.serve.parcel import fill, unpack
from fluxone.serve.run import load
from fluxone.serve.settings import Settings

if TYPE_CHECKING:
    from fluxone.pipeline import Pipeline

Heard = queue.SimpleQueue[bytes]


def follow(heard: Heard, out: BinaryIO) -> None:
    """Load, and go through the blocks with the others, for ever."""

    def tell(trouble: str = "") -> None:
        pickle.dump(trouble, out)
        out.flush()

    start: Start = pickle.loads(heard.get())
    devices = start.settings.devices
    device = torch.device(devices[start.rank])
    share_cores(devices)
    tell()
    enter(devices, start.rank, meeting(devices, start.port))
    try:
        pipelines = load(_without_text(start), start.models, devices[start.rank])
    except FluxoneError as error:
        tell(str(error))
        return
    tell()
    while True:
        call, tensors = unpack(heard.get(), device)
        fill(tensors, device)
        part(pipelines[call.model], call)


def part(pipeline: Pipeline, call: Call) -> None:
    """This process's part of a call."""
    adapters = pipeline.adapters
    for file in call.adapters:
        if file not in adapters.loaded:
            adapters.load(load_lora(file), file)
    adapters.use(call.adapters)
    adapters.share(call.shares)
    network = pipeline.transformer
    # What a caller has to mend is found by all processes, before they exchange anything.
    with torch.inference_mode(), pipeline.using("transformer"), suppress(UserError):
        network.trunk(network, call.img, call.txt, call.modulation, call.pe)


def _without_text(start: Start) -> Settings:
    """The settings, for a process that reads no prompts: their encoder stays in its file."""
    recipes = start.settings.recipes
    spared = {model: {**recipes.get(model, {}), "quant_t5": None} for model in start.models}
    return replace(start.settings, recipes=spared)


def _listen(heard: Heard) -> None:
    """Hand on what the worker's process says; end when it has ended."""
    said = os.fdopen(os.dup(0), "rb")  # the interpreter waits for its own when it ends
    with suppress(EOFError, OSError, pickle.UnpicklingError):
        while True:
            heard.put(pickle.load(said))
    os._exit(0)


def main() -> None:
    """Follow, whatever is printed and whoever is interrupted: that is the worker's to hear."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    out = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    heard: Heard = queue.SimpleQueue()
    threading.Thread(target=partial(_listen, heard), daemon=True).start()
    follow(heard, out)


if __name__ == "__main__":
    main()
