"""`fluxone train character FOLDER`: two files, their proof, a report; killed at any time, it goes on and ends equal."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image, ImageDraw

from fluxone.lora.load import load_lora
from fluxone.weights.safetensors import read_header

SHORT = ("--steps", "6", "--size", "32", "--rank", "2", "--set", "looks=2", "--set", "look_steps=1", "--set", "batch=2")


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    place = tmp_path / "zuri pictures"
    place.mkdir()
    for i in range(6):
        image = Image.new("RGB", (40, 40), (40 * i, 255 - 40 * i, 120))
        pen = ImageDraw.Draw(image)
        pen.ellipse((4 + 3 * i, 8, 20 + 3 * i, 24), fill="purple")
        pen.line((0, 5 * i, 39, 39 - 5 * i), fill="white", width=2)
        image.save(place / f"{i}.png")
        (place / f"{i}.txt").write_text(f"zuri in place {'abcdef'[i]}", encoding="utf-8")
    return place


def test_a_character(fluxone: Callable[..., object], tiny: Path, pictures: Path, tmp_path: Path) -> None:
    first = (*SHORT, "-o", "out", "--offload", "disk")  # blocks come and go, on the way there and back
    logo = tmp_path / "logo.png"
    Image.linear_gradient("L").resize((24, 24)).convert("RGB").save(logo)
    done = fluxone("train", "character", pictures, "--model", tiny, "--name", "zuri", "--logo", logo, *first)
    assert "the logo is on" in done.stderr  # type: ignore[attr-defined]
    lines = done.stdout.splitlines()  # type: ignore[attr-defined]
    assert lines == ["out/zuri.safetensors", "out/zuri-kohya.safetensors", "out/report.html"]
    assert {load_lora(name).format for name in lines[:2]} == {"diffusers", "kohya"}
    told = read_header(Path(lines[0])).metadata
    assert told["modelspec.trigger_phrase"] == "zuri" and json.loads(told["fluxone.settings"])["rank"] == 2
    report = (tmp_path / "out" / "report.html").read_text("utf-8")
    proof = ("the same pictures as in training", "5 trained on, 1 held out", "data:image/webp", "as you asked")
    for words in (*proof, "The logo"):
        assert words in report, words
    assert "http://" not in report.replace("http://www.w3.org", "") and "https://" not in report
    fluxone("generate", "zuri in place a", "--model", tiny, "--lora", lines[1], "--steps", "1", "--size", "32x32")
    again = fluxone("train", "character", pictures, "--model", tiny, "--name", "zuri", *SHORT, "-o", "out")
    assert "going on at step 6 of 6" in again.stderr  # type: ignore[attr-defined]


def test_a_dry_run_says_what_would_be_done(
    fluxone: Callable[..., object], tiny: Path, pictures: Path, tmp_path: Path
) -> None:
    more = ("--kind", "lokr", "--vram", "0.5", "--dry-run")
    done = fluxone("train", "style", pictures, "--model", tiny, *SHORT, *more)
    text = done.stdout  # type: ignore[attr-defined]
    assert "of 3 blocks so many come" in text and "may be too little" in text
    for words in ("5 pictures are trained on, 1 held out", "memory: about", "lokr beside", "6 steps of 2", "runs/zuri"):
        assert words in text, words
    assert not (tmp_path / "runs").exists()


def test_captions_for_pictures_that_have_none(fluxone: Callable[..., object], pictures: Path, tmp_path: Path) -> None:
    pytest.importorskip("resvg_py", reason="the storybook extra is not installed")
    (pictures / "2.txt").unlink()
    line = ("train", "captions", pictures, "--name", "zuri")
    table = fluxone(*line, "--dry-run").stdout.splitlines()  # type: ignore[attr-defined]
    assert len(table) == 7 and table[3].split()[:2] == ["2.png", "new"] and "zuri" in table[3]
    assert not (pictures / "2.txt").exists()
    done = fluxone(*line)
    assert done.stdout.split() == str(pictures / "2.txt").split() and "5 captions" in done.stderr  # type: ignore[attr-defined]
    assert "zuri" in (pictures / "2.txt").read_text("utf-8")
    assert (pictures / "1.txt").read_text("utf-8") == "zuri in place b"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("character",), "has no folder"),
        (("captions",), "has no folder"),
        (("captions", "zuri pictures", "--force", "--reader", "nowhere"), "there is no folder nowhere"),
        (("style", "zuri pictures", "--force"), "belong to train captions"),
        (("character", "nowhere"), "there is no folder nowhere"),
        (("character", ".", "--name", "a"), "holds no pictures"),
        (("charakter", "pictures"), "is nothing that can be trained"),
        (("style", "zuri pictures", "--set", "ranks=3"), "no setting 'ranks'"),
        (("style", "zuri pictures", "--rank", "0"), "rank is 0"),
        (("style", "zuri pictures", "--optimizer", "adam"), "did you mean 'adamw'"),
        (("style", "zuri pictures", "--targets", "blocks,nonsense"), "no layer is chosen by 'nonsense'"),
        (("character", "zuri pictures", "--preserve", "class"), "give --name and --class"),
        (("character", "zuri pictures", "--set", "swap=-1"), "swap is -1"),
        (("character", "zuri pictures", "--quant", "int8-dynamic"), "nothing can be learnt beside int8-dynamic"),
    ],
)
def test_mistakes(
    arguments: tuple[str, ...], said: str, fluxone: Callable[..., object], tiny: Path, pictures: Path, tmp_path: Path
) -> None:
    place = tmp_path / "empty"
    place.mkdir()
    (place / "zuri pictures").symlink_to(pictures) if arguments[1:2] == ("zuri pictures",) else None
    os.chdir(place)
    done = fluxone("train", *arguments, "--model", tiny, code=2)
    assert said in done.stderr and len(done.stderr.strip().splitlines()) <= 2  # type: ignore[attr-defined]


def test_a_broken_picture_ends_it_before_anything(
    fluxone: Callable[..., object], tiny: Path, pictures: Path, tmp_path: Path
) -> None:
    (pictures / "3.png").write_bytes(b"\x89PNG\r\n")
    done = fluxone("train", "character", pictures, "--model", tiny, *SHORT, "-o", "out", code=2)
    assert "3.png cannot be read" in done.stderr and not (tmp_path / "out").exists()  # type: ignore[attr-defined]


KILLED = """
import os, signal
from fluxone.cli.main import run
from fluxone.train import checkpoint

