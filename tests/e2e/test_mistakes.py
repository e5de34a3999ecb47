"""Every mistake ends in one line that says what was found and what to do, in the right exit code, and in no file."""

from __future__ import annotations

import errno
import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

TRANSFORMER = Path("transformer") / "diffusion_pytorch_model.safetensors"
Attempt = Callable[..., str]


@pytest.fixture
def attempt(fluxone: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Attempt:
    """Run a command line that must fail with `code`; gives its one line of error."""
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)

    def go(*arguments: object, code: int = 2) -> str:
        before = sorted(folder.rglob("*"))
        done = fluxone(*arguments, code=code)
        assert done.stdout == ""
        assert "Traceback" not in done.stderr
        errors: list[str] = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
        assert done.stderr.splitlines()[-1:] == errors
        new = [path for path in sorted(folder.rglob("*")) if path not in before and path.is_file()]
        assert new == []
        return errors[0]

    return go


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ("--size 0x0", "0 px"),
        ("--size -16x32", "-16 px"),
        ("--size 100000x64", "100000 px"),
        ("--size 8x8", "8 px"),
        ("--size 8192x8192", "use at most 65536: 4096x4096 px"),
        ("--size large", "WIDTHxHEIGHT"),
        ("--size 32x", "WIDTHxHEIGHT"),
        ("--aspect 1:100000 --megapixels 0.001", "makes 16x10240 px; no side can be longer than 8192 px"),
        ("--size 64x64 --aspect 1:1", "drop one"),
        ("--aspect 0:1", "positive"),
        ("--aspect wide", "ACROSS:DOWN"),
        ("--aspect 1:1 --megapixels 0", "above 0"),
        ("--aspect 1:1 --megapixels nan", "above 0"),
        ("--megapixels 1", "without --aspect"),
        ("--steps 0", "1 to 1000"),
        ("--steps 2.5", "2.5"),
        ("--steps 100000", "1 to 1000"),
        ("--count 0", "1 to"),
        ("--seed -1", "0 to"),
        ("--seed tuesday", "tuesday"),
        ("--guidance nan", "nan"),
        ("--guidance -1", "0 to"),
        ("--cfg inf", "inf"),
        ("--negative rain", "--negative does nothing while --cfg and --nag are 1"),
        ("--clip-negative rain", "--clip-negative does nothing while --cfg and --nag are 1"),
        ("--cfg-interval 0:0.5", "--cfg-interval does nothing while --cfg and --nag are 1"),
        ("--nag-tau 3 --cfg 2", "--nag-tau does nothing while --nag is 1"),
        ("--nag-alpha 0.5", "--nag-alpha does nothing while --nag is 1"),
        ("--control-range 0:0.5", "--control-range is given without --controlnet"),
        ("--image-encoder clip", "--image-encoder is given without --ip-adapter"),
        ("--cfg 2 --cfg-interval 0.8:0.2", "rising"),
        ("--cfg 2 --cfg-interval all", "START:END"),
        ("--strength 0.5", "--init"),
        ("--init nothing.png", "nothing.png"),
        ("--text-tokens 0", "1 to 512"),
        ("--sampler eular", "did you mean 'euler'"),
        ("--schedule shiftd", "did you mean 'shifted'"),
        ("--model=", "--model is empty"),
        ("--lora a --lora=", "--lora is empty"),
        ("--output=", "--output is empty"),
        ("--vae=", "--vae is empty"),
        ("--model dve", "did you mean 'dev'"),
        ("--model nothing.safetensors", "nothing.safetensors"),
        ("--dtype float3", "did you mean 'float32'"),
        ("--device tpu", "cuda"),
        ("--device cuda:99", "cuda"),
        ("--offload disc", "did you mean 'disk'"),
        ("--compat comfi", "did you mean 'comfy'"),
        ("--format gif", "choose one of"),
        ("-o fox.gif", ".gif"),
        (f"-o {'f' * 300}.png", "is too long"),
        (f"--init {'f' * 300}.png", "too long"),
        ("-o fox.png --format jpg", "--format"),
        ("--colour red", "--colour"),
        ("--vae", "--vae"),
    ],
)
def test_wrong_options(attempt: Attempt, tiny: Path, options: str, words: str) -> None:
    chosen = [] if "--model" in options else ["--model", tiny]
    assert words in attempt("generate", "a fox", *chosen, *options.split())


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (["paint", "x"], "no command is called 'paint'"),
        (["generat", "x"], "did you mean 'generate'"),
        (["generate"], "PROMPT"),
        (["generate", "a", "fox"], "fox"),
        (["generate", "x" * 40_000], "at most 32000"),
        (["generate", "\udcff"], "no character"),
        (["generate", "x", "--model", "m" * 300], "is too long"),
        (["models", "inspect", "m" * 300], "is too long"),
        (["models", "inspect"], "FILE"),
        (["models", "inspect", "nothing.safetensors"], "nothing.safetensors"),
        (["replay", "nothing.png"], "nothing.png"),
        (["train", "nothing.toml"], "nothing.toml"),
        (["train", "nothing.toml", "--set", "steps"], "KEY=VALUE"),
    ],
)
def test_wrong_lines(attempt: Attempt, line: list[str], words: str) -> None:
    assert words in attempt(*line)


