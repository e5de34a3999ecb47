"""All that wants a GPU, in one go and in order of worth: rates, steps, autoencoder, T5, pictures, memory, tests.

Weights are random, of the true shape. What is measured is a line of the result as soon as it is there. A contestant
that fails is written down with its error, and the others go on; what there is no time for is left out. If a kernel
takes the device down with it, the script starts itself again and goes on behind that stage. Started once more with the
same --out and --name, it does what is not there yet; --only does it again.

    PYTHONPATH=src python3 tools/gpu_suite.py --seconds 450 --out FOLDER [--name NAME] [--only steps,fp8] [--small]

The stages are in `gpu_stages.py`.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import platform
import signal
import subprocess
import sys
import time
import traceback
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import gpu_stages
import torch

from fluxone.quant import kernels

ROOT = Path(__file__).parent.parent
PATIENCE = 3  # times what a stage needs before it is stopped


@dataclass
class Results:
    """What was found, in a file that is whole at any time."""

    path: Path
    found: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, folder: Path, name: str) -> Results:
        """Those of a file, if it is there."""
        path = folder / f"{name}.json"
        found = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
        return cls(path, {"stages": {}, "failed": {}, "left out": []} | found)

    def write(self) -> None:
        """The file, replaced at once."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        part = self.path.with_suffix(".part")
        part.write_text(json.dumps(self.found, indent=1) + "\n", encoding="utf-8")
        part.replace(self.path)


def commit() -> str:
    """The short name of the commit, where there is git."""
    command = ["git", "rev-parse", "--short", "HEAD"]
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    except OSError:
        return "unknown"
    return done.stdout.strip() or "unknown"


def facts(device: torch.device) -> dict[str, Any]:
    """Which machine, which software."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor()
    versions = {"torch": torch.__version__, "python": platform.python_version()}
    return {"device": name, **versions, "triton": kernels.available()}


def overdue(number: int, frame: object) -> None:
    """A stage has had its time."""
    raise gpu_stages.Overdue("this stage took too long")


def alive(device: torch.device) -> bool:
    """Whether the device still computes: after an illegal access nothing does."""
    try:
        return float(torch.ones(2, device=device).sum()) == 2
    except RuntimeError:
        return False


def carry_out(name: str, run: gpu_stages.Run, results: Results, needs: float) -> bool:
    """One stage, with what fails written down. Whether the device has survived it."""
    start, left = time.monotonic(), run.left()
    found = results.found["stages"].setdefault(name, {})
    run.found, run.write = found, results.write
    results.write()
    signal.alarm(max(1, int(min(left, PATIENCE * needs))))
    try:
        with torch.inference_mode():
            gpu_stages.STAGES[name][0](run)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # noqa: BLE001  # the other stages are worth having
        results.found["failed"][name] = "".join(traceback.format_exception(error))[-3000:]
    finally:
        signal.alarm(0)
        found["seconds of the stage"] = round(time.monotonic() - start, 1)
        results.write()
    print(f"{name}: {json.dumps(found)[:1500]}", flush=True)
    gc.collect()
    if not alive(run.device):
        return False
    torch.cuda.empty_cache()
    return True


def options_of(given: list[str]) -> argparse.Namespace:
    """What the command line says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=450)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/gpu"))
    parser.add_argument("--name", help="of the result; default: date and commit")
    parser.add_argument("--only", default="", help="stages, with commas: they are done even if they are there")
    parser.add_argument("--small", action="store_true", help="a tiny network, to try the script")
    parser.add_argument("--until", type=float, help=argparse.SUPPRESS)  # when the time is up, after a new start
    return parser.parse_args(given)


def main() -> None:
    """Run the stages."""
    options = options_of(sys.argv[1:])
    until = options.until or time.time() + options.seconds
    device = torch.device("cuda:0" if torch.cuda.is_available() else "cpu")
    run = gpu_stages.Run(case=gpu_stages.TINY if options.small else gpu_stages.DEV, device=device, until=until)
    results = Results.of(options.out, options.name or f"{time.strftime('%Y-%m-%d')}-{commit()}")
    again = options.until is not None
    asked = [name for name in options.only.split(",") if name]
    unknown = set(asked) - gpu_stages.STAGES.keys()
    if unknown:
        sys.exit(f"no such stage: {', '.join(sorted(unknown))}; there are {', '.join(gpu_stages.STAGES)}")
    if asked and not again:
        for name in asked:
            results.found["stages"].pop(name, None)
            results.found["failed"].pop(name, None)
    results.found |= {"commit": commit(), "case": run.case.name, "facts": facts(device), "left out": []}
    signal.signal(signal.SIGALRM, overdue)
    for name, (_, needs) in gpu_stages.STAGES.items():
        if (asked and name not in asked) or name in results.found["stages"]:
            continue
        if run.left() < needs:
            results.found["left out"].append(name)
        elif not carry_out(name, run, results, needs):
            print(f"{name}: the device is gone; starting again behind it", flush=True)
            others = [word for word in sys.argv[1:] if not word.startswith("--until")]
            os.execv(sys.executable, [sys.executable, str(Path(__file__).resolve()), *others, f"--until={until}"])
    results.write()
    print(json.dumps({"failed": results.found["failed"], "left out": results.found["left out"]}, indent=1))


if __name__ == "__main__":
    main()
