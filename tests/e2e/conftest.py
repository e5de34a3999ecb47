"""A tiny model with random weights in a folder, and the command line as a user types it."""

from __future__ import annotations

import io
import logging
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from fluxone.cli.main import run
from fluxone.nn.autoencoder import AutoEncoder
from fluxone.nn.clip import ClipTextEncoder
from fluxone.nn.t5 import T5Encoder
from fluxone.nn.transformer import Flux
from fluxone.shapes import AutoEncoderShape, ClipShape, FluxShape, T5Shape
from fluxone.variants import MINI

SOURCE = Path(__file__).parents[2] / "src"
LETTERS = " abcdefghijklmnopqrstuvwxyz"


@pytest.fixture(scope="session")
def environment() -> dict[str, str]:
    """Of every process: no network, one thread."""
    fixed = {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "COLUMNS": "100", "PYTHONPATH": str(SOURCE)}
    return {**os.environ, **fixed}


@dataclass(frozen=True)
class Done:
    """What a command line came to."""

    code: int
    stdout: str
    stderr: str


@pytest.fixture
def fluxone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Callable[..., Done]]:
    """Run `fluxone ARGUMENT...` in an empty folder, in this process: loading torch anew each time takes seconds."""
    logger = logging.getLogger("fluxone")
    before = (logger.handlers, logger.propagate)
    monkeypatch.chdir(tmp_path)

    def go(*arguments: object, stdin: str = "", code: int = 0) -> Done:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin.encode())))
        returned = run([str(argument) for argument in arguments])
        out, err = capsys.readouterr()
        assert returned == code, f"{returned}\n{out}\n{err}"
        return Done(returned, out, err)

    yield go
    logger.handlers, logger.propagate = before


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A guided model of random weights with all its parts, in the diffusers folder layout."""
    from fluxone.weights.save import save_folder

    torch.manual_seed(0)
    shape = FluxShape(hidden=32, heads=2, axes=(4, 6, 6), double_blocks=1, single_blocks=2, text_dim=24, vec_dim=16)
    folder = tmp_path_factory.mktemp("models") / "tiny"
    save_folder(
        folder,
        variant=MINI,
        transformer=Flux(shape),
        autoencoder=AutoEncoder(AutoEncoderShape(channels=(8, 8, 16, 16), blocks=1, groups=4)),
        t5=T5Encoder(T5Shape(vocab=32, hidden=24, layers=1, heads=2, head_dim=8, mlp=32)),
        clip=ClipTextEncoder(ClipShape(vocab=32, hidden=16, layers=1, heads=2, mlp=32, positions=16, eos=31)),
        tokenizers={"tokenizer": tokenizer(folder.parent / "clip"), "tokenizer_2": tokenizer(folder.parent / "t5")},
    )
    return folder


def tokenizer(folder: Path) -> Path:
    """A folder with a tokenizer whose tokens are letters; 31 ends and pads."""
    from tokenizers import Regex, Tokenizer, models, pre_tokenizers, processors

    letters = {letter: number for number, letter in enumerate(LETTERS)} | {"<unk>": 30, "<end>": 31}
    backend = Tokenizer(models.WordLevel(letters, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Split(Regex("."), "isolated")
    backend.post_processor = processors.TemplateProcessing(single="$A <end>", special_tokens=[("<end>", 31)])
    folder.mkdir()
    backend.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text('{"pad_token": "<end>", "eos_token": "<end>"}')
    return folder
