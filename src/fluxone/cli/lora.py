"""`fluxone lora`: what an adapter is, its other styles, adapters into models, and out of them."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from fluxone.cli import console
from fluxone.cli.progress import Progress
from fluxone.errors import BadRequest, CannotWrite, pick
from fluxone.recipe import DTYPES

if TYPE_CHECKING:
    import torch

STYLES = ("diffusers", "kohya", "comfy")


@click.group()
def command() -> None:
    """Adapters (LoRA, DoRA, LoKr, LoHa, diffs): inspect, convert, merge, extract."""


@command.command("inspect")
@click.argument("file", metavar="FILE|REPO|civitai:ID")
@click.option("--model", metavar="MODEL", help="Tell strengths relative to its weights, and what does not fit.")
@click.option("--json", "as_json", is_flag=True, help="One JSON document.")
def inspect_file(file: str, model: str | None, as_json: bool) -> None:
    """Style, kinds, ranks, the models it fits, the change of each block, trigger words, unmatched keys."""
    from fluxone.lora.doctor import inspect

    report = inspect(file, base=model)
    if as_json:
        console.document(report.as_dict())
        return
    for line in report.lines():
        console.result(line)


@command.command("convert")
@click.argument("source", metavar="IN")
@click.argument("out", metavar="OUT")
@click.option("--to", "style", required=True, metavar="STYLE", help=", ".join(STYLES))
@click.option("--dtype", metavar="NAME", help="float32, bfloat16 or float16; default: as it is.")
def convert(source: str, out: str, style: str, dtype: str | None) -> None:
    """Write an adapter in another style; it is read back and compared before it takes its name."""
    pick(dict.fromkeys(STYLES), style, "LoRA style")
    target = _free(out)
    from fluxone.lora.load import load_lora
    from fluxone.lora.save import convert_lora

    apart = convert_lora(load_lora(source), target, style, dtype=_dtype(dtype))
    console.notice(f"the same change of every weight, to {apart:.0e}")
    console.result(str(target))


@command.command("merge")
@click.argument("model")
@click.argument("places", metavar="LORA[:SCALE]... OUT", nargs=-1, required=True)
def merge_into(model: str, places: tuple[str, ...]) -> None:
    """Write a model with adapters in its weights: a folder if MODEL is one, else a file."""
    if len(places) < 2:
        raise BadRequest("merge needs adapters and a name for the result", hint="fluxone lora merge MODEL LORA OUT")
    *files, out = places
    target = _free(out)
    from fluxone.lora.load import load_lora
    from fluxone.lora.merge import merge
    from fluxone.lora.strength import read_strength

    chosen = [read_strength(file) for file in files]
    loras = [(load_lora(file), strength) for file, strength in chosen]
    with _Bar() as bar:
        merge(model, loras, target, told=bar)
    console.result(str(target))


@command.command("extract")
@click.argument("tuned")
@click.argument("base")
@click.argument("out")
@click.option("--rank", type=int, default=32, show_default=True, help="Of each weight's change.")
@click.option("--to", "style", default="comfy", show_default=True, metavar="STYLE", help=", ".join(STYLES))
@click.option("--dtype", metavar="NAME", help="float32, bfloat16 or float16; default: the tuned model's.")
def extract_from(tuned: str, base: str, out: str, rank: int, style: str, dtype: str | None) -> None:
    """Make an adapter of the difference between a tuned model and the one it was made from."""
    pick(dict.fromkeys(STYLES), style, "LoRA style")
    target = _free(out)
    from fluxone.lora.merge import extract
    from fluxone.lora.save import save_lora

    with _Bar() as bar:
        found = extract(tuned, base, rank=rank, dtype=_dtype(dtype), told=bar)
    save_lora(found.lora, target, style)
    console.notice(f"rank {rank} holds {100 * found.kept:.2f} % of the change")
    console.result(str(target))


def _free(out: str) -> Path:
    path = Path(out).expanduser()
    if path.exists():
        raise CannotWrite(f"{path} is there already", hint="give a new name")
    return path


def _dtype(name: str | None) -> torch.dtype | None:
    if name is None:
        return None
    pick(DTYPES, name, "dtype")
    import torch

    dtype: torch.dtype = getattr(torch, name)
    return dtype


class _Bar:
    """Progress of a count that is known only when work begins."""

    def __init__(self) -> None:
        self.bar: Progress | None = None

    def __enter__(self) -> _Bar:
        return self

    def __call__(self, done: int, of: int) -> None:
        if self.bar is None:
            self.bar = Progress(of, sys.stderr, quiet=False)
        if done:
            self.bar.step()

    def __exit__(self, *error: object) -> None:
        if self.bar is not None:
            self.bar.clear()
