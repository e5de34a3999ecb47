"""Contestants take turns and are held to their errors; floors, documents, plots; the command; the GPU's script."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from fluxone.bench import ceilings, report, suites
from fluxone.bench.measure import Row, Way, take_turns
from fluxone.bench.nets import SIGMAS, Case, Given, ours, theirs, weights
from fluxone.bench.rivals import RIVALS
from fluxone.bench.suites import Table, mini_table, step_table
from fluxone.cli import bench as command
from fluxone.cli.main import run
from fluxone.shapes import FluxShape

CPU = torch.device("cpu")
TINY = Case(
    name="tiny", grid=(2, 3), text=4,
    shape=FluxShape(hidden=64, heads=2, axes=(8, 12, 12), double_blocks=1, single_blocks=1, text_dim=24, vec_dim=16),
)  # fmt: skip


def test_contestants_take_turns_and_errors_count() -> None:
    order: list[str] = []

    def way(name: str, off: float, limit: float | None) -> Way:
        def step(level: int) -> Tensor:
            order.append(name)
            return torch.full((4,), 1.0 + off)

        return Way(name=name, step=step, limit=limit)

    rows = take_turns([way("a", 0, None), way("b", 0.1, 0.2), way("c", 0.5, 0.2)], CPU, rounds=2, levels=2)
    assert "".join(order) == "aabbcc" + "abc" * 4, "two for warmth, then in turns"
    assert [row.valid for row in rows] == [True, True, False]
    assert rows[2].error == pytest.approx(0.5) and len(rows[2].seconds) == 4


def test_a_ratio_is_taken_turn_by_turn() -> None:
    base, own = Row(name="a", seconds=[1.0, 2.0, 4.0]), Row(name="b", seconds=[0.5, 1.0, 2.0])
    assert own.ratio(base) == (0.5, 0.5, 0.5)


def test_both_networks_compute_the_same() -> None:
    state = weights(TINY, CPU, torch.float32)
    given, model = Given.of(TINY, CPU, torch.float32), ours(TINY, state)
    modulation = given.modulation(model)
    with torch.inference_mode():
        one, other = given.step(model, modulation, 2), given.their_step(theirs(TINY, state), 2)
    torch.testing.assert_close(one, other, rtol=0, atol=1e-4)
    assert len(given.img) == len(SIGMAS)


def test_a_table_has_floors_errors_and_invalid_rows(tmp_path: Path) -> None:
    kinds = ((None, "float32"), ("int8-dynamic", "float32"))
    table = step_table(TINY, CPU, kinds, rounds=1, levels=1)
    assert {"float32", "bfloat16", "int8"} <= table.floor.keys()
    assert all(seconds > 0 for seconds in table.floor.values())
    table.rows[1].limit = 1e-9
    head, plain, packed = report.lines(table)
    assert head[0] == "" and plain[0] == "plain, float32" and packed[0] == "int8-dynamic, float32 INVALID"
    assert plain[4].endswith("%") and float(packed[5]) > 0 and int(packed[6]) >= 0
    whole = json.loads(json.dumps(report.document("quick", [table], CPU)))
    assert [row["valid"] for row in whole["tables"][0]["rows"]] == [True, False]
    report.plot([table, replace(table, name="again")], tmp_path / "x.png")
    assert (tmp_path / "x.png").stat().st_size > 1000


def test_a_rival_that_fails_is_invalid_and_the_others_run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def broken(*given: object) -> Way:
        raise RuntimeError("it does not run here")

    monkeypatch.setitem(suites.RIVALS, "openvino", (broken, (torch.float32,)))
    kinds = ((None, "float32"),)
    table = step_table(TINY, CPU, kinds, rounds=1, levels=1, against=("openvino", "diffusers"))
    names = [line[0] for line in report.lines(table)[1:]]
    diffusers = ["diffusers eager, float32", "diffusers eager, bfloat16"]
    assert names == ["plain, float32", *diffusers, "openvino, float32 INVALID"] and table.base == diffusers[1]
    whole = json.loads(json.dumps(report.document("quick", [table], CPU), allow_nan=False))
    assert whole["tables"][0]["rows"][-1]["valid"] is False
    report.plot([table], tmp_path / "x.png")


@pytest.mark.parametrize(("name", "package"), [("openvino", "openvino"), ("onnxruntime", "onnxscript")])
def test_compilers_of_others_give_the_same(name: str, package: str) -> None:
    pytest.importorskip(package)
    table = step_table(TINY, CPU, ((None, "float32"),), rounds=1, levels=2, against=(name,))
    assert len(table.rows) > 1 and all(row.valid and row.errors for row in table.rows), report.lines(table)


def test_the_mini_from_words_to_pixels() -> None:
    table = mini_table(CPU, rounds=1)
    assert [row.name for row in table.rows] == ["float32", "packed", "taylor:2"]
    assert table.rows[0].errors == [0] and table.rows[1].errors[0] < 1e-3 < table.rows[2].errors[0] < 0.5


def test_ceilings_are_above_nothing() -> None:
    assert set(ceilings.products(TINY, CPU, torch.bfloat16)) == {"bfloat16", "int8"}
    assert "sdpa" in ceilings.attentions(TINY, CPU, torch.float32) and ceilings.copies(CPU) > 1e8


def test_the_command_writes_what_it_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert list(command.SUITES) == list(suites.SUITES) and tuple(RIVALS) == command.RIVALS
    rows = [Row(name="a", seconds=[0.001], errors=[0.0]), Row(name="b", seconds=[0.002], errors=[0.1])]
    made = Table(name="a table", rows=rows, base="a", note="a note")
    monkeypatch.setitem(suites.SUITES, "quick", lambda device, *, against, rounds: [made])
    out = tmp_path / "new" / "bench.json"
    assert run(["bench", "--device", "cpu", "--json", str(out)]) == 0
    assert json.loads(out.read_text())["tables"][0]["rows"][1]["median"] == 0.002
    text = capsys.readouterr().out
    assert "a table" in text and "a note" in text and "2.00" in text
    assert run(["bench", "--device", "cpu", "--json", "-"]) == 0
    assert json.loads(capsys.readouterr().out)["suite"] == "quick"
    assert run(["bench", "--suite", "quik"]) == run(["bench", "--against", "x"]) == run(["bench", "--rounds", "0"]) == 2


def test_the_blog_suite_plans_on_a_processor(monkeypatch: pytest.MonkeyPatch) -> None:
    from unit.test_plan import CPU as PROCESSOR

    monkeypatch.setattr(suites, "here", lambda device: PROCESSOR)
    schnell, dev = suites.blog(CPU, against=(), rounds=1)
    assert schnell.name.startswith("schnell, 4 steps") and "planned" in schnell.rows[0].name
    assert [row.seconds for row in dev.rows[1:]] == [[12.4], [4.2]] and dev.rows[0].peak < 24e9
