"""For all tests: no network, one thread (the models are tiny), and shapes and types checked where tensors are."""

from __future__ import annotations

import os

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ.setdefault("DIFFUSERS_VERBOSITY", "error")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
os.environ.setdefault("OMP_NUM_THREADS", "1")

from importlib.util import find_spec
from pathlib import Path

import jaxtyping
import pytest

NN = Path(__file__).parent.parent / "src/fluxone/nn"
NETWORKS = [f"fluxone.nn.{file.stem}" for file in NN.glob("*.py") if not file.stem.endswith("_triton")]
CHECKED = [*NETWORKS, "fluxone.sampling", "fluxone.text"]  # Triton reads a kernel's own text: it cannot be wrapped
if find_spec("beartype"):  # a machine that is lent for its GPU may not have it
    jaxtyping.install_import_hook(CHECKED, "beartype.beartype")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests that need an accelerator are skipped where there is none."""
    marked = [item for item in items if item.get_closest_marker("gpu")]
    if not marked:
        return
    import torch

    if not torch.cuda.is_available():
        for item in marked:
            item.add_marker(pytest.mark.skip(reason="there is no accelerator"))


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> None:
    import torch

    torch.set_num_threads(1)
