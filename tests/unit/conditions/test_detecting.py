"""Maps that a person's own detector finds: a depth model's folder, a command; and what looks like a map already."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from fluxone.conditions.detecting import by_program, found_by, grey, on_black
from fluxone.errors import BadFile, BadRequest, MissingExtra

transformers = pytest.importorskip("transformers")


def picture(width: int = 70, height: int = 50) -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 255, (height, width, 3), dtype=np.uint8))


@pytest.fixture(scope="module")
def estimator(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny random Depth Anything, as transformers saves it."""
    torch.manual_seed(0)
    stages = [f"stage{n}" for n in range(1, 5)]
    backbone = transformers.Dinov2Config(
        hidden_size=16, num_hidden_layers=4, num_attention_heads=2, image_size=28, patch_size=14,
        out_features=stages, reshape_hidden_states=False,
    )  # fmt: skip
    config = transformers.DepthAnythingConfig(
        backbone_config=backbone, reassemble_hidden_size=16, neck_hidden_sizes=[8] * 4, fusion_hidden_size=8,
        head_hidden_size=4,
    )  # fmt: skip
    folder = tmp_path_factory.mktemp("depth-anything")
    model = transformers.DepthAnythingForDepthEstimation(config)
    with torch.no_grad():
        for value in model.parameters():
            if value.ndim > 1:
                value.normal_(std=value[0].numel() ** -0.5)
        model.head.conv3.bias.fill_(3.0)  # what is below 0 is cut
    model.save_pretrained(folder)
    transformers.DPTImageProcessor(size={"height": 28, "width": 28}).save_pretrained(folder)
    return folder


def test_depths_are_those_of_the_model(estimator: Path) -> None:
    found = found_by(str(estimator), "depth", picture())
    model = transformers.AutoModelForDepthEstimation.from_pretrained(estimator).eval()
    reader = transformers.AutoImageProcessor.from_pretrained(estimator)
    with torch.no_grad():
        said = model(**reader(images=picture(), return_tensors="pt"))
    (whole,) = reader.post_process_depth_estimation(said, target_sizes=[(50, 70)])
    depths = whole["predicted_depth"]
    expected = ((depths - depths.min()) / (depths.max() - depths.min()) * 255).numpy()
    assert found.size == (70, 50) and found.mode == "RGB"
    assert np.abs(np.asarray(found)[..., 0] - expected).max() <= 1
    assert grey(found)


def test_distances_are_turned_so_that_the_nearest_is_white(estimator: Path, tmp_path: Path) -> None:
    near = np.asarray(found_by(str(estimator), "depth", picture()), dtype=int)[..., 0]
    config = transformers.AutoConfig.from_pretrained(estimator)
    config.depth_estimation_type = "metric"
    model = transformers.AutoModelForDepthEstimation.from_pretrained(estimator, config=config)
    model.save_pretrained(tmp_path)
    transformers.AutoImageProcessor.from_pretrained(estimator).save_pretrained(tmp_path)
    far = np.asarray(found_by(str(tmp_path), "depth", picture()), dtype=int)[..., 0]
    assert far.max() == 255 and near.max() == 255 and not np.array_equal(near, far)


def test_folders_that_are_no_depth_model_are_said(estimator: Path, tmp_path: Path) -> None:
    with pytest.raises(BadFile, match="holds no depth model"):
        found_by(str(tmp_path), "depth", picture())
    with pytest.raises(BadRequest, match="is a folder, and none finds pose"):
        found_by(str(estimator), "pose", picture())
    (tmp_path / "config.json").write_text((estimator / "config.json").read_text())
    (tmp_path / "preprocessor_config.json").write_text((estimator / "preprocessor_config.json").read_text())
    (tmp_path / "pytorch_model.bin").write_bytes(b"cos\nsystem\n(S'true'\ntR.")
    with pytest.raises(BadFile, match="holds no depth model"):
        found_by(str(tmp_path), "depth", picture())


def test_without_transformers_the_extra_is_named(estimator: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(MissingExtra, match=r"fluxone\[detect\]"):
        found_by(str(estimator), "depth", picture())


def test_a_command_makes_the_map(tmp_path: Path) -> None:
    script = tmp_path / "half of it.py"
    script.write_text("import sys\nfrom PIL import Image\nImage.open(sys.argv[1]).resize((9, 9)).save(sys.argv[2])")
    found = found_by(f"{sys.executable} '{script}'", "pose", picture())
    assert found.size == (70, 50)
    script.write_text("import sys\nprint('no limbs here', file=sys.stderr)\nsys.exit(3)")
    with pytest.raises(BadRequest, match="failed with 3: no limbs here"):
        by_program(f"{sys.executable} '{script}'", picture())
    script.write_text("")
    with pytest.raises(BadFile, match="wrote no picture"):
        by_program(f"{sys.executable} '{script}'", picture())
    for command in ("no-such-program", "un 'closed", ""):
        with pytest.raises(BadRequest, match="cannot be run"):
            by_program(command, picture())


def test_what_looks_like_a_map() -> None:
    assert grey(picture().convert("L")) and not grey(picture())
    limbs = Image.new("RGB", (40, 40))
    limbs.paste((255, 0, 0), (10, 0, 14, 40))
    assert on_black(limbs) and not on_black(picture())
