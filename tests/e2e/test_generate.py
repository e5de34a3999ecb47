"""`fluxone generate`, `replay` and `models` as a user meets them: a real folder, real files, a real terminal."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from fluxone import provenance
from fluxone.recipe import COMPATS, DTYPES, OFFLOADS
from fluxone.sampling.samplers import SAMPLERS
from fluxone.sampling.schedule import SCHEDULES

Fluxone = Callable[..., Any]


def test_a_picture_is_saved_under_a_readable_name_and_its_path_is_all_of_stdout(
    fluxone: Fluxone, tiny: Path, tmp_path: Path
) -> None:
    done = fluxone("generate", "A red Car, at 5 o'clock!", "--model", tiny, "--size", "48x32", "--steps", 2)
    assert done.stdout == "outputs/a-red-car-at-5-o-clock-0.png\n"
    with Image.open(tmp_path / done.stdout.strip()) as image:
        assert image.size == (48, 32)
    assert "loading" in done.stderr
    assert "step 2/2" in done.stderr
    again = fluxone("generate", "A red Car, at 5 o'clock!", "--model", tiny, "--size", "48x32", "--steps", 2, "--quiet")
    assert again.stdout == "outputs/a-red-car-at-5-o-clock-0-2.png\n"
    assert again.stderr == ""
    one, two = ((tmp_path / path).read_bytes() for path in (done.stdout.strip(), again.stdout.strip()))
    assert one == two


def test_json_is_one_document_and_the_prompt_may_come_from_stdin(fluxone: Fluxone, tiny: Path, tmp_path: Path) -> None:
    line = ("generate", "-", "--model", tiny, "--size", "32x32", "--steps", 2, "--count", 2, "--seed", 7, "--json")
    done = fluxone(*line, "-o", "two/", stdin="ein Fuchs\n")
    document = json.loads(done.stdout)
    assert [row["path"] for row in document["images"]] == ["two/ein-fuchs-7.png", "two/ein-fuchs-8.png"]
    assert [row["request"]["seed"] for row in document["images"]] == [7, 8]
    assert all((tmp_path / row["path"]).is_file() for row in document["images"])
    assert document["images"][0]["request"]["prompt"] == "ein Fuchs"
    assert document["images"][0]["hashes"]["transformer"]


@pytest.mark.parametrize("name", ["fox.png", "fox.jpg", "fox.webp"])
def test_every_format_carries_its_record_and_replays_without_difference(
    fluxone: Fluxone, tiny: Path, tmp_path: Path, name: str
) -> None:
    line = ("generate", "a fox", "--model", tiny, "--size", "48x32", "--steps", 3, "--seed", 5, "--sampler", "heun")
    assert fluxone(*line, "-o", name).stdout == f"{name}\n"
    entry = provenance.read(tmp_path / name)
    assert (entry.request.prompt, entry.request.seed, entry.request.sampler) == ("a fox", 5, "heun")
    assert entry.recipe["dtype"] == "float32"
    replayed = json.loads(fluxone("replay", name, "--json").stdout)
    assert (replayed["largest_difference"], replayed["pixels_that_differ"], replayed["equal"]) == (0, 0, True)


def test_replay_sees_a_changed_pixel(fluxone: Fluxone, tiny: Path, tmp_path: Path) -> None:
    fluxone("generate", "a fox", "--model", tiny, "--size", "32x32", "--steps", 2, "-o", "fox.png")
    entry = provenance.read(tmp_path / "fox.png")
    with Image.open(tmp_path / "fox.png") as image:
        red, green, blue = image.getpixel((3, 4))
        image.putpixel((3, 4), (red, (green + 9) % 256, blue))
        provenance.save(image, tmp_path / "changed.png", entry)
    replayed = json.loads(fluxone("replay", "changed.png", "--json", code=1).stdout)
    assert replayed["pixels_that_differ"] == 1
    assert replayed["largest_difference"] in (9, 247)
    assert "1 pixels differ" in fluxone("replay", "changed.png", "--tolerance", 250).stdout


def test_a_picture_to_start_from_sets_the_shape_and_is_asked_for_at_replay(
    fluxone: Fluxone, tiny: Path, tmp_path: Path
) -> None:
    Image.effect_mandelbrot((60, 30), (-2, -1, 1, 1), 20).convert("RGB").save(tmp_path / "start.png")
    line = ("generate", "night", "--model", tiny, "--init", "start.png", "--strength", 0.5, "--steps", 4, "-o", "n.png")
    done = fluxone(*line, "--megapixels", 0.002, "--aspect", "2:1")
    assert "step 2/2" in done.stderr
    with Image.open(tmp_path / "n.png") as image:
        assert image.size == (64, 32)
    assert "give" in fluxone("replay", "n.png", code=2).stderr
    assert json.loads(fluxone("replay", "n.png", "--init", "start.png", "--json").stdout)["equal"]


def test_a_size_that_is_no_multiple_is_rounded_down_with_one_notice(fluxone: Fluxone, tiny: Path) -> None:
    done = fluxone("generate", "x", "--model", tiny, "--size", "50x33", "--steps", 1, "--count", 2, "--json")
    assert [row["request"]["resolution"] for row in json.loads(done.stdout)["images"]] == ["48x32", "48x32"]
    assert done.stderr.count("notice:") == 1
    assert "50x33" in done.stderr


def test_an_empty_prompt_and_a_very_long_one_make_pictures(fluxone: Fluxone, tiny: Path) -> None:
    line = ("--model", tiny, "--size", "32x32", "--steps", 1)
    assert fluxone("generate", "", *line).stdout == "outputs/untitled-0.png\n"
    done = fluxone("generate", "fox " * 2500, *line)
    assert done.stdout.startswith("outputs/fox-fox-fox")
    assert re.search(r"notice: .*too long", done.stderr), done.stderr


def test_a_preview_file_grows_beside_the_output_and_goes_away(
    tiny: Path, tmp_path: Path, environment: dict[str, str]
) -> None:
    line = [sys.executable, "-m", "fluxone", "generate", "x", "--model", tiny, "--steps", 40, "-o", "x.png"]
    line += ["--size", "64x64", "--preview"]
    process = subprocess.Popen(
        list(map(str, line)), cwd=tmp_path, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    seen = 0
    while process.poll() is None:
        if (tmp_path / "x.preview.png").exists():
            try:
                with Image.open(tmp_path / "x.preview.png") as image:
                    image.load()
                    assert image.size == (256, 256)
                    seen += 1
            except FileNotFoundError:
                assert seen, "it went away before it was ever whole"
        time.sleep(0.002)
    assert process.wait() == 0, process.stderr and process.stderr.read()
    process.communicate()
    assert seen > 0
    assert [path.name for path in tmp_path.iterdir()] == ["x.png"]


def on_terminal(line: list[str], folder: Path, environment: dict[str, str]) -> tuple[int, str]:
    """Exit code and everything that a terminal of 100 columns shows."""
    master, slave = pty.openpty()
    process = subprocess.Popen(line, cwd=folder, env=environment, stdin=slave, stdout=slave, stderr=slave)
    os.close(slave)
    shown = b""
    while True:
        ready, _, _ = select.select([master], [], [], 120)
        try:
            piece = os.read(master, 65536) if ready else b""
        except OSError:  # the other end is closed
            piece = b""
        if not piece:
            break
        shown += piece
    os.close(master)
    return process.wait(), shown.decode()


def test_on_a_terminal_there_is_a_bar_with_time_left_and_a_preview(
    tiny: Path, tmp_path: Path, environment: dict[str, str]
) -> None:
    line = [sys.executable, "-m", "fluxone", "generate", "x", "--model", str(tiny), "--size", "64x64"]
    code, shown = on_terminal([*line, "--steps", "4", "--preview"], tmp_path, environment)
    assert code == 0
    assert re.search(r"█+░+ step 3/4, [\d.]+ s left", shown)
    assert "\x1b[38;2;" in shown
    assert "▀" in shown
    assert shown.splitlines()[-1].endswith("outputs/x-0.png")
    assert not list(tmp_path.rglob("*.preview.png"))


def interrupted(line: list[str], folder: Path, environment: dict[str, str], number: int) -> tuple[int, str]:
    process = subprocess.Popen(
        line,
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # A suite that was started in the background ignores SIGINT, and its children would inherit that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    assert process.stderr is not None
    said = ""
    for text in process.stderr:
        said += text
        if text.startswith("step 1/"):
            process.send_signal(number)
    process.communicate()
    return process.returncode, said


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_interrupting_leaves_no_file(
    tiny: Path, tmp_path: Path, environment: dict[str, str], number: int, code: int
) -> None:
    line = [sys.executable, "-m", "fluxone", "generate", "x", "--model", str(tiny), "--size", "64x64", "--preview"]
    returned, said = interrupted([*line, "--steps", "1000", "-o", "x.png"], tmp_path, environment, number)
    assert returned == code, said
    assert "Traceback" not in said
    assert list(tmp_path.iterdir()) == []


def test_models_inspect_takes_a_name_of_what_is_in_the_package(fluxone: Fluxone) -> None:
    done = json.loads(fluxone("models", "inspect", "mini", "--json").stdout)
    assert done["variant"] == "mini" and not done["missing"]
    assert "dev does not exist" in fluxone("models", "inspect", "dev", code=2).stderr


def test_models_inspect_tells_what_a_folder_holds(fluxone: Fluxone, tiny: Path) -> None:
    text = fluxone("models", "inspect", tiny).stdout
    for words in ("diffusers folder", "transformer", "autoencoder", "float32"):
        assert words in text
    report = json.loads(fluxone("models", "inspect", tiny, "--json").stdout)
    assert {part["name"] for part in report["parts"]} == {"transformer", "autoencoder", "t5", "clip"}


def test_a_closed_pipe_is_silent(tmp_path: Path, environment: dict[str, str]) -> None:
    line = f"{sys.executable} -m fluxone models list --json | true"
    done = subprocess.run(["bash", "-c", line], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_the_whole_way_in_processes_of_their_own(tiny: Path, tmp_path: Path, environment: dict[str, str]) -> None:
    line = [sys.executable, "-m", "fluxone"]
    words = ["generate", "a fox", "--model", str(tiny), "--size", "32x48", "--steps", "2"]
    made = subprocess.run([*line, *words], cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
    assert made.stdout == "outputs/a-fox-0.png\n"
    again = subprocess.run(
        [*line, "replay", made.stdout.strip()], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert again.stdout == "largest difference 0 of 255, 0 pixels differ\n", again.stderr
    assert again.returncode == 0


@pytest.mark.parametrize(
    "options",
    [
        *(f"--sampler {name}" for name in SAMPLERS),
        *(f"--schedule {name}" for name in SCHEDULES),
        *(f"--compat {name}" for name in COMPATS),
        *(f"--dtype {name}" for name in DTYPES),
        "--cfg 3 --negative rain",
        "--cfg 3 --negative rain --cfg-interval 0.2:0.7",
        "--guidance 0",
        "--text-tokens 7",
        "--aspect 3:1 --megapixels 0.004",
        "--tiled",
    ],
)
def test_every_way_to_run_makes_a_picture_that_replays(
    fluxone: Fluxone, tiny: Path, tmp_path: Path, options: str
) -> None:
    fluxone("generate", "a fox", "--model", tiny, "--steps", 3, "--size", "32x48", "-o", "plain.png")
    size = [] if "--aspect" in options else ["--size", "32x48"]
    fluxone("generate", "a fox", "--model", tiny, "--steps", 3, *size, *options.split(), "-o", "x.png")
    replayed = json.loads(fluxone("replay", "x.png", "--json").stdout)
    assert replayed["largest_difference"] == 0
    usual = {"--sampler euler", "--schedule shifted", "--compat exact", "--dtype float32", "--tiled"}
    with Image.open(tmp_path / "plain.png") as plain, Image.open(tmp_path / "x.png") as picture:
        if options != "--compat diffusers":  # which rounds nothing in float32
            assert (plain.tobytes() == picture.tobytes()) == (options in usual)


@pytest.mark.parametrize("mode", OFFLOADS)
def test_offloading_changes_no_bit(fluxone: Fluxone, tiny: Path, tmp_path: Path, mode: str) -> None:
    line = ("generate", "a fox", "--model", tiny, "--steps", 2, "--size", "32x32")
    fluxone(*line, "-o", "plain.png")
    fluxone(*line, "-o", "x.png", "--offload", mode)
    with Image.open(tmp_path / "plain.png") as plain, Image.open(tmp_path / "x.png") as picture:
        assert plain.tobytes() == picture.tobytes()


def test_a_seed_can_be_random(fluxone: Fluxone, tiny: Path) -> None:
    line = ("generate", "x", "--model", tiny, "--steps", 1, "--size", "32x32", "--seed", "random", "--json")
    seeds = {json.loads(fluxone(*line).stdout)["images"][0]["request"]["seed"] for _ in range(3)}
    assert len(seeds) == 3


def test_choices_weights_and_clip_prompts(fluxone: Fluxone, tiny: Path, tmp_path: Path) -> None:
    (tmp_path / "words").mkdir()
    (tmp_path / "words" / "animal.txt").write_text("fox\ncat\n")
    asked = ("generate", "a {red|blue} (__animal__:1.4)", "--wildcards", "words", "--clip-prompt", "a {red|blue} one")
    line = (*asked, "--model", tiny, "--steps", 1, "--size", "32x32", "--count", 4, "--quiet", "--json")
    images = json.loads(fluxone(*line).stdout)["images"]
    prompts = [image["request"]["prompt"] for image in images]
    assert len(set(prompts)) > 1 and all(re.fullmatch(r"a (red|blue) \((fox|cat):1.4\)", text) for text in prompts)
    for image in images:
        assert image["request"]["clip_prompt"].split()[1] == image["request"]["prompt"].split()[1]
    (tmp_path / "words" / "animal.txt").write_text("owl\n")
    fluxone("replay", images[2]["path"], "--quiet")
    fluxone("generate", "__animal__", "--model", tiny, "--wildcards", "nowhere", code=2)
