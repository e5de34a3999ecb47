"""The group of commands, and the one place where errors become exit codes.

    0  done        2  the user's mistake        1  our failure        130  interrupted        143  terminated

An error is one line on standard error; `FLUXONE_DEBUG=1` adds the traceback.
"""

from __future__ import annotations

import atexit
import errno
import os
import signal
import sys
import traceback
from collections.abc import Sequence
from importlib import import_module
from types import TracebackType
from typing import NoReturn

import click

from fluxone import __version__
from fluxone.cli import console
from fluxone.errors import FluxoneError, UserError, pick

COMMANDS = {
    "generate": "fluxone.cli.generate",
    "ultra": "fluxone.cli.ultra",
    "edit": "fluxone.cli.edit",
    "fill": "fluxone.cli.fill",
    "expand": "fluxone.cli.expand",
    "control": "fluxone.cli.control",
    "vary": "fluxone.cli.vary",
    "models": "fluxone.cli.models",
    "lora": "fluxone.cli.lora",
    "replay": "fluxone.cli.replay",
    "plan": "fluxone.cli.plan",
    "bench": "fluxone.cli.bench",
    "serve": "fluxone.cli.serve",
    "train": "fluxone.cli.train",
    "distill": "fluxone.cli.distill",
    "evaluate": "fluxone.cli.evaluate",
}

NO_MEMORY = "can't allocate memory"  # how torch says it of the CPU
DONE, FAILED, MISTAKE, INTERRUPTED, TERMINATED = 0, 1, 2, 130, 143


class Commands(click.Group):
    """A group whose commands are imported when they are named."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The names, in the table's order."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command:
        """The `command` of the module that the table names.

        Raises:
            UnknownName: the table has no such row.
        """
        command = import_module(pick(COMMANDS, cmd_name, "command")).command
        assert isinstance(command, click.Command)
        return command


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="fluxone", message="%(prog)s %(version)s")
def fluxone() -> None:
    """FLUX.1 on the command line: results on standard output, everything else on standard error."""


def main() -> NoReturn:
    """Run the command that `sys.argv` names, and exit with its code."""
    sys.excepthook = _unexpected
    signal.signal(signal.SIGTERM, _terminated)
    code = run(sys.argv[1:])
    if "RANK" in os.environ:
        _leave(code)
    sys.exit(code)


def run(arguments: Sequence[str]) -> int:
    """The exit code of one command line; errors that are nobody's purpose pass through."""
    try:
        code = fluxone.main(args=list(arguments), prog_name="fluxone", standalone_mode=False)
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message(), err=True)
        return MISTAKE
    except click.ClickException as error:
        return _failed(_usage(error), MISTAKE)
    except (KeyboardInterrupt, click.Abort):
        console.notice("interrupted")
        return INTERRUPTED
    except UserError as error:
        return _failed(str(error), MISTAKE)
    except FluxoneError as error:
        return _failed(str(error), FAILED)
    except OSError as error:
        if error.errno != errno.ENAMETOOLONG:
            raise
        return _failed(f"the name {str(error.filename)[:40]!r}... is too long for a file; use a shorter one", MISTAKE)
    return code if isinstance(code, int) else DONE


def _leave(code: int) -> NoReturn:
    """End one of the processes that torchrun started. Gloo's threads live as long as anything holds their group, and
    one that frees a tensor while the interpreter is taken down aborts the process: so it is not taken down."""
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _usage(error: click.ClickException) -> str:
    context = getattr(error, "ctx", None)
    path = context.command_path if context is not None else "fluxone"
    message = error.format_message().rstrip(".")
    return f"{message[:1].lower()}{message[1:]}; see {path} --help"


def _failed(message: str, code: int) -> int:
    if console.debugging():
        traceback.print_exc()
    console.error(message)
    return code


def _unexpected(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """The last word on an error that nothing foresaw. Python exits with 1 after it."""
    if console.debugging():
        traceback.print_exception(kind, error, trace)
    if "OutOfMemory" in kind.__name__ or kind is MemoryError or NO_MEMORY in str(error):
        console.error("there is not enough memory for this; use a smaller --size, --tiled, or --offload block")
    else:
        console.error(f"unexpected {kind.__name__}: {error}; FLUXONE_DEBUG=1 shows where, please report it")


def _terminated(number: int, frame: object) -> NoReturn:
    sys.exit(TERMINATED)
