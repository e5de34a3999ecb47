"""`import fluxone` and the command line's first words load nothing heavy."""

from __future__ import annotations

import subprocess
import sys

import pytest

HEAVY = ("torch", "numpy", "PIL", "transformers", "huggingface_hub", "safetensors", "tokenizers", "tqdm")
PROBE = """
import sys
from fluxone.cli.main import run
code = run(sys.argv[1:])
heavy = sorted(set(sys.modules) & set({heavy!r}.split()))
print("heavy:", *heavy, file=sys.stderr)
sys.exit(code)
"""


def loaded(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False)


def test_import_fluxone_loads_nothing_heavy() -> None:
    code = f"import sys, fluxone; print(sorted(set(sys.modules) & set({HEAVY!r})))"
    assert loaded(code).stdout == "[]\n"


@pytest.mark.parametrize(
    ("line", "code"),
    [
        ("--help", 0),
        ("--version", 0),
        ("generate --help", 0),
        ("models list", 0),
        ("models list --json", 0),
        ("models", 0),
        ("train --help", 0),
        ("replay --help", 0),
        ("generate", 2),
        ("generate a --nonsense", 2),
        ("generate a --steps 0", 2),
        ("generate a --steps many", 2),
        ("generate a --size 0x0", 2),
        ("generate a --model dve", 2),
        ("generate a --sampler eular", 2),
        ("paint a", 2),
    ],
)
def test_the_first_words_load_nothing_heavy(line: str, code: int) -> None:
    done = loaded(PROBE.format(heavy=" ".join(HEAVY)), *line.split())
    assert done.returncode == code, done.stderr
    assert done.stderr.splitlines()[-1] == "heavy:"
