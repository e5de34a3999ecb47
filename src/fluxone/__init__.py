"""FLUX.1, complete and practical: generate, edit, fine-tune, serve and measure.

Importing this package is quick and does not import torch: every public name is loaded when first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fluxone.api import FluxPipeline as FluxPipeline
    from fluxone.assembly import assemble as assemble
    from fluxone.client import AsyncClient as AsyncClient
    from fluxone.client import Client as Client
    from fluxone.errors import FluxoneError as FluxoneError
    from fluxone.pipeline import Pipeline as Pipeline
    from fluxone.recipe import Recipe as Recipe
    from fluxone.request import Region as Region
    from fluxone.request import Request as Request
    from fluxone.request import Result as Result
    from fluxone.variants import Variant as Variant

__version__ = "0.1.0"

_HOME = {
    "AsyncClient": "fluxone.client",
    "Client": "fluxone.client",
    "FluxPipeline": "fluxone.api",
    "FluxoneError": "fluxone.errors",
    "Pipeline": "fluxone.pipeline",
    "Recipe": "fluxone.recipe",
    "Region": "fluxone.request",
    "Request": "fluxone.request",
    "Result": "fluxone.request",
    "Variant": "fluxone.variants",
    "assemble": "fluxone.assembly",
}

__all__ = [
    "AsyncClient", "Client", "FluxPipeline", "FluxoneError", "Pipeline", "Recipe", "Region", "Request",
    "Result", "Variant", "assemble",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(import_module(_HOME[name]), name)
    raise AttributeError(f"module 'fluxone' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOME])
