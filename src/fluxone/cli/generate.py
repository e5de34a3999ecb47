"""`fluxone generate`: words to pictures, and pictures to pictures with `--init`."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from fluxone import __version__
from fluxone.cli import console, naming, options
from fluxone.cli.beside import OPTIONS as BESIDE
from fluxone.cli.beside import Beside
from fluxone.cli.progress import Progress, duration
from fluxone.errors import BadRequest, pick
from fluxone.recipe import Recipe
from fluxone.request import MAX_SEED, Request
from fluxone.variants import VARIANTS

if TYPE_CHECKING:
    from fluxone.pipeline import Pipeline
    from fluxone.sampling.samplers import Step

WORDS = ("prompt", "negative", "clip_prompt", "clip_negative")  # which may be empty
# Options that do nothing unless one of others is on.
NEEDING = {
    "negative": ("--cfg", "--nag"),
    "clip_negative": ("--cfg", "--nag"),
    "cfg_interval": ("--cfg", "--nag"),
    "nag_tau": ("--nag",),
    "nag_alpha": ("--nag",),
}
SAMPLERS, SCHEDULES = ", ".join(options.SAMPLERS), ", ".join(options.SCHEDULES)

HELP = """Make a picture of PROMPT; `-` reads the prompt from standard input. Prints the picture's path.

