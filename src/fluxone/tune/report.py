"""The report of a run as one HTML file that needs no other: grids, curves, pictures, settings, hashes, proof."""

from __future__ import annotations

import base64
import io
import secrets
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image, ImageDraw

from fluxone import __version__
from fluxone.lines import read_lines
from fluxone.tune.beside import numbers
from fluxone.tune.chart import Line, chart
from fluxone.tune.folder import digest
from fluxone.tune.learner import BINS
from fluxone.tune.lint import contact_sheet
from fluxone.tune.logo import FOUND, Sighting, right
from fluxone.tune.looks import Look
from fluxone.tune.palette import Palette, palette
from fluxone.tune.trainer import LOG

if TYPE_CHECKING:
    from fluxone.tune.workflow import Outcome

NAME = "report.html"
THUMB = 128  # px
ROWS = 8  # prompts of a grid
SMOOTH = 25  # steps that a point of a curve is the mean of
STYLE = """
body{font:15px/1.45 system-ui,sans-serif;color:#1d2330;background:#fff;margin:2rem auto;max-width:76rem;padding:0 1rem}
h1{font-size:1.6rem;margin:0 0 .3rem}h2{font-size:1.15rem;margin:2rem 0 .6rem}
table{border-collapse:collapse}td,th{padding:.25rem .6rem;text-align:left;vertical-align:top}
th{font-weight:600;color:#475067}tr.chosen td{background:#e7f5ea}.grid td{padding:2px}
.grid img{width:8rem;display:block;border-radius:3px}.scroll{overflow-x:auto}
.figures{display:flex;gap:1.6rem;flex-wrap:wrap;margin:.8rem 0}.figures b{display:block;font-size:1.5rem}
.warning{color:#8a5a00}.note{color:#59627a}.swatch{display:inline-block;width:2.2rem;height:2.2rem;border-radius:4px}
code{font-size:.85em;word-break:break-all}
"""


def write_report(outcome: Outcome, references: Palette) -> Path:
    """Write `report.html` into the run's folder, whole or not at all."""
    path = outcome.plan.wish.out / NAME
    part = path.with_name(f"{NAME}.{secrets.token_hex(4)}.part")
    part.write_text(page(outcome, references), encoding="utf-8")
    part.replace(path)
    return path


def page(outcome: Outcome, references: Palette) -> str:
    """The whole document."""
    plan = outcome.plan
    body = [
        f"<h1>{escape(plan.title)}</h1>",
        f"<p class=note>{escape(plan.wish.what)} on {escape(plan.wish.model)}, fluxone {__version__}</p>",
        _figures(outcome),
        "<h2>Pictures by checkpoint</h2>",
        _grid(outcome, [look for look in _all(outcome) if look.strength in (0, 1)]),
        "<h2>The chosen checkpoint by strength</h2>",
        _grid(outcome, sorted((one for one in outcome.looks if one.step == outcome.choice.look.step),
                              key=lambda one: one.strength)),
        "<h2>What was measured</h2>",
        _looks(outcome),
        "<h2>Loss</h2>",
        _curves(outcome),
        "<h2>Colours</h2>",
        _colours(outcome, references),
        _words(outcome),
        _logo(outcome),
        "<h2>Pictures that were learnt from</h2>",
        _dataset(outcome),
        "<h2>Settings, and why</h2>",
        _settings(outcome),
        "<h2>Files</h2>",
        _files(outcome),
    ]  # fmt: skip
    head = f"<meta charset=utf-8><meta name=viewport content='width=device-width'><title>{escape(plan.title)}</title>"
    return (
        f"<!doctype html><html lang=en><head>{head}<style>{STYLE}</style></head><body>{''.join(body)}</body></html>\n"
    )


def _all(outcome: Outcome) -> list[Look]:
    """The base first."""
    base = [Look(**{**row, "pictures": tuple(row["pictures"])}) for row in outcome.notes if row["step"] == 0]
    return [*base, *outcome.looks]


def _figures(outcome: Outcome) -> str:
    look, base = outcome.choice.look, next((one for one in _all(outcome) if one.step == 0), None)
    before = "" if base is None else f" <span class=note>(base {base.identity:.0%})</span>"
    rows = {
        "identity": f"{look.identity:.0%}{before}",
        "copies": f"{look.copied:.0%}",
        "leak": f"{look.leak:.0%}",
        "drift elsewhere": f"{look.drift:.0%}",
        "colour difference": f"{look.palette:.1f}",
        "steps": f"{look.step}",
        "strength": f"{look.strength:g}",
        "training": f"{outcome.seconds / 60:.1f} min",
    }
    cells = "".join(f"<div><b>{value}</b>{escape(name)}</div>" for name, value in rows.items())
    told = f"<div class=figures>{cells}</div><p>Chosen for {escape(outcome.choice.reason)}.</p>"
    if not outcome.told:
        told += "<p class=warning>The base draws these prompts much like the references: identity says little here.</p>"
    alarm = "<p class=warning>Copy alarm: pictures of prompts that were not trained on repeat training pictures.</p>"
    return told + (alarm if look.copied > 0.1 else "")


