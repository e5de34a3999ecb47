"""Fetch the clients that Black Forest Labs and Vercel publish, each into an environment of its own, for tests/e2e.

    python tools/official_clients.py [FOLDER]        default: runs/clients

Needs a package index, npm and Node. Where the folder is not there, the tests that need it are skipped.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

PYTHON = ["blackforest==0.1.3"]
NODE = ["ai@6.0.326", "@ai-sdk/black-forest-labs@1.0.33"]


def main() -> None:
    """Fetch them, and say where they are."""
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "runs/clients").absolute()
    folder.mkdir(parents=True, exist_ok=True)
    subprocess.run([sys.executable, "-m", "venv", "--clear", folder / "python"], check=True)
    subprocess.run([folder / "python/bin/python", "-m", "pip", "install", "-q", *PYTHON], check=True)
    (folder / "package.json").write_text('{"private": true, "type": "module"}\n')
    subprocess.run(["npm", "install", "--no-audit", "--no-fund", "--save-exact", *NODE], cwd=folder, check=True)
    print(folder)


if __name__ == "__main__":
    main()
