"""Many clients at once on one engine: none lost, none wrong, and how long short requests take beside long ones.

    python tools/load_server.py [--requests 200] [--clients 16] [--short 4] [--long 20] [--batch N] [--lanes N]

Prints one JSON document: the time of a short request alone; its percentiles while all other clients, of the same key,
keep asking for long ones, and in a mix where half of all are short; pictures a second one by one and together.
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np

from fluxone.assembly import assemble, best_device
from fluxone.recipe import Recipe
from fluxone.request import Request
from fluxone.serve.engine import Engine
from fluxone.serve.run import SWITCH, room_on
from fluxone.serve.task import Task, Wanted

HELP = {"batch": "0: as the server does", "lanes": "-1: as the server does"}
BESIDE, PAUSE = 60, 0.2  # short requests, and s between them


def drawn(engine: Engine, number: int, steps: int, owner: str) -> tuple[float, Task]:
    """Draw one and say how long it took, s."""
    request = engine.resolve("mini", Request(prompt="a red car", seed=number, steps=steps))
    task = Task(Wanted(id=str(number), model="mini", request=request, owner=owner))
    began = time.perf_counter()
    engine.submit(task)
    task.ended.wait()
    return time.perf_counter() - began, task


def beside(engine: Engine, others: int, short: int, long: int) -> dict[str, float]:
    """Percentiles of short requests, one after the other, while others keep asking for long ones."""
    over = threading.Event()

    def keep(owner: int) -> None:
        while not over.is_set():
            drawn(engine, owner, long, "")

    with ThreadPoolExecutor(others) as clients:
        for owner in range(others):
            clients.submit(keep, owner)
        seconds = []
        for n in range(BESIDE):
            seconds.append(drawn(engine, n, short, "")[0])
            time.sleep(PAUSE)
        over.set()
    return {f"p{p}": round(float(np.percentile(seconds, p)), 3) for p in (50, 90, 99)}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name, default in (("requests", 200), ("clients", 16), ("short", 4), ("long", 20), ("batch", 0), ("lanes", -1)):
        parser.add_argument(f"--{name}", type=int, default=default, help=HELP.get(name))
    parser.add_argument("--device", default=best_device())
    told = parser.parse_args()
    sys.setswitchinterval(SWITCH)
    passes: list[int] = []
    pipeline = assemble("mini", Recipe(device=told.device))
    room = room_on([told.device])
    room = replace(room, batch=told.batch or room.batch, lanes=room.lanes if told.lanes < 0 else told.lanes)
    engine = Engine([lambda: {"mini": pipeline}], report=lambda n, s: passes.append(n), room=room)
    engine.start()
    engine.wait_ready()
    alone = [drawn(engine, n, told.short, "")[0] for n in range(10)]
    began = time.perf_counter()
    reference = {n: drawn(engine, n, told.long if n % 2 else told.short, "")[1].drawn.image for n in range(20)}
    one_by_one = 20 / (time.perf_counter() - began)
    passes.clear()
    mix = random.Random(0).sample([n % 20 for n in range(told.requests)], told.requests)
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    began = time.perf_counter()

    def one(n: int) -> tuple[float, int]:
        """Draw one, and say how much it differs from what it was alone; the picture itself is let go."""
        seconds, task = drawn(engine, n, told.long if n % 2 else told.short, "")
        return seconds, int(np.abs(np.asarray(task.drawn.image, int) - np.asarray(reference[n], int)).max())

    with ThreadPoolExecutor(told.clients) as clients:
        done = [job.result() for job in [clients.submit(one, n) for n in mix]]
    together = len(done) / (time.perf_counter() - began)
    worst = max(differs for _, differs in done)
    short = [seconds for n, (seconds, _) in zip(mix, done, strict=True) if not n % 2]
    figures = {
        "requests": len(done), "lost": told.requests - len(done), "most_that_a_value_differs": worst,
        "short_alone_s": round(float(np.median(alone)), 3),
        "short_in_the_mix_s": {f"p{p}": round(float(np.percentile(short, p)), 3) for p in (50, 90, 99)},
        "p99_over_alone": round(float(np.percentile(short, 99) / np.median(alone)), 2),
        "pictures_per_s": {"one by one": round(one_by_one, 2), "together": round(together, 2)},
        "pictures_per_pass": round(float(np.mean(passes)), 2),
        "memory_grown_mb": round((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory) / 1024, 1),
    }  # fmt: skip
    figures["short_beside_long_s"] = beside(engine, told.clients - 1, told.short, told.long)
    figures["p99_beside_long_over_alone"] = round(figures["short_beside_long_s"]["p99"] / figures["short_alone_s"], 2)
    engine.stop(0)
    print(json.dumps(figures, indent=2))


if __name__ == "__main__":
    main()
