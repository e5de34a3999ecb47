"""A file imports only from floors below its own or its own folder, and other packages only where they belong."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from house.tree import SRC, imports, module, sources, where

FLOORS = {
    "fluxone": 0,
    "fluxone.errors": 0,
    "fluxone.geometry": 0,
    "fluxone.lines": 0,
    "fluxone.recipe": 0,
    "fluxone.request": 0,
    "fluxone.shapes": 0,
    "fluxone.variants": 0,
    "fluxone.nn": 1,
    "fluxone.pixels": 2,
    "fluxone.sampling": 2,
    "fluxone.text": 2,
    "fluxone.weights": 2,
    "fluxone.conditions": 3,
    "fluxone.lora": 3,
    "fluxone.offload": 3,
    "fluxone.cache": 3,
    "fluxone.parallel": 3,
    "fluxone.provenance": 3,
    "fluxone.quant": 3,
    "fluxone.steering": 3,
    "fluxone.storybook": 3,  # draws pictures and knows no model, so that training and measuring can both use it
    "fluxone.adapting": 4,
    "fluxone.arguments": 4,
    "fluxone.call": 4,
    "fluxone.client": 4,
    "fluxone.guiding": 4,
    "fluxone.job": 4,
    "fluxone.api": 4,
    "fluxone.assembly": 4,
    "fluxone.making": 4,
    "fluxone.opening": 4,
    "fluxone.pipeline": 4,
    "fluxone.preview": 4,
    "fluxone.prompts": 4,
    "fluxone.regions": 4,
    "fluxone.ultra": 4,
    "fluxone.scripted": 4,
    "fluxone.spoken": 4,
    "fluxone.steered": 4,
    "fluxone.extent": 4,
    "fluxone.fitting": 4,
    "fluxone.machine": 4,
    "fluxone.plan": 4,
    "fluxone.bench": 5,
    "fluxone.evaluate": 5,
    "fluxone.serve": 5,
    "fluxone.train": 5,
    "fluxone.tune": 6,  # fine-tuning stands on training and measures with the judge
    "fluxone.cli": 7,
    "fluxone.__main__": 8,
}
# The lowest floor from which a package may be imported, besides the standard library.
PACKAGES = {
    "PIL": 0,  # floor 0: for its types only, which test_quick.py sees to
    "torch": 1,
    "jaxtyping": 1,
    "triton": 1,
    "numpy": 1,
    "safetensors": 2,
    "huggingface_hub": 2,
    "tokenizers": 2,
    "gguf": 2,
    "cv2": 3,
    "transformers": 3,
    "resvg_py": 3,
    "skia": 3,
    "alembic": 5,
    "diffusers": 5,  # in bench, as rivals
    "onnxruntime": 5,
    "onnxscript": 5,
    "openvino": 5,
    "c2pa": 5,
    "fastapi": 5,
    "opentelemetry": 5,
    "fsspec": 5,
    "greenlet": 5,
    "prometheus_client": 5,
    "pydantic": 5,
    "ray": 5,
    "sqlalchemy": 5,
    "starlette": 5,
    "uvicorn": 5,
    "tqdm": 5,
    "matplotlib": 5,
    "rapidocr": 5,
    "click": 7,
}
EXEMPT = {SRC / "__init__.py"}  # names the public classes of all floors, as text and for type checkers


def part(name: str) -> str:
    """The row of `FLOORS` that a module belongs to: the package, or one file or folder in it."""
    return ".".join(name.split(".")[:2])


def floor(name: str) -> int:
    assert part(name) in FLOORS, f"{name} is in no row of FLOORS: say on which floor it stands"
    return FLOORS[part(name)]


def faults(path: Path, own: str) -> list[str]:
    found = []
    for line, name in imports(path):
        top = name.split(".")[0]
        if top == "fluxone":
            if floor(name) >= floor(own) and part(name) != part(own) and not _neighbours(own, name):
                found.append(f"{where(path, line)}: floor {floor(own)} imports {name} of floor {floor(name)}")
        elif top not in sys.stdlib_module_names and floor(own) < PACKAGES.get(top, 99):
            found.append(f"{where(path, line)}: floor {floor(own)} imports {top}")
    return found


def _neighbours(own: str, name: str) -> bool:
    """Single files beside each other on one floor: request.py may import geometry.py."""
    def single(row: str) -> bool:
        return (SRC.parent / Path(*row.split("."))).with_suffix(".py").is_file() or row == "fluxone"

    return floor(own) == floor(name) and single(part(own)) and single(part(name))


@pytest.mark.parametrize("path", [p for p in sources() if p not in EXEMPT], ids=lambda p: module(p))
def test_imports_only_from_below(path: Path) -> None:
    found = faults(path, module(path))
    assert not found, "\n".join(found)


def test_the_check_sees_an_import_inside_a_function(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from house import tree

    bad = tmp_path / "bad.py"
    bad.write_text("def f():\n    from fluxone import assembly\n    import click\n")
    monkeypatch.setattr(tree, "ROOT", tmp_path)
    assert faults(bad, own="fluxone.nn.bad") == [
        "bad.py:2: floor 1 imports fluxone.assembly of floor 4",
        "bad.py:3: floor 1 imports click",
    ]


def test_every_folder_is_a_package() -> None:
    bare = {path.parent for path in sources()} - {path.parent for path in sources() if path.name == "__init__.py"}
    assert not bare
