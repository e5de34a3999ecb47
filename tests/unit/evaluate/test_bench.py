"""A tiny model asked with all that suites give: pictures drawn together are those drawn alone, and drawn once."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("resvg_py", reason="the storybook extra is not installed")
pytest.importorskip("cv2", reason="the control extra is not installed")

from fluxone.evaluate.bench import Bench
from fluxone.evaluate.judge import shipped
from fluxone.evaluate.suites import SUITES
from fluxone.storybook import WORLDS
from fluxone.variants import Kind
from unit.conditions.test_pipeline import row
from unit.tiny import pipeline

FULL = WORLDS["full"]
TAKEN = {
    "objects": None,
    "edits": Kind.REFERENCE,
    "together": Kind.REFERENCE,
    "given-pose": Kind.REFERENCE,
    "fill": Kind.FILL,
    "canny": Kind.CONTROL,
    "depth": Kind.CONTROL,
}


@pytest.mark.parametrize(("name", "kind"), TAKEN.items())
def test_pictures_drawn_together_are_those_drawn_alone(name: str, kind: Kind | None, tmp_path: Path) -> None:
    pipe = pipeline(tmp_path, row(kind))
    asked = SUITES[name].find(SUITES[name].search, FULL, 2)[:2]
    asked = [replace(prompt, text="a red car") for prompt in asked]
    bench = Bench(pipeline=pipe, world=FULL, judge=shipped())
    together = bench.draw(asked, 2)
    assert len(bench.drawn) == 4
    assert bench.draw(asked, 2) == together and len(bench.drawn) == 4, "each is drawn once"
    alone = replace(bench, batch=1, drawn={}).draw(asked, 2)
    for row_a, row_b in zip(together, alone, strict=True):
        for a, b in zip(row_a, row_b, strict=True):
            assert a.image.size == (32, 32)
            assert np.abs(np.asarray(a.image, int) - np.asarray(b.image, int)).max() <= 1
            assert a.bend == pytest.approx(b.bend, rel=1e-3, abs=1e-5)
    assert not np.array_equal(np.asarray(together[0][0].image), np.asarray(together[0][1].image)), "seeds differ"
    if kind is not None:
        assert not np.array_equal(np.asarray(together[0][0].image), np.asarray(together[1][0].image)), "pictures differ"
