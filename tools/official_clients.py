"""Fetch what others publish to speak to such servers, each into an environment of its own, for tests of the server:
the clients of Black Forest Labs and Vercel, and schemathesis, which makes requests up from an OpenAPI document.

    python tools/official_clients.py [FOLDER]        default: runs/clients

Needs a package index, npm and Node. Where the folder is not there, the tests that need it are skipped.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

PYTHON = {"python": "blackforest==0.1.3", "schema": "schemathesis==4.32.5"}  # folder -> package
NODE = ["ai@6.0.326", "@ai-sdk/black-forest-labs@1.0.33"]


def main() -> None:
    """Fetch them, and say where they are."""
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "runs/clients").absolute()
    folder.mkdir(parents=True, exist_ok=True)
    for name, package in PYTHON.items():
        subprocess.run([sys.executable, "-m", "venv", "--clear", folder / name], check=True)
        subprocess.run([folder / name / "bin" / "python", "-m", "pip", "install", "-q", package], check=True)
    (folder / "package.json").write_text('{"private": true, "type": "module"}\n')
    subprocess.run(["npm", "install", "--no-audit", "--no-fund", "--save-exact", *NODE], cwd=folder, check=True)
    print(folder)


if __name__ == "__main__":
    main()
