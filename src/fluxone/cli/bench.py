"""`fluxone bench`: how fast this machine is, beside others, with errors and the machine's own ceilings."""

from __future__ import annotations

import json
from pathlib import Path

import click

from fluxone.cli import console, options
from fluxone.errors import BadRequest, CannotWrite, pick

SUITES = {"quick": "a minute", "full": "some minutes", "blog": "the real networks"}  # a test compares with bench's own
RIVALS = ("diffusers", "openvino", "onnxruntime")  # a test compares these, too


@click.command("bench", short_help="How fast, beside diffusers.")
@click.option("--suite", default="quick", show_default=True, metavar="NAME", help=f"{', '.join(SUITES)}.")
@click.option("--against", metavar="NAME,...", help=f"{', '.join(RIVALS)}: the same weights and inputs, taking turns.")
@click.option("--device", metavar="NAME", help=options.DEVICE_HELP)
@click.option("--rounds", type=int, default=1, show_default=True, help="How often each contestant takes its turn.")
@click.option("--threads", type=int, default=1, show_default=True, help="Of the CPU.")
@click.option("--json", "json_file", metavar="FILE", help="Everything that was measured; - is standard output.")
@click.option("--plot", "plot_file", metavar="FILE", help="Bars, as a picture.")
def command(
    suite: str, against: str | None, device: str | None, rounds: int, threads: int, json_file: str | None,
    plot_file: str | None,
) -> None:  # fmt: skip
    """Contestants take turns on the same inputs: time, spread, share of the machine's own ceiling, error, bytes."""
    console.listen(quiet=False)
    pick(SUITES, suite, "suite")
    rivals = tuple(against.split(",")) if against is not None else ()
    for name in rivals:
        pick(dict.fromkeys(RIVALS), name, "rival")
    for name, number in (("rounds", rounds), ("threads", threads)):
        if number < 1:
            raise BadRequest(f"--{name} is {number}", hint="use a number from 1 on")
    import torch

    from fluxone.assembly import settle
    from fluxone.bench import report
    from fluxone.bench.suites import SUITES as TABLE
    from fluxone.recipe import Recipe

    torch.set_num_threads(threads)
    place = torch.device(str(settle(Recipe(device=device)).device))
    tables = TABLE[suite](place, against=rivals, rounds=rounds)
    if json_file != "-":
        for table in tables:
            console.result(table.name)
            console.table(report.lines(table))
            if table.note:
                console.result(table.note)
            console.result("")
    if json_file is not None:
        whole = report.document(suite, tables, place)
        if json_file == "-":
            console.document(whole)
        else:
            _write(Path(json_file), json.dumps(whole, indent=1))
    if plot_file is not None:
        report.plot(tables, Path(plot_file))


def _write(path: Path, text: str) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n", encoding="utf-8")
    except OSError as error:
        raise CannotWrite(f"{path} cannot be written: {error}", hint="give another path") from None
