"""`python -m fluxone` is the command `fluxone`."""

from __future__ import annotations

from fluxone.cli import main

if __name__ == "__main__":
    main()