\b
fluxone generate "a red car to the left of a house in the snow"
fluxone generate "a fox" --count 4 --seed 7 -o foxes/
fluxone generate "the same at night" --init day.png --strength 0.7 -o night.jpg
"""


@dataclass(frozen=True, kw_only=True)
class Asked(Beside):
    """What the command line said, an attribute an option."""

    prompt: str
    model: str
    variant: str | None
    output: str | None
    format_: str | None
    size: str | None = None
    aspect: str | None = None
    megapixels: float | None = None
    steps: int | None
    guidance: float | None
    clip_prompt: str | None
    emphasis: str
    wildcards: str
    negative: str | None
    clip_negative: str | None
    cfg: float
    cfg_interval: str | None
    nag: float
    nag_tau: float
    nag_alpha: float
    regions: tuple[str, ...]
    raw: bool
    ultra: str | None = None
    ultra_strength: float | None = None
    seed: int
    count: int
    sampler: str | None
    schedule: str | None
    text_tokens: int | None
    init: str | None = None
    strength: float | None = None
    device: str | None
    dtype: str | None
    quant: str | None = None
    quant_t5: str | None = None
    cache: str | None = None
    max_drift: float | None = None
    offload: str
    parallel: str | None = None
    compat: str
    tiled: bool
    loras: tuple[str, ...]
    vae: str | None
    text_encoder: str | None
    text_encoder_2: str | None
    redux: str | None = None
    siglip: str | None = None
    preview: bool
    as_json: bool
    quiet: bool

    def __post_init__(self) -> None:
        """Refuse what a script leaves empty by mistake: as a path it would mean the folder that it runs in."""
        for option in OPTIONS:
            value = getattr(self, str(option.name))
            empty = "" in value if isinstance(value, tuple) else value == ""
            if empty and option.name not in WORDS and option.default != "":
                raise BadRequest(f"{option.opts[-1]} is empty", hint="give it a value, or leave it out")

    def request(self) -> Request:
        """What is to be drawn.

        Raises:
            UserError: an option is out of range or contradicts another.
        """
        if self.sampler is not None:
            pick(dict.fromkeys(options.SAMPLERS), self.sampler, "sampler")
        if self.wildcards and not Path(self.wildcards).is_dir():
            raise BadRequest(f"--wildcards is {self.wildcards}, no folder", hint="give the folder of the .txt files")
        if self.schedule is not None:
            pick(dict.fromkeys(options.SCHEDULES), self.schedule, "schedule")
        self._check_guidance()
        by_model = self.ultra is not None and self.aspect is not None and self.megapixels is None
        return Request(
            prompt=options.read_prompt(self.prompt),
            clip_prompt=self.clip_prompt,
            emphasis=self.emphasis,
            wildcards=self.wildcards,
            negative=self.negative or "",
            clip_negative=self.clip_negative,
            resolution=None if by_model else options.read_resolution(self.size, self.aspect, self.megapixels),
            aspect=self.aspect if by_model else None,
            ultra=self.ultra,
            ultra_strength=self.ultra_strength,
            seed=self.seed,
            count=self.count,
            steps=self.steps,
            guidance=self.guidance,
            cfg=self.cfg,
            cfg_interval=options.read_interval(self.cfg_interval),
            nag=self.nag,
            nag_tau=self.nag_tau,
            nag_alpha=self.nag_alpha,
            regions=tuple(options.read_region(text) for text in self.regions),
            raw=self.raw,
            sampler=self.sampler,
            schedule=self.schedule,
            strength=self.strength,
            text_tokens=self.text_tokens,
            init=None if self.init is None else options.read_image(self.init),
            **self.of_request(),
        )

    def _check_guidance(self) -> None:
        """Refuse what only works with guidance that is not on."""
        usual = {option.name: option.default for option in OPTIONS}
        on = {"--cfg": self.cfg != 1, "--nag": self.nag != 1}
        for name, needed in NEEDING.items():
            if getattr(self, name) in (None, "", usual[name]) or any(on[option] for option in needed):
                continue
            option, are = f"--{name.replace('_', '-')}", "are" if needed[1:] else "is"
            hint = "add e.g. --nag 5" + (", or --cfg 3" if needed[1:] else "")
            raise BadRequest(f"{option} does nothing while {' and '.join(needed)} {are} 1", hint=hint)

    def recipe(self) -> Recipe:
        """How to run the model.

        Raises:
            UserError: an option names no row of its table.
        """
        return Recipe(
            dtype=self.dtype,
            device=self.device,
            quant=self.quant,
            quant_t5=self.quant_t5,
            offload=self.offload,
            cache=self.cache,
            max_drift=self.max_drift,
            parallel=self.parallel,
            compat=self.compat,
            adapters=self.loras,
            tiled=self.tiled,
            vae=self.vae,
            text_encoder=self.text_encoder,
            text_encoder_2=self.text_encoder_2,
            redux=self.redux,
            siglip=self.siglip,
            **self.of_recipe(),
        )


def generate(asked: Asked, given: Callable[[Request], Request] = lambda request: request) -> None:
    """Make the pictures one by one, each saved as soon as it is there, and tell where they are.

    Args:
        given: puts pictures into the request that the options make.

    Raises:
        FluxoneError: whatever stands in the way.
    """
    options.check_model(asked.model)
    model = options.raw_model(asked.model) if asked.raw else asked.model
    if asked.variant is not None:
        pick(VARIANTS, asked.variant, "variant")
    target = naming.target(asked.output, asked.format_, asked.count)
    recipe, request = asked.recipe(), given(asked.request())
    leads = recipe.parallel is None or os.environ.get("RANK", "0") == "0"  # of those that share one tells and saves
    quiet = asked.quiet or not leads
    naming.prepare(target.folder)
    console.listen(quiet=quiet)
    if not quiet:
        console.notice(f"loading {model}")
    from fluxone import parallel
    from fluxone.assembly import assemble
    from fluxone.prompts import settled

    pipeline = assemble(model, recipe, variant=asked.variant)
    told = pipeline.variant.told
    if told is not None and request.guidance not in (None, told):
        console.notice(f"notice: {pipeline.variant.name} is always told guidance {told:g}, which it was distilled with")
    request = pipeline.resolve(request)
    if recipe.parallel is not None:
        request = replace(request, seed=parallel.agreed(request.seed))
    made: list[dict[str, object]] = []
    for index in range(request.count):
        one = replace(request, seed=(request.seed + index) % (MAX_SEED + 1), count=1)
        output = target.path(settled(one, one.seed).prompt, one.seed, index)
        made.append(make(pipeline, one, output, preview=asked.preview and leads, quiet=quiet, saves=leads))
        if leads and not asked.as_json:
            console.result(str(output))
    if leads and asked.as_json:
        console.document({"fluxone": __version__, "images": made})
    parallel.leave()


def make(
    pipeline: Pipeline, request: Request, output: Path, *, preview: bool, quiet: bool, saves: bool = True
) -> dict[str, object]:
    """Make the one picture of a resolved request, save it with its record, and describe it.

    Raises:
        BrokenModel: the model computed no numbers; nothing is saved.
        CannotWrite: the picture cannot be saved.
    """
    from fluxone import provenance

    with watching(pipeline, request, output, preview=preview, quiet=quiet) as watch:
        result = pipeline(request, on_step=watch)
    entry = provenance.record(
        result.request,
        model=pipeline.variant.name,
        source=pipeline.bundle.source,
        hashes=pipeline.hashes,
        recipe=pipeline.recipe,
    )
    if saves:
        provenance.save(result.images[0], output, entry)
    if not quiet:
        console.notice(f"made in {duration(sum(result.seconds.values()))}")
    seconds = {name: round(value, 3) for name, value in result.seconds.items()}
    return {"path": str(output), "seconds": seconds, **json.loads(provenance.to_json(entry))}


@contextmanager
def watching(
    pipeline: Pipeline, request: Request, output: Path, *, preview: bool, quiet: bool
) -> Iterator[Callable[[Step], None]]:
    """What is called after each step: the bar, and the preview if there is to be one."""
    from fluxone.cli import preview as previews
    from fluxone.ultra import passes

    found = passes(pipeline, request)
    progress = Progress(sum(steps for _, steps in found) * (1 + len(request.then)), sys.stderr, quiet=quiet)
    grids = {rows * columns: (rows, columns) for (rows, columns), _ in found}
    place: previews.Screen | previews.File | None = None
    if preview:
        place = previews.Screen(sys.stderr) if progress.live and not quiet else previews.File(output)
        from fluxone.preview import previewer

        painter = previewer(pipeline)

    def watch(step: Step) -> None:
        progress.clear()
        if place is not None:
            place.show(painter.picture(pipeline.latent(step.clean, grids[step.clean.shape[1]])[0]))
        progress.step()

    try:
        yield watch
    finally:
        progress.clear()
        if place is not None:
            place.close()


def _plain(asked: Asked) -> Asked:
    if asked.strength is not None and asked.init is None:
        raise BadRequest("--strength is given without --init", hint="add --init IMAGE")
    return asked


def shared(*without: str) -> list[click.Parameter]:
    """The options of this command that the others which draw have too: all but its prompt, `init` and these."""
    return [option for option in OPTIONS if option.name not in {"prompt", "init", *without}]


OPTIONS: list[click.Parameter] = [
    click.Argument(["prompt"]),
    click.Option(["--model"], default="mini", show_default=True, help="A name, a hub id, a file or a folder."),
    click.Option(["--variant"], metavar="NAME", help="Whose defaults apply, where the model's files cannot tell."),
    click.Option(["-o", "--output"], metavar="FILE|DIR", help="Default: outputs/, named after the prompt and seed."),
    click.Option(["--format", "format_"], metavar="NAME", help="png, jpg, webp; default: what FILE ends in, else png."),
    click.Option(["--size"], metavar="WxH", help="In pixels, e.g. 1024x768; default: the model's own."),
    click.Option(["--aspect"], metavar="W:H", help="In place of --size, e.g. 16:9."),
    click.Option(["--megapixels"], type=float, help="With --aspect; 1 is 1024x1024 pixels. Default: 1."),
    click.Option(["--steps"], type=int, help="Default: the model's own."),
    click.Option(["--guidance"], type=float, help="How closely to follow the prompt. Default: the model's own."),
    click.Option(["--clip-prompt"], metavar="TEXT", help="What CLIP reads. Default: the prompt, as T5 does."),
    click.Option(["--emphasis"], default="auto", metavar="NAME", help=options.EMPHASIS_HELP),
    click.Option(["--wildcards"], default="", metavar="DIR", help="Files that __name__ in prompts is drawn from."),
    click.Option(["--negative"], metavar="TEXT", help="What to avoid; needs --cfg or --nag above 1."),
    click.Option(["--clip-negative"], metavar="TEXT", help="What CLIP reads of it. Default: the same."),
    click.Option(["--cfg"], type=float, default=1.0, help="True guidance, two passes a step; 1 is off."),
    click.Option(["--cfg-interval"], metavar="START:END", help="Shares of the way between which --cfg works: 0:0.8."),
    click.Option(["--nag"], type=float, default=1.0, help="How far from --negative to go, in one pass; 1: off."),
    click.Option(["--nag-tau"], type=float, default=2.5, help="With --nag: the most that a token may grow."),
    click.Option(["--nag-alpha"], type=float, default=0.25, help="With --nag: the share of what it makes."),
    click.Option(["--region", "regions"], metavar="MASK:PROMPT", multiple=True, help=options.REGION_HELP),
    click.Option(["--raw"], is_flag=True, help="Pictures that look less made, where the model has them."),
    click.Option(["--seed"], type=options.Seed(), default=0, show_default=True, help="A whole number, or `random`."),
    click.Option(["--count"], type=int, default=1, show_default=True, help="Pictures, their seeds in a row."),
    click.Option(["--sampler"], metavar="NAME", help=f"{SAMPLERS}; default: the model's own."),
    click.Option(["--schedule"], metavar="NAME", help=f"{SCHEDULES}; default: the model's own."),
    click.Option(["--text-tokens"], type=int, help="Length that T5 prompts are padded to. Default: the model's own."),
    click.Option(["--init"], metavar="IMAGE", help="Start from this picture."),
    click.Option(["--strength"], type=float, help="With --init: 0 keeps it, 1 forgets it. Default: 0.6."),
    click.Option(["--device"], metavar="NAME", help=options.DEVICE_HELP),
    click.Option(["--dtype"], metavar="NAME", help=options.DTYPE_HELP),
    click.Option(["--quant"], metavar="NAME", help=options.QUANT_HELP),
    click.Option(["--quant-t5"], metavar="NAME", help="The same for the T5 encoder."),
    click.Option(["--cache"], metavar="NAME[:LIMIT]", help=options.CACHE_HELP),
    click.Option(["--max-drift"], type=float, help="Guess as many steps as drift no further, as a share: 0.05."),
    click.Option(["--offload"], default="none", metavar="NAME", help=options.OFFLOAD_HELP),
    click.Option(["--parallel"], metavar="NAME", help=options.PARALLEL_HELP),
    click.Option(["--compat"], default="exact", metavar="NAME", help=options.COMPAT_HELP),
    click.Option(["--tiled"], is_flag=True, help="Decode in tiles: less memory."),
    click.Option(["--lora", "loras"], metavar="FILE[:SCALE]", multiple=True, help="An adapter, in any style; repeat."),
    *BESIDE,
    click.Option(["--vae"], metavar="FILE", help="The autoencoder, where the model lacks one."),
    click.Option(["--text-encoder"], metavar="FILE", help="The CLIP encoder, where the model lacks one."),
    click.Option(["--text-encoder-2"], metavar="FILE", help="The T5 encoder, where the model lacks one."),
    click.Option(["--preview"], is_flag=True, help="Show it while it grows: on the terminal, or in NAME.preview.png."),
    click.Option(["--json", "as_json"], is_flag=True, help="One JSON document instead of paths."),
    click.Option(["--quiet"], is_flag=True, help="Nothing on standard error but errors."),
]

command = click.Command(
    "generate",
    params=OPTIONS,
    callback=lambda **given: generate(_plain(Asked(**given))),
    short_help="A picture from words.",
    help=HELP,
)