def test_a_picture_without_a_record_cannot_be_replayed(attempt: Attempt, tmp_path: Path) -> None:
    from PIL import Image

    plain, text = tmp_path / "plain.png", tmp_path / "text.png"
    Image.new("RGB", (32, 32)).save(plain)
    text.write_text("not a picture")
    assert "no record" in attempt("replay", plain)
    assert "picture" in attempt("replay", text)
    assert "picture" in attempt("generate", "x", "--init", text)


def test_a_picture_that_was_cut_cannot_be_replayed(attempt: Attempt, fluxone: Callable[..., Any], tiny: Path) -> None:
    fluxone("generate", "x", "--model", tiny, "--size", "64x64", "--steps", 1, "-o", "x.png")
    truncate(Path("x.png"))
    assert "truncated" in attempt("replay", "x.png")


@pytest.fixture
def broken(tiny: Path, tmp_path: Path) -> Path:
    """A copy of the tiny model to break."""
    return Path(shutil.copytree(tiny, tmp_path / "broken"))


def truncate(file: Path) -> None:
    os.truncate(file, file.stat().st_size // 2)


def empty(file: Path) -> None:
    file.write_bytes(b"")


def scramble_header(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[8:40] = bytes(range(128, 160))
    file.write_bytes(content)


def endless_header(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[:8] = b"\xff" * 8
    file.write_bytes(content)


def text_instead(file: Path) -> None:
    file.write_text("This is no weight file, only text under its name.\n" * 40)


def page_instead(file: Path) -> None:
    file.write_text("<!DOCTYPE html><html><body>Please log in to download.</body></html>")


def drop_a_key(file: Path) -> None:
    tensors = load_file(file)
    del tensors["proj_out.weight"]
    save_file(tensors, file)


def add_a_key(file: Path) -> None:
    save_file(load_file(file) | {"proj_out.wait": torch.zeros(3)}, file)


def reshape_a_key(file: Path) -> None:
    tensors = load_file(file)
    tensors["proj_out.weight"] = tensors["proj_out.weight"][:-1].clone()
    save_file(tensors, file)


@pytest.mark.parametrize(
    ("breaking", "words"),
    [
        (truncate, "bytes"),
        (empty, "empty"),
        (scramble_header, "header"),
        (endless_header, ""),
        (text_instead, "text"),
        (page_instead, "web page"),
        (drop_a_key, "final_layer.linear.weight"),
        (add_a_key, "proj_out.wait"),
        (reshape_a_key, "final_layer.linear.weight"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_broken_weight_files(
    attempt: Attempt, broken: Path, breaking: Callable[[Path], None], words: str
) -> None:
    breaking(broken / TRANSFORMER)
    line = attempt("generate", "x", "--model", broken, "--size", "32x32", "--steps", 1)
    assert words in line
    assert len(line) < 600


def test_a_broken_file_can_be_inspected_only_with_a_reason(attempt: Attempt, broken: Path) -> None:
    text_instead(broken / TRANSFORMER)
    assert "text" in attempt("models", "inspect", broken / TRANSFORMER)


def test_a_lone_transformer_names_what_it_lacks(attempt: Attempt, tiny: Path, tmp_path: Path) -> None:
    lone = tmp_path / "lone.safetensors"
    shutil.copy(tiny / TRANSFORMER, lone)
    line = attempt("generate", "x", "--model", lone, "--size", "32x32")
    assert "autoencoder" in line


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("part", [TRANSFORMER, Path("vae") / "diffusion_pytorch_model.safetensors"], ids=str)
def test_weights_that_are_no_numbers_make_no_picture(
    attempt: Attempt, broken: Path, part: Path, value: float
) -> None:
    tensors = load_file(broken / part)
    name = next(name for name in sorted(tensors) if name.endswith("proj_out.weight") or "decoder.conv_out" in name)
    tensors[name].flatten()[:4] = value
    save_file(tensors, broken / part)
    line = attempt("generate", "x", "--model", broken, "--size", "32x32", "--steps", 1, code=1)
    assert "NaN" in line
    assert "no picture" in line


def test_a_folder_that_cannot_be_made(attempt: Attempt, tiny: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    line = ("generate", "x", "--model", tiny, "--size", "32x32", "--steps", 1)
    assert "cannot" in attempt(*line, "-o", tmp_path / "file" / "x.png")
    assert "cannot" in attempt(*line, "-o", tmp_path / "file" / "deeper" / "x.png")


def test_a_name_taken_by_a_folder_is_that_folder(fluxone: Callable[..., Any], tiny: Path, tmp_path: Path) -> None:
    (tmp_path / "x.png").mkdir()
    line = ("generate", "x", "--model", tiny, "--size", "32x32", "--steps", 1, "-o", "x.png")
    assert fluxone(*line).stdout == "x.png/x-0.png\n"


def test_a_full_disk_leaves_nothing(
    attempt: Attempt, tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    line = attempt("generate", "x", "--model", tiny, "--size", "32x32", "--steps", 1, "-o", "x.png")
    assert "the disk is full" in line


def test_a_file_that_may_not_grow_leaves_nothing(tiny: Path, tmp_path: Path, environment: dict[str, str]) -> None:
    """The kernel itself refuses the write, half way."""
    line = [sys.executable, "-m", "fluxone", "generate", "x", "--model", tiny, "--size", "64x64", "--steps", 1]
    done = subprocess.run(
        list(map(str, [*line, "-o", "x.png", "--quiet"])),
        cwd=tmp_path,
        env=environment | {"PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000)),
        check=False,
    )
    assert done.returncode == 2, done.stderr
    assert done.stderr.startswith("error: cannot save x.png")
    assert done.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_an_error_that_nobody_foresaw_is_one_line_and_a_traceback_on_request(
    tmp_path: Path, environment: dict[str, str]
) -> None:
    code = (
        "import sys; from fluxone.cli import main as m, naming; from fluxone.cli.main import main\n"
        "def broken(*a): raise ZeroDivisionError('one\\ntwo')\n"
        "naming.target = broken; sys.argv = ['fluxone', 'generate', 'x']; main()"
    )
    for debug in ("0", "1"):
        done = subprocess.run(
            [sys.executable, "-c", code],
            cwd=tmp_path, env=environment | {"FLUXONE_DEBUG": debug}, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 1
        assert done.stderr.splitlines()[-1].startswith("error: unexpected ZeroDivisionError: one two")
        assert ("Traceback" in done.stderr) == (debug == "1")
