"""What the house tests look at: the source files, what they import, and the folder they lie in."""

from __future__ import annotations

import ast
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]
SRC = ROOT / "src" / "fluxone"


@cache
def sources() -> tuple[Path, ...]:
    """Every Python file of the package."""
    return tuple(sorted(SRC.rglob("*.py")))


@cache
def tracked() -> tuple[Path, ...]:
    """Every file that git tracks or would track; in an unpacked archive, every file of the known folders."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"], cwd=ROOT, capture_output=True
    )
    if listed.returncode == 0:
        paths = [ROOT / name for name in listed.stdout.decode().split("\0") if name]
    else:
        paths = [path for name in ("src", "tests", "docs", "recipes", "tools") for path in (ROOT / name).rglob("*")]
    return tuple(path for path in paths if path.is_file())


@cache
def parsed(path: Path) -> ast.Module:
    """The file's syntax tree."""
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


def module(path: Path) -> str:
    """`src/fluxone/nn/rope.py` is `fluxone.nn.rope`; a folder's `__init__` is the folder."""
    parts = path.relative_to(SRC.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(path: Path) -> Iterator[tuple[int, str]]:
    """Line and name of everything imported anywhere in the file, inside functions and for types as well."""
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: imports are absolute"
            base = node.module or ""
            for alias in node.names:
                deeper = f"{base}.{alias.name}"
                yield node.lineno, deeper if is_module(deeper) else base


def is_module(name: str) -> bool:
    """Whether the package has a file or folder of that dotted name."""
    path = SRC.parent.joinpath(*name.split("."))
    return path.with_suffix(".py").is_file() or path.is_dir()


def where(path: Path, line: int) -> str:
    """A clickable place."""
    return f"{path.relative_to(ROOT)}:{line}"
