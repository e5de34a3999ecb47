"""Depths by a model that the person has, and any map by a program of theirs. Nothing is fetched.

folder (Depth Anything, DPT, ZoeDepth, ... as transformers saves them)   picture --> depths, the nearest white
command                                                                 COMMAND IN.png OUT.png --> OUT.png
"""

from __future__ import annotations

import os
import shlex
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

from fluxone.errors import BadFile, BadRequest, MissingExtra

DISTANCES = ("zoedepth", "depth_pro")  # types of models that tell how far, not how near
METRIC = "metric"  # what Depth Anything's config says of its own that do
LEAST = 1e-6
COLOURLESS = 8  # of 255: what the colours of a grey picture may differ by, on average
DARK, MOSTLY = 48, 0.4  # of 255: how bright the ground of a pose may be, and the share of the picture that is ground


def found_by(detector: str, kind: str, picture: Image.Image) -> Image.Image:
    """The map of a picture that a detector of the person's finds: a model's folder, or a command.

    Raises:
        BadRequest: no folder finds such maps; or the command cannot be run, or fails.
        BadFile: the folder holds no such model, or the command wrote no picture.
        MissingExtra: transformers is not installed.
    """
    folder = Path(detector).expanduser()
    if not folder.is_dir():
        return by_program(detector, picture)
    if kind not in MODELS:
        hint = f"give a command: COMMAND IN.png OUT.png; folders find {', '.join(MODELS)}"
        raise BadRequest(f"{detector} is a folder, and none finds {kind}", hint=hint)
    return MODELS[kind](folder, picture)


@torch.no_grad()
def depths(folder: Path, picture: Image.Image) -> Image.Image:
    """The depths of a picture, the nearest white, by a depth model in a folder.

    Raises:
        BadFile: it holds no such model, or only pickled weights.
        MissingExtra: transformers is not installed.
    """
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    try:
        from transformers import AutoImageProcessor, AutoModelForDepthEstimation
        from transformers.utils.logging import disable_progress_bar
    except ImportError:
        raise MissingExtra("detect", "finding depths needs transformers, which is not installed") from None
    disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        reader = AutoImageProcessor.from_pretrained(folder, local_files_only=True)  # type: ignore[no-untyped-call]
        model = AutoModelForDepthEstimation.from_pretrained(folder, local_files_only=True, use_safetensors=True)
        said = model.eval()(**reader(images=picture.convert("RGB"), return_tensors="pt"))
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        first = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise BadFile(
            f"{folder} holds no depth model: {first:.160}", hint="give its folder, with safetensors"
        ) from None
    values = said.predicted_depth[:1].float()
    if model.config.model_type in DISTANCES or getattr(model.config, "depth_estimation_type", "") == METRIC:
        values = 1 / values.clamp(min=LEAST)
    size = (picture.height, picture.width)
    values = F.interpolate(values[:, None], size=size, mode="bicubic", align_corners=False)[0, 0]
    low, high = values.min(), values.max()
    if not torch.isfinite(values).all():
        raise BadFile(f"the model in {folder} computes values that are not finite", hint="get it again")
    near = (values - low) / (high - low).clamp(min=LEAST)
    return Image.fromarray((near * 255).round().to(torch.uint8).numpy()).convert("RGB")


def by_program(command: str, picture: Image.Image) -> Image.Image:
    """What a command writes that is given the names of a picture and of the one to write.

    Raises:
        BadRequest: it cannot be run, or fails.
        BadFile: it wrote no picture.
    """
    with tempfile.TemporaryDirectory() as folder:
        given, made = Path(folder) / "in.png", Path(folder) / "out.png"
        picture.convert("RGB").save(given)
        try:
            words = [*shlex.split(command), str(given), str(made)]
            done = subprocess.run(words, capture_output=True, text=True, errors="replace", check=False)
        except (OSError, ValueError) as error:
            hint = "give a model's folder, or a command that takes IN.png OUT.png"
            raise BadRequest(f"the detector {command!r:.80} cannot be run: {error}", hint=hint) from None
        if done.returncode != 0:
            last = (done.stderr.strip() or done.stdout.strip() or "it said nothing").splitlines()[-1]
            raise BadRequest(f"the detector {command!r:.80} failed with {done.returncode}: {last:.160}")
        try:
            with Image.open(made) as opened:
                found = opened.convert("RGB")
        except OSError as error:
            raise BadFile(f"the detector {command!r:.80} wrote no picture: {error}") from None
    return found if found.size == picture.size else found.resize(picture.size)


def grey(picture: Image.Image) -> bool:
    """Whether a picture has no colours, as depths have none."""
    pixels = np.asarray(picture.convert("RGB"), dtype=np.int16)
    return float((pixels.max(axis=2) - pixels.min(axis=2)).mean()) <= COLOURLESS


def on_black(picture: Image.Image) -> bool:
    """Whether most of a picture is dark, as the ground of a pose is."""
    pixels = np.asarray(picture.convert("RGB"))
    return float((pixels.max(axis=2) <= DARK).mean()) >= MOSTLY


# Kind of map -> what finds it by a model in a folder; and what tells a picture that may be one already.
MODELS: dict[str, Callable[[Path, Image.Image], Image.Image]] = {"depth": depths}
LOOKS: dict[str, Callable[[Image.Image], bool]] = {"depth": grey, "pose": on_black}
