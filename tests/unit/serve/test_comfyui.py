"""The nodes for ComfyUI, against a server without networks: tensors in, tensors out."""

from __future__ import annotations

import importlib.util
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from fluxone.variants import CANNY, FILL, KONTEXT, MINI
from unit.serve.fake import Fake, colour

PLACE = Path(__file__).parents[3] / "integrations" / "comfyui" / "__init__.py"
ALL = {"mini": MINI, "kontext": KONTEXT, "fill": FILL, "canny": CANNY}


@pytest.fixture
def nodes() -> Any:
    spec = importlib.util.spec_from_file_location("fluxone_comfyui", PLACE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def defaults(node: Any) -> dict[str, Any]:
    """What ComfyUI fills in for an input that is not joined to anything."""
    told = {**node.INPUT_TYPES()["required"], **node.INPUT_TYPES()["optional"]}
    plain = {name: row for name, row in told.items() if row[0] not in ("IMAGE", "MASK")}
    return {name: row[1]["default"] if len(row) > 1 else row[0][0] for name, row in plain.items()}


def test_every_node(nodes: Any, listening: Callable[..., str]) -> None:
    engine = Fake(ALL)
    url = listening(engine)
    image, mask = torch.full((1, 48, 64, 3), 0.5), torch.zeros(1, 48, 64)
    mask[:, :, :32] = 1
    given = {
        "FluxoneDraw": {"prompt": "a fox", "width": 256, "height": 288, "steps": 4},
        "FluxoneUltra": {"prompt": "a fox", "aspect": "1:1", "raw": True},
        "FluxoneEdit": {"image": image.repeat(2, 1, 1, 1), "instruction": "blue"},
        "FluxoneFill": {"image": image, "mask": mask, "prompt": "a house"},
        "FluxoneExpand": {"image": image, "left": 16},
        "FluxoneControl": {"kind": "canny", "image": image, "prompt": "a house"},
    }
    assert set(given) == set(nodes.NODE_CLASS_MAPPINGS) == set(nodes.NODE_DISPLAY_NAME_MAPPINGS)
    for name, fields in given.items():
        node = nodes.NODE_CLASS_MAPPINGS[name]
        (out,) = getattr(node(), node.FUNCTION)(**{**defaults(node), **fields, "seed": 7, "server": url})
        assert out.ndim == 4
        assert out.shape[3] == 3
        assert torch.allclose(out[0, 5, 5], torch.tensor(colour(7)) / 255, atol=0.02) or name == "FluxoneFill"
    draw, ultra, edit, fill, expand, control = (task.wanted for task in engine.tasks)
    assert (draw.request.steps, draw.request.prompt, ultra.request.ultra) == (4, "a fox", "tiled")
    assert (edit.model, len(edit.request.references)) == ("kontext", 2)
    assert (fill.request.mask.getpixel((1, 1)), fill.request.mask.getpixel((63, 1))) == (255, 0)
    assert (expand.request.expand, control.model) == ((16, 0, 0, 0), "canny")
    assert nodes.fields_of(0, "a:0.5, b") == {"loras": [{"name": "a", "scale": 0.5}, {"name": "b", "scale": 1.0}]}


def test_progress_is_comfyuis(nodes: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[object, ...]] = []

    class Bar:
        def __init__(self, total: int) -> None:
            pass

        def update_absolute(self, *told: object) -> None:
            seen.append(told)

    utils = types.ModuleType("comfy.utils")
    utils.ProgressBar = Bar
    monkeypatch.setitem(sys.modules, "comfy", types.ModuleType("comfy"))
    monkeypatch.setitem(sys.modules, "comfy.utils", utils)
    nodes.Node().progress()(0.25, None)
    assert seen == [(25, 100, None)]
