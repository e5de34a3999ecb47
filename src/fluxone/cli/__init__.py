"""The command line: one file a command, one row of `COMMANDS` each, loaded when asked for.

Nothing here imports torch, numpy or PIL before a command really runs: `fluxone --help` answers at once.
"""

from __future__ import annotations

from fluxone.cli.main import COMMANDS as COMMANDS
from fluxone.cli.main import main as main
