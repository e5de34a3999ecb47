"""Schemathesis on our OpenAPI document: whatever it makes up, no answer is our failure.

`python tools/official_clients.py` fetches it; FLUXONE_CLIENTS names another folder.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from unit.serve.fake import Fake

CLIENTS = Path(os.environ.get("FLUXONE_CLIENTS", Path(__file__).parents[3] / "runs" / "clients"))
SCHEMATHESIS = CLIENTS / "schema" / "bin" / "st"


@pytest.mark.skipif(not SCHEMATHESIS.exists(), reason="it is not there: python tools/official_clients.py")
def test_no_5xx(listening: Callable[..., str], tmp_path: Path) -> None:
    url = listening(Fake())
    done = subprocess.run(
        [
            SCHEMATHESIS, "run", f"{url}/openapi.json", "--checks", "not_a_server_error",
            "--phases", "coverage,fuzzing", "--max-examples", "15", "--generation-deterministic", "--no-shrink",
            "--suppress-health-check", "all", "--request-timeout", "20", "--no-color",
        ],
        capture_output=True, text=True, cwd=tmp_path, timeout=600, check=False,
    )  # fmt: skip
    assert done.returncode == 0, (done.stdout + done.stderr)[-6000:]
    assert "Test cases" in done.stdout or "passed" in done.stdout, done.stdout[-2000:]
