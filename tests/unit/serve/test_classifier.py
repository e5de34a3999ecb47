"""A classifier of the operator's own: what it finds is withheld, by label and tolerance; nothing is fetched."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image
from starlette.testclient import TestClient

from fluxone.errors import BadFile, BadRequest, BrokenModel, MissingExtra, UnknownName
from fluxone.serve import settings as settings_
from fluxone.serve.classifier import looks
from unit.serve.conftest import wait

transformers = pytest.importorskip("transformers")

RED, BLUE = Image.new("RGB", (64, 48), (250, 0, 0)), Image.new("RGB", (64, 48), (0, 0, 250))


@pytest.fixture(scope="module")
def classes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny random ViT that sees something red with a share of 0.6 in everything."""
    torch.manual_seed(0)
    config = transformers.ViTConfig(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, image_size=32, patch_size=16,
        id2label={0: "fine", 1: "red"}, label2id={"fine": 0, "red": 1},
    )  # fmt: skip
    model = transformers.ViTForImageClassification(config)
    torch.nn.init.zeros_(model.classifier.weight)
    model.classifier.bias.data = torch.tensor([0.4, 0.6]).log()
    folder = tmp_path_factory.mktemp("vit")
    model.save_pretrained(folder)
    transformers.ViTImageProcessor(size={"height": 32, "width": 32}).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def words(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny random CLIP."""
    torch.manual_seed(0)
    letters = [chr(code) for code in range(ord("a"), ord("z") + 1)]
    ends = ["<|startoftext|>", "<|endoftext|>"]
    vocabulary = {word: n for n, word in enumerate([*letters, *(f"{letter}</w>" for letter in letters), *ends])}
    tokenizer = transformers.CLIPTokenizer(vocab=vocabulary, merges=[])
    size = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    ids = {"bos_token_id": vocabulary[ends[0]], "eos_token_id": vocabulary[ends[1]]}
    config = transformers.CLIPConfig(
        text_config={**size, **ids, "vocab_size": len(vocabulary), "max_position_embeddings": 16},
        vision_config={**size, "image_size": 32, "patch_size": 16}, projection_dim=8,
    )  # fmt: skip
    folder = tmp_path_factory.mktemp("clip")
    transformers.CLIPModel(config).save_pretrained(folder)
    sized = {"size": {"shortest_edge": 32}, "crop_size": {"height": 32, "width": 32}}
    transformers.CLIPProcessor(transformers.CLIPImageProcessor(**sized), tokenizer).save_pretrained(folder)
    return folder


@pytest.mark.parametrize(("limit", "strictest", "laxest"), [(0.5, 0, 2), (0.59, 0, 2), (0.61, 0, 1), (0.9, 0, 0)])
def test_a_share_is_too_much_by_tolerance(classes: Path, limit: float, strictest: int, laxest: int) -> None:
    policy = looks(str(classes), {"red": limit})
    withheld = [tolerance for tolerance in range(7) if policy.picture(RED, tolerance)]
    assert withheld == list(range(strictest, laxest + 1))
    assert policy.picture(RED, 0) == ["red"]


def test_labels_are_words_to_clip(words: Path) -> None:
    model = transformers.CLIPModel.from_pretrained(words).eval()
    reader = transformers.CLIPProcessor.from_pretrained(words)
    labels = ["a red thing", "the blue"]
    for image in (RED, BLUE):
        asked = reader(images=image, text=[*labels, "a picture"], return_tensors="pt", padding=True)
        with torch.no_grad():
            shares = model(**asked).logits_per_image[0].softmax(0)
        for at in range(2):
            share = float(shares[at])
            for limit, found in ((share - 1e-4, [labels[at]]), (share + 1e-4, [])):
                policy = looks(str(words), {labels[at]: limit, labels[1 - at]: 0.98})
                assert [label for label in policy.picture(image, 2) if label == labels[at]] == found


def test_a_server_withholds(server: Callable[..., TestClient], classes: Path, tmp_path: Path) -> None:
    client = server(classifier=str(classes), withheld={"red": 0.5})
    for tolerance, status in ((2, "Content Moderated"), (4, "Ready")):
        body = {"prompt": "x", "safety_tolerance": tolerance, "output_format": "png"}
        reply = client.post("/v1/flux-dev", json=body).json()
        final = wait(client, reply["polling_url"])
        assert final["status"] == status
        assert (tmp_path / "results" / f"{reply['id']}.png").exists() == (status == "Ready")
    assert "red" not in final["details"]


def test_what_cannot_be_looked_at_is_not_shown(
    server: Callable[..., TestClient], classes: Path, tmp_path: Path
) -> None:
    broken = tmp_path / "broken"
    model = transformers.ViTForImageClassification.from_pretrained(classes)
    torch.nn.init.constant_(model.classifier.bias, float("nan"))
    model.save_pretrained(broken)
    transformers.ViTImageProcessor(size={"height": 32, "width": 32}).save_pretrained(broken)
    with pytest.raises(BrokenModel, match="not finite"):
        looks(str(broken), {"red": 0.5}).picture(RED, 2)
    client = server(classifier=str(broken), withheld={"red": 0.5})
    final = wait(client, client.post("/v1/flux-dev", json={"prompt": "x"}).json()["polling_url"])
    assert (final["status"], final["result"]) == ("Error", None)


def test_what_is_no_classifier(classes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert looks("", {}).picture(RED, 0) == []
    with pytest.raises(BadRequest, match="withholds nothing"):
        looks(str(classes), {})
    for share in (0, 1, 1.5, "much"):
        with pytest.raises(BadRequest, match="the share of 'red'"):
            looks(str(classes), {"red": share})
    with pytest.raises(UnknownName, match="red"):
        looks(str(classes), {"rde": 0.5})
    for folder in (tmp_path, tmp_path / "none", Path("some/name-on-the-hub")):
        with pytest.raises(BadFile, match="holds no classifier"):
            looks(str(folder), {"red": 0.5})
    pickled = {"model_type": "vit", "architectures": ["ViTForImageClassification"]}
    (tmp_path / "config.json").write_text(json.dumps(pickled))
    (tmp_path / "pytorch_model.bin").write_bytes(b"pickled")
    with pytest.raises(BadFile, match="holds no classifier"):
        looks(str(tmp_path), {"red": 0.5})
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(MissingExtra, match=r"fluxone\[safety\]"):
        looks(str(classes), {"red": 0.5})


def test_its_folder_is_beside_the_settings(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    file = tmp_path / "server.toml"
    file.write_text('classifier = "model"\n[withheld]\nred = 0.5\n')
    told = settings_.read(file)
    assert (told.classifier, told.withheld) == (str(tmp_path / "model"), {"red": 0.5})
