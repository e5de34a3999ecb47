"""`fluxone serve`: models behind HTTP, and the API keys that open it."""

from __future__ import annotations

from pathlib import Path

import click

from fluxone.cli import console, options

HELP = """Serve models over HTTP: the BFL API, the OpenAI images API, and a page at /.

\b
fluxone serve
fluxone serve --model dev --model kontext --port 9000
fluxone serve --new-key laptop --folder state       prints a key, which is kept only hashed
fluxone serve --host 0.0.0.0 --folder state         needs a key
"""


def serve(
    host: str | None, port: int | None, model: tuple[str, ...], folder: str | None, config: str | None,
    new_key: str | None, drop_key: str | None, key_credits: float | None, key_rate: int | None, log: str | None,
    engine: str | None, marked: str | None, quiet: bool,
) -> None:  # fmt: skip
    """Serve, or make or drop a key.

    Raises:
        UserError: something that is told is wrong, or the extra `serve` is missing.
    """
    from fluxone.serve import settings as settings_

    settings = settings_.Settings()
    if config is not None:
        settings = settings_.read(Path(config), base=settings)
    told = {"host": host, "port": port, "models": model, "folder": Path(folder) if folder else None}
    told |= {"log": log, "engine": engine}
    from fluxone.serve.run import changed, keys_of
    from fluxone.serve.run import serve as run

    settings = changed(settings, told)
    for name in settings.models:
        options.check_model(name)
    if new_key is not None:
        console.result(keys_of(settings).make(new_key, credits=key_credits, per_minute=key_rate))
        return
    if drop_key is not None:
        keys_of(settings).drop(drop_key)
        return
    if marked is not None:
        console.result(_looked_at(Path(marked), settings.watermark))
        return
    console.listen(quiet=quiet)
    if not quiet:
        console.notice(f"http://{settings.host}:{settings.port} serves {', '.join(settings.models)}; Ctrl-C stops")
    run(settings, quiet=quiet)


def _looked_at(path: Path, key: str) -> str:
    """Whether a picture has the server's watermark, in words.

    Raises:
        BadRequest: there is no key.
        BadFile: there is no picture.
    """
    from PIL import Image

    from fluxone.errors import BadFile, BadRequest
    from fluxone.serve.mark import SURE, agreement

    if not key:
        raise BadRequest("no watermark is set", hint="name the server's settings with --config")
    try:
        with Image.open(path) as image:
            found = agreement(image, key)
    except OSError as error:
        raise BadFile(f"{path} is no picture that can be read: {error}") from error
    return f"{'marked' if found >= SURE else 'not marked'} ({found:.1f}; {SURE:g} or more is)"


OPTIONS: list[click.Parameter] = [
    click.Option(["--host"], metavar="ADDRESS", help="Where to listen. Default: 127.0.0.1, this machine only."),
    click.Option(["--port"], type=click.IntRange(1, 65535), help="Default: 8080."),
    click.Option(["--model"], multiple=True, help="A name, a file or a folder; may be repeated. Default: mini."),
    click.Option(["--engine"], metavar="NAME", help="local (default), or ray: several servers as one."),
    click.Option(["--folder"], metavar="DIR", help="For results and the database. Default: serve."),
    click.Option(["--config"], metavar="FILE.toml", help="All settings; see docs/http.md."),
    click.Option(["--new-key"], metavar="NAME", help="Make an API key, print it, and end."),
    click.Option(["--key-credits"], type=float, metavar="N", help="With --new-key: pictures that it pays for."),
    click.Option(["--key-rate"], type=click.IntRange(1), metavar="N", help="With --new-key: requests a minute."),
    click.Option(["--drop-key"], metavar="NAME", help="Let an API key open nothing any more, and end."),
    click.Option(["--marked"], metavar="IMAGE", help="Say whether a picture has the watermark of --config, and end."),
    click.Option(["--log"], metavar="HOW", help="words (default), or json: a line for every request and job."),
    click.Option(["--quiet"], is_flag=True, help="Nothing on standard error but errors."),
]

command = click.Command(
    "serve", params=OPTIONS, callback=serve, short_help="Models over HTTP, and a page.", help=HELP
)