plain = os.fsync

def at_the_second(handle, count=[]):  # the checkpoint after the first is written, and has not its name yet
    count.append(handle)
    if len(count) == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    plain(handle)

checkpoint.os.fsync = at_the_second
run({line!r})
"""


@pytest.mark.slow
def test_killed_it_goes_on_and_ends_equal(
    fluxone: Callable[..., object], tiny: Path, pictures: Path, tmp_path: Path, environment: dict[str, str]
) -> None:
    """kill -9 while a checkpoint is written, ten steps after the one before."""
    short = (*SHORT, "--steps", "24", "--set", "looks=1", "--preserve", "none")
    line = ["train", "character", str(pictures), "--model", str(tiny), *short]
    code = KILLED.format(line=[*line, "-o", str(tmp_path / "killed")])
    done = subprocess.run([sys.executable, "-c", code], env=environment, stderr=subprocess.DEVNULL, check=False)
    assert done.returncode == -signal.SIGKILL
    assert (tmp_path / "killed" / "state" / "checkpoint.safetensors").exists()
    assert not list((tmp_path / "killed").glob("*.safetensors"))
    again = fluxone(*line, "-o", "killed")
    assert "going on at step 10 of 24" in again.stderr  # type: ignore[attr-defined]
    fluxone(*line, "-o", "whole")
    for name in ("zuri-pictures.safetensors", "zuri-pictures-kohya.safetensors"):
        assert (tmp_path / "killed" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


@pytest.mark.slow
def test_torchrun_shares_a_full_fine_tune(
    tiny: Path, pictures: Path, tmp_path: Path, environment: dict[str, str]
) -> None:
    """Two processes, each with half of the weights: the first draws, measures, writes and proves."""
    short = (*SHORT, "--kind", "full", "--set", "looks=1")
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "fluxone"]
    line = ["train", "character", str(pictures), "--model", str(tiny), "--name", "zuri", *short, "-o", "out"]
    done = subprocess.run(
        [sys.executable, *torchrun, *line], env=environment, cwd=tmp_path, text=True, capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["out/zuri.safetensors", "out/zuri-kohya.safetensors", "out/report.html"]
    assert list((tmp_path / "out" / "state").glob("shards-*/*.distcp")), "the rows of each process"
    assert "the same pictures as in training" in (tmp_path / "out" / "report.html").read_text("utf-8")


@pytest.mark.slow
def test_captions_that_are_mixed_up_are_found(tmp_path: Path) -> None:
    """The mini reads along: two captions changed places."""
    from fluxone import storybook
    from fluxone.assembly import assemble
    from fluxone.recipe import Recipe
    from fluxone.storybook.record import read
    from fluxone.tune import folder as folders
    from fluxone.tune.agree import disagreements
    from fluxone.tune.beside import Beside, fresh
    from fluxone.tune.cache import Cache
    from fluxone.tune.kinds import Size
    from fluxone.tune.learner import Learner
    from fluxone.tune.material import Material
    from fluxone.tune.settings import Settings
    from fluxone.variants import MINI
    from fluxone.weights.load import shipped

    world = read(shipped(MINI))
    assert world is not None
    scenes = [scene for i in range(200) if (scene := storybook.scene(i, world)).kind in ("one", "side")][:6]
    texts = [scene.caption for scene in scenes]
    texts[1], texts[4] = texts[4], texts[1]
    for i, (scene, text) in enumerate(zip(scenes, texts, strict=True)):
        Image.fromarray(storybook.render(scene, MINI.size)).save(tmp_path / f"{i}.png")
        (tmp_path / f"{i}.txt").write_text(text, encoding="utf-8")
    pipeline = assemble("mini", Recipe(device="cpu", dtype="float32"))
    chosen = Settings(rank=1)
    beside = Beside(pipeline.transformer, fresh(pipeline.transformer, "lora", ("ends",), Size(rank=1, alpha=1), 0))
    material = Material(pipeline, Cache(pipeline, tmp_path / "cache"), chosen, folders.read(tmp_path))
    found = disagreements(Learner(pipeline, beside, material, chosen))
    assert [finding.file for finding in found] == ["1.png", "4.png"]
