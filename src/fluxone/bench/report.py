"""Tables, a document and a plot of what was measured."""

from __future__ import annotations

import platform
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from fluxone import __version__
from fluxone.bench.measure import Row
from fluxone.bench.suites import Table
from fluxone.errors import CannotWrite, MissingExtra

HEAD = ("", "ms", "10-90 %", "of base", "of floor", "error", "MB")


def lines(table: Table) -> list[tuple[str, ...]]:
    """A table's rows in words; the first is its head."""
    base = next((row for row in table.rows if row.name == table.base), None)
    return [HEAD, *(_line(row, base, table.floor) for row in table.rows)]


def _line(row: Row, base: Row | None, floor: dict[str, float]) -> tuple[str, ...]:
    if row.failed:
        return (f"{row.name} INVALID", *[""] * (len(HEAD) - 1))
    times = sorted(row.seconds)
    low, high = times[len(times) // 10], times[-len(times) // 10 - 1 if len(times) > 9 else -1]
    ratio = "" if base is None or len(base.seconds) != len(row.seconds) else f"{row.ratio(base)[0]:.2f}"
    least = _floor(row, floor)
    size = row.peak or row.weights
    return (
        row.name if row.valid else f"{row.name} INVALID",
        f"{1000 * row.median:.1f}",
        f"{1000 * low:.1f}-{1000 * high:.1f}",
        ratio,
        "" if least is None else f"{least / row.median:.0%}",
        f"{row.error:.1e}" if row.errors else "",
        f"{size / 1e6:.0f}" if size else "",
    )


def _floor(row: Row, floor: dict[str, float]) -> float | None:
    """The floor of what a row multiplies: int8 and fp8 where tokens are too, else its type."""
    words = row.name.replace("-dynamic", "").split(", ")
    narrow = "-dynamic" in row.name
    return next((floor[word] for word in words if word in floor and (narrow or word not in ("int8", "fp8"))), None)


def document(suite: str, tables: Sequence[Table], device: torch.device) -> dict[str, Any]:
    """Everything, as JSON can hold it."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else _processor()
    return {
        "fluxone": __version__, "suite": suite, "date": time.strftime("%Y-%m-%d"), "device": name,
        "torch": torch.__version__, "threads": torch.get_num_threads(),
        "tables": [
            {
                "name": table.name, "base": table.base, "floor": table.floor, "note": table.note,
                "rows": [
                    {
                        "name": row.name, "seconds": row.seconds, "median": row.median if row.seconds else None,
                        "error": row.error,
                        "limit": row.limit, "valid": row.valid, "weights": row.weights, "peak": row.peak,
                    }
                    for row in table.rows
                ],
            }
            for table in tables
        ],
    }  # fmt: skip


def _processor() -> str:
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in text.splitlines() if "model name" in line), "a processor")


def plot(tables: Sequence[Table], path: Path) -> None:
    """Bars of the medians, a panel a table.

    Raises:
        MissingExtra: matplotlib is not installed.
        CannotWrite: the file cannot be written.
    """
    try:
        import matplotlib

        matplotlib.use("Agg")
        from matplotlib import pyplot
    except ImportError:
        raise MissingExtra("train", "plots need matplotlib") from None
    count = max(len(table.rows) for table in tables)
    figure, panels = pyplot.subplots(1, len(tables), figsize=(7 * len(tables), 1 + 0.5 * count), squeeze=False)
    for panel, table in zip(panels[0], tables, strict=True):
        rows = [row for row in table.rows if row.seconds]
        names = [row.name if row.valid else f"{row.name} (invalid)" for row in rows]
        panel.barh(names, [1000 * row.median for row in rows], color="#4a7ba6")
        panel.invert_yaxis()
        panel.set_title(table.name, fontsize=10)
        panel.set_xlabel("ms")
    figure.tight_layout()
    try:
        figure.savefig(path)
    except OSError as error:
        raise CannotWrite(f"{path} cannot be written: {error}", hint="give another path") from None
    finally:
        pyplot.close(figure)
