"""How much memory of its own a process needs for a conversion; pages of mapped files are the system's."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

SCRIPT = """
import re, sys, threading, time
from pathlib import Path
from fluxone.weights.convert import convert
from fluxone.weights.layouts import wanted
def own():
    return int(re.search(r"RssAnon:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) * 1024
peak, stop = own(), threading.Event()
first = peak
def watch():
    global peak
    while not stop.wait(0.002):
        peak = max(peak, own())
thread = threading.Thread(target=watch)
thread.start()
try:
    convert(sys.argv[1], sys.argv[2], wanted({arguments}))
finally:
    stop.set()
    thread.join()
print(peak - first)
"""


def peak_of(source: Path, out: Path, arguments: str) -> int:
    """Bytes that the process grew by at most, beyond what it had before it began."""
    script = SCRIPT.replace("{arguments}", arguments)
    done = subprocess.run([sys.executable, "-c", script, str(source), str(out)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return int(done.stdout)
