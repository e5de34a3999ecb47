"""What every source file keeps to: names asked of the table, sizes, no leftovers."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from fluxone.variants import VARIANTS
from house.tree import ROOT, SRC, module, parsed, sources, tracked, where

LINES = 400
FUNCTION_LINES = 70
TREE_BYTES = 60 * 2**20
BINARY = {".gz", ".png", ".jpg", ".webp", ".safetensors"}
# Spelt apart, so that this file does not find itself.
UNFINISHED = re.compile("|".join(["TO" + "DO", "FIX" + "ME", "XX" + "X", "Not" + "Implemented", r"\bstub\b"]))
MACHINE = re.compile("|".join(r"(?<![\w.~])/" + name + r"\b" for name in ("work", "root", "home", "Users", "tm" + "p")))


@pytest.mark.parametrize("path", sources(), ids=module)
def test_file_keeps_the_rules(path: Path) -> None:
    tree, text = parsed(path), path.read_text(encoding="utf-8")
    faults = []
    if text.count("\n") > LINES:
        faults.append(f"{where(path, 1)}: {text.count(chr(10))} lines, at most {LINES}")
    if tree.body and not ast.get_docstring(tree):
        faults.append(f"{where(path, 1)}: the module says nowhere what it is")
    for number, line in enumerate(text.splitlines(), 1):
        if UNFINISHED.search(line):
            faults.append(f"{where(path, number)}: unfinished: {line.strip()}")
    for node in ast.walk(tree):
        faults += [f"{where(path, node.lineno)}: {fault}" for fault in _node_faults(node, path) if fault]
    assert not faults, "\n".join(faults)


def _node_faults(node: ast.AST, path: Path) -> list[str]:
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        # Without the signature: the public door takes as many arguments as it takes.
        length = (node.end_lineno or node.lineno) - node.body[0].lineno + 1
        public_kwargs = node.args.kwarg is not None and not node.name.startswith("_")
        return [
            f"{node.name} has {length} lines, at most {FUNCTION_LINES}" if length > FUNCTION_LINES else "",
            f"{node.name} takes **{node.args.kwarg.arg}" if public_kwargs and node.args.kwarg else "",
        ]
    if isinstance(node, ast.Compare) and path.name != "variants.py":
        constants = {n.value for n in ast.walk(node) if isinstance(n, ast.Constant) and isinstance(n.value, str)}
        return [f"compares with the variant's name {name!r}: ask its row" for name in sorted(constants & set(VARIANTS))]
    if isinstance(node, ast.Global):
        return ["a global that changes"]
    return []


def test_the_check_sees_a_compared_name() -> None:
    (node,) = [n for n in ast.walk(ast.parse("ok = name in ('schnell', 'x')")) if isinstance(n, ast.Compare)]
    assert _node_faults(node, SRC / "pipeline.py") == ["compares with the variant's name 'schnell': ask its row"]
    assert _node_faults(node, SRC / "variants.py") == []


def test_public_names_are_all_there() -> None:
    import fluxone

    for name in fluxone.__all__:
        assert getattr(fluxone, name).__name__ == name
    assert set(fluxone.__all__) <= set(dir(fluxone))
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = fluxone.nonsense


def test_no_text_names_a_machine() -> None:
    faults = []
    for path in tracked():
        if path.suffix in BINARY or path.is_relative_to(ROOT / "tests"):
            continue
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            if MACHINE.search(line) and not line.startswith("#!"):
                faults.append(f"{where(path, number)}: {line.strip()[:100]}")
    assert not faults, "\n".join(faults)


def test_the_tree_stays_small() -> None:
    sizes = {path.relative_to(ROOT): path.stat().st_size for path in tracked()}
    largest = sorted(sizes.items(), key=lambda row: -row[1])[:5]
    assert sum(sizes.values()) < TREE_BYTES, f"largest: {largest}"
