"""Event files: their checks against published ones, their bytes against a file that TensorBoard 2 has read."""

from __future__ import annotations

from pathlib import Path

import pytest

from fluxone.tune import events
from fluxone.tune.events import Events


def test_a_check_that_is_known() -> None:
    """RFC 3720, section B.4: 32 bytes of zeros, and of ones; masked as TensorFlow does."""
    for data, truth in ((bytes(32), 0x8A9136AA), (b"\xff" * 32, 0x62A8AB43)):
        masked = (((truth >> 15) | (truth << 17)) + 0xA282EAD8) & 0xFFFFFFFF
        assert events.checked(data) == masked


def test_a_file_is_what_tensorboard_reads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events.time, "time", lambda: 1000.5)
    made = Events(tmp_path)
    made.scalars(300, {"loss": 0.25})
    (path,) = tmp_path.iterdir()
    assert path.name.startswith("events.out.tfevents.1000.")
    assert path.read_bytes().hex() == WRITTEN


# Read by TensorBoard's EventAccumulator as version 2 and the scalar `loss`, 0.25, of step 300.
WRITTEN = (
    "1800000000000000a37f4b22090000000000448f401a0d627261696e2e4576656e743a32aba33345"
    "1b000000000000001a0d9e13090000000000448f4010ac022a0d0a0b0a046c6f7373150000803eccde54e4"
)
