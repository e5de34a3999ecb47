"""The reference implementation's sampling functions, as an oracle for unit and parity tests."""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import Any
from unittest import mock

import pytest


@pytest.fixture(scope="session")
def reference() -> Any:
    """`fluxbfl.sampling`; what it imports only for other models (OpenCV, its watermark) need not be installed."""
    absent = {}
    for name in ("cv2", "imwatermark"):
        try:
            importlib.import_module(name)
        except ImportError:
            absent[name] = ModuleType(name)
            absent[name].WatermarkEncoder = mock.MagicMock()  # type: ignore[attr-defined]
    with mock.patch.dict(sys.modules, absent):
        return importlib.import_module("fluxbfl.sampling")