def _grid(outcome: Outcome, looks: Sequence[Look]) -> str:
    prompts = outcome.prompts.named[:ROWS]
    head = "".join(f"<th>{_title(look, outcome)}</th>" for look in looks)
    rows = []
    for i, prompt in enumerate(prompts):
        cells = "".join(f"<td>{_picture(outcome.plan.wish.out, look, i)}</td>" for look in looks)
        rows.append(f"<tr><td>{escape(prompt)}</td>{cells}</tr>")
    return f"<div class=scroll><table class=grid><tr><th></th>{head}</tr>{''.join(rows)}</table></div>"


def _title(look: Look, outcome: Outcome) -> str:
    if look.step == 0:
        return "base"
    mark = " ✓" if look == outcome.choice.look else ""
    return f"{look.step}{'' if look.strength == 1 else f' × {look.strength:g}'}{mark}"


def _picture(out: Path, look: Look, number: int) -> str:
    if number >= len(look.pictures) or not (out / look.pictures[number]).is_file():
        return ""
    with Image.open(out / look.pictures[number]) as file:
        return embedded(file.convert("RGB"), f"step {look.step}")


def embedded(picture: Image.Image, what: str, side: int | None = THUMB) -> str:
    """An `img` that holds its picture."""
    if side is not None and max(picture.size) > 2 * side:
        picture = picture.copy()
        picture.thumbnail((2 * side, 2 * side))
    data = io.BytesIO()
    picture.save(data, format="WEBP", quality=88)
    return f"<img alt='{escape(what)}' src='data:image/webp;base64,{base64.b64encode(data.getvalue()).decode()}'>"


def _looks(outcome: Outcome) -> str:
    names = ("step", "strength", "identity", "copied", "leak", "drift", "palette", "held")
    rows = []
    for look in _all(outcome):
        values = [f"{look.step}", f"{look.strength:g}"]
        values += [f"{getattr(look, name):.0%}" for name in names[2:6]] + [f"{look.palette:.1f}", f"{look.held:.4f}"]
        mark = " class=chosen" if look == outcome.choice.look else ""
        rows.append(f"<tr{mark}>{''.join(f'<td>{value}</td>' for value in values)}</tr>")
    note = (
        "Identity: likeness to the references in what recurs in them, 0 the base, 100 % another reference. Leak: "
        "identity of the same prompts without the name, more than the base's. Drift: how far other prompts' pictures "
        "moved, against how far two seeds are apart. Palette: CIEDE2000 of main colours. Held: the loss held out."
    )
    head = "".join(f"<th>{name}</th>" for name in names)
    return f"<table><tr>{head}</tr>{''.join(rows)}</table><p class=note>{note}</p>"


def _curves(outcome: Outcome) -> str:
    rows = read_lines(outcome.plan.wish.out / "state" / LOG)
    if not rows:
        return "<p class=note>no log</p>"
    lines = [Line(name="all", points=_smoothed(rows, lambda row: row["loss"]), wide=True)]
    for k in range(BINS):
        points = _smoothed(rows, lambda row, k=k: row["sigmas"][k])
        lines.append(Line(name=f"σ {k / BINS:.2f}-{(k + 1) / BINS:.2f}", points=points))
    held = [(look.step, look.held) for look in _all(outcome) if look.strength in (0, 1) and look.held]
    lines.append(Line(name="held out", points=held, dots=True))
    return chart(lines, x="step", y="loss (log)", log=True) + f"<p class=note>from state/{LOG}</p>"


