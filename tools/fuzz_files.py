"""Open spoiled files by the hundred: each must load, or be refused with an error of ours; nothing else may happen.

Models in every layout, shards, configs, adapters in every style, pictures with records, tokenizers and pickles are
spoiled by a seed and opened in a process whose memory is limited. Another exception, a crash, a hang, memory beyond
the bound, and a pickle that ran are faults; each is told with the number that makes the same file again.

    python tools/fuzz_files.py --count 20000 --seed 1
    python tools/fuzz_files.py --seed 1 --only 1234 --keep FOLDER
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random

from fuzz_mutations import TRAP
from fuzz_samples import Kind, kinds

from fluxone.errors import FluxoneError

MEMORY = 700 * 2**20  # bytes of address space beyond what the process has at the start
RESIDENT = 400 * 2**20  # bytes that the process may grow by over all files
SECONDS = 5.0  # of processor time, for one file
DEATHS = 20  # processes that may be lost before it gives up


class Slow(BaseException):
    """A file took longer than `SECONDS`."""


def _late(number: int, frame: object) -> None:
    raise Slow


@contextmanager
def limited() -> Iterator[None]:
    """Bound the address space, and be woken where one file takes long."""
    own = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    before = resource.getrlimit(resource.RLIMIT_AS)
    former = signal.signal(signal.SIGPROF, _late)
    resource.setrlimit(resource.RLIMIT_AS, (own + MEMORY, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, former)


def resident() -> int:
    """Bytes of memory that the process has had at most."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def one(samples: list[Kind], seed: int, number: int, folder: Path) -> tuple[str, str, str | None]:
    """Make and open the file of a number: the sample's name, what came of it, and the fault if there is one."""
    random = Random(f"{seed}:{number}")
    kind = samples[number % len(samples)]
    others = [random.choice(list(other.files.values())) for other in samples[:8]]
    shutil.rmtree(folder, ignore_errors=True)
    for name, data in kind.spoilt(random, others).items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    signal.setitimer(signal.ITIMER_PROF, SECONDS)
    try:
        kind.open(folder / kind.entrance)
        came, fault = "loaded", None
    except FluxoneError as error:
        came, fault = type(error).__name__, None
        if len(str(error)) > 3000:
            fault = f"an error of {len(str(error))} characters"
    except Slow:
        came, fault = "slow", f"more than {SECONDS:g} s\n{traceback.format_exc(limit=-6)}"
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt):
            raise
        came, fault = type(error).__name__, traceback.format_exc(limit=-4)
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
    if Path(TRAP).exists():
        Path(TRAP).unlink()
        fault = "a pickle ran"
    return kind.name, came, fault


def run(seed: int, numbers: range, work: Path) -> tuple[Counter[str], list[tuple[int, str, str]]]:
    """Open the files of all numbers in this process: what came of how many, and the faults."""
    os.makedirs(work, exist_ok=True)
    logging.getLogger("fluxone").setLevel(logging.ERROR)
    samples, home = kinds(work / "samples"), Path.cwd()
    came: Counter[str] = Counter()
    faults: list[tuple[int, str, str]] = []
    os.chdir(work)
    try:
        at_first = resident()
        with limited():
            for number in numbers:
                (work / "number").write_text(str(number))
                name, result, fault = one(samples, seed, number, work / "spoilt")
                came[result] += 1
                if fault is not None:
                    faults.append((number, name, fault))
        grown = resident() - at_first
        if grown > RESIDENT:
            faults.append((-1, "all", f"the process grew by {grown / 2**20:.0f} MiB"))
    finally:
        os.chdir(home)
    return came, faults


def _in_process(seed: int, numbers: range, work: Path) -> tuple[Counter[str], list[tuple[int, str, str]], int]:
    """The same in a process of its own; the number where it goes on, which is after the file that killed it."""
    (work / "number").unlink(missing_ok=True)
    command = [
        sys.executable,
        __file__,
        "--seed",
        str(seed),
        "--worker",
        str(work),
        str(numbers.start),
        str(numbers.stop),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode == 0:
        came, faults = json.loads(done.stdout.splitlines()[-1])
        return Counter(came), [tuple(row) for row in faults], numbers.stop
    if not (work / "number").exists():
        raise SystemExit(done.stderr)
    number = int((work / "number").read_text())
    return (
        Counter(died=1),
        [(number, "?", f"the process ended with {done.returncode}\n{done.stderr[-2000:]}")],
        number + 1,
    )


def main() -> int:
    """Run, tell, and exit with 1 if there was a fault."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=5000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", type=int, help="the file of this number, with its traceback")
    parser.add_argument("--keep", type=Path, help="leave the file of --only in this folder")
    parser.add_argument("--worker", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        work, start, stop = options.worker
        came, faults = run(options.seed, range(int(start), int(stop)), Path(work))
        print(json.dumps([came, faults]))
        return 0
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        if options.only is not None:
            came, faults = run(options.seed, range(options.only, options.only + 1), work)
            if options.keep:
                shutil.copytree(work / "spoilt", options.keep)
        else:
            came, faults, at = Counter(), [], 0
            while at < options.count and came["died"] < DEATHS:
                more, found, at = _in_process(
                    options.seed, range(at, min(at + 2000, options.count)), work / f"from-{at}"
                )
                came, faults = came + more, faults + found
    for number, name, fault in faults:
        print(f"--- {number} ({name})\n{fault}")
    told = ", ".join(f"{count} {result}" for result, count in came.most_common())
    print(f"{sum(came.values())} files in {time.perf_counter() - start:.0f} s: {told}; {len(faults)} faults")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