def _smoothed(rows: Sequence[Mapping[str, Any]], value: Any) -> list[tuple[float, float]]:
    found = [(row["step"], value(row)) for row in rows if value(row) is not None]
    wide = max(1, min(SMOOTH, len(found) // 8))
    groups = [found[i : i + wide] for i in range(0, len(found), wide)]
    return [(sum(s for s, _ in g) / len(g), sum(v for _, v in g) / len(g)) for g in groups]


def _colours(outcome: Outcome, references: Palette) -> str:
    def row(name: str, found: Palette) -> str:
        pairs = zip(found.hexes(), found.shares, strict=True)
        cells = "".join(f"<td><span class=swatch style='background:{c}'></span><br>{s:.0%}</td>" for c, s in pairs)
        return f"<tr><th>{name}</th>{cells}</tr>"

    pictures = []
    for name in outcome.choice.look.pictures:
        with Image.open(outcome.plan.wish.out / name) as file:
            pictures.append(file.convert("RGB"))
    drawn = row("drawn", palette(pictures)) if pictures else ""
    return f"<table>{row('references', references)}{drawn}</table>"


def _words(outcome: Outcome) -> str:
    """What is written on the references, and on what is drawn."""
    rows = [
        f"<tr><td>{escape(one.word)}</td><td>{one.references:.0%}</td><td>{one.base:.0%}</td><td>{one.drawn:.0%}</td></tr>"
        for one in outcome.words
    ]
    head = "<tr><th>word</th><th>references</th><th>base</th><th>chosen</th></tr>"
    return f"<h2>Words on the pictures, by OCR</h2><table>{head}{''.join(rows)}</table>" if rows else ""


def _logo(outcome: Outcome) -> str:
    """How often the logo is there, and where on each picture it is likeliest."""
    check = outcome.logo
    if check is None:
        return ""
    rows = {"references": check.references, "base": check.base, "chosen": check.drawn}
    cells = "".join(
        f"<tr><td>{name}</td><td>{right(found):.0%}</td><td>{len(found)}</td>"
        f"<td>{max((one.score for one in found), default=0):.2f}</td></tr>"
        for name, found in rows.items()
    )
    shown = []
    for name, one in zip(outcome.choice.look.pictures, check.drawn, strict=True):
        with Image.open(outcome.plan.wish.out / name) as file:
            picture = framed(file.convert("RGB"), one)
        told = f"{one.score:.2f}{' ✓' if one.found else ''}"
        shown.append(f"<td>{embedded(picture, 'where the logo is likeliest')}<br>{told}</td>")
    note = (
        f"Looked for upright and undistorted at many sizes; 1 is the very same, from {FOUND:g} on it is called right. "
        "Green frames are right, red ones the likeliest place of none."
    )
    head = "<tr><th></th><th>right</th><th>pictures</th><th>nearest</th></tr>"
    return (
        f"<h2>The logo</h2>{embedded(check.logo.picture, check.logo.name, 64)}<table>{head}{cells}</table>"
        f"<div class=scroll><table class=grid><tr>{''.join(shown)}</tr></table></div><p class=note>{note}</p>"
    )


def framed(picture: Image.Image, one: Sighting) -> Image.Image:
    """A picture with a frame where the logo is likeliest."""
    if one.score > 0:
        colour = "#00b050" if one.found else "#d02020"
        ImageDraw.Draw(picture).rectangle(one.box, outline=colour, width=max(1, max(picture.size) // 96))
    return picture


def _dataset(outcome: Outcome) -> str:
    plan = outcome.plan
    told = f"{len(plan.trained)} trained on, {len(plan.held)} held out (never trained on, last on the sheet)."
    sheet = embedded(contact_sheet([*plan.trained, *plan.held], outcome.findings), "contact sheet", None)
    rows = "".join(f"<li class={f.level}>{escape(str(f))}</li>" for f in outcome.findings) or "<li>nothing to say</li>"
    return f"<p>{told}</p>{sheet}<ul>{rows}</ul>"


def _settings(outcome: Outcome) -> str:
    reasons = {reason.name: reason for reason in outcome.plan.reasons}
    told = outcome.plan.settings.told()
    more = {name: reason.value for name, reason in reasons.items() if name not in told}
    rows = "".join(
        f"<tr><td>{escape(name)}</td><td>{escape(str(value))}</td>"
        f"<td>{escape(reasons[name].why) if name in reasons else ''}</td></tr>"
        for name, value in {**told, **more}.items()
    )
    learnt = numbers(outcome.plan.deltas)
    return (
        f"<table><tr><th>setting</th><th>value</th><th>why</th></tr>{rows}</table>"
        f"<p class=note>{learnt:,} numbers learnt; effective scale {outcome.plan.settings.scale:g}; estimated memory "
        f"{escape(str(outcome.plan.memory))}.</p>"
    )


def _files(outcome: Outcome) -> str:
    plan = outcome.plan
    rows = [f"<tr><td>{w.path.name}</td><td>{w.style}</td><td><code>{digest(w.path)}</code></td></tr>"
            for w in outcome.written]  # fmt: skip
    rows += [f"<tr><td>{escape(part)}</td><td>base</td><td><code>{escape(value)}</code></td></tr>"
             for part, value in plan.pipeline.bundle.hashes.items()]  # fmt: skip
    rows.append(f"<tr><td>pictures and captions</td><td>data</td><td><code>{plan.data}</code></td></tr>")
    proof = outcome.proof
    held = "the same pictures" if proof.holds else "NOT the same pictures"
    told = (
        f"Reloaded and drawn with: {held} as in training, {proof.mean:.2f} of 255 apart on average, {proof.most:.0f} "
        f"at most; the two files are {proof.styles_apart:.2f} apart."
    )
    return f"<table>{''.join(rows)}</table><p>{told}</p>"
