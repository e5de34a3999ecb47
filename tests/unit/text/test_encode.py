"""The two encoders together: lengths by profile, two prompts, counts of what was cut."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from tokenizers import Tokenizer as Backend
from tokenizers import models, pre_tokenizers, processors

from fluxone.errors import BadWeights, UnknownName
from fluxone.nn.clip import ClipTextEncoder
from fluxone.nn.t5 import T5Encoder
from fluxone.shapes import ClipShape, T5Shape
from fluxone.text.encode import LENGTHS, TextEncoders
from fluxone.text.tokenizers import Tokenizer

WORDS = ["<pad>", "</s>", "<unk>", "a", "red", "fox"]


@pytest.fixture(scope="module")
def encoders() -> TextEncoders:
    torch.manual_seed(0)
    backend = Backend(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    backend.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    return TextEncoders(
        T5Encoder(T5Shape(vocab=6, hidden=8, layers=1, heads=2, head_dim=4, mlp=12)),
        ClipTextEncoder(ClipShape(vocab=6, hidden=10, layers=1, heads=2, mlp=12, positions=9, eos=1)),
        Tokenizer(backend=backend, pad=0),
        Tokenizer(backend=backend, pad=1, limit=8),
    )


def test_shapes_and_counts(encoders: TextEncoders) -> None:
    made = encoders.encode(["a red fox", "", "fox " * 30], tokens=16)
    assert (made.txt.shape, made.pooled.shape) == ((3, 16, 8), (3, 10))
    assert made.cut == (0, 0, 15)
    assert made.clip_cut == (0, 0, 23), "the tokenizer's limit of 8 holds, not the usual 77"
    assert not made.txt.requires_grad


def test_prompts_of_a_batch_are_encoded_as_alone(encoders: TextEncoders) -> None:
    both = encoders.encode(["a red fox", "fox"], tokens=16)
    alone = encoders.encode(["fox"], tokens=16)
    assert torch.allclose(both.txt[1:], alone.txt, atol=1e-6)
    assert torch.allclose(both.pooled[1:], alone.pooled, atol=1e-6)


def test_clip_may_be_given_other_words(encoders: TextEncoders) -> None:
    plain = encoders.encode(["a red fox"], tokens=16)
    mixed = encoders.encode(["a red fox"], ["a fox"], tokens=16)
    assert torch.equal(mixed.txt, plain.txt)
    assert torch.equal(mixed.pooled, encoders.encode(["a fox"], tokens=16).pooled)
    assert not torch.allclose(mixed.pooled, plain.pooled)


@pytest.mark.parametrize("compat", sorted(set(LENGTHS) - {"comfy"}))
def test_length_is_what_was_asked_for(compat: str, encoders: TextEncoders) -> None:
    assert encoders.encode(["fox " * 300], tokens=64, compat=compat).txt.shape[1] == 64


@pytest.mark.parametrize(("words", "length"), [(1, 256), (255, 256), (300, 301)])
def test_comfy_pads_to_256_and_never_cuts(words: int, length: int, encoders: TextEncoders) -> None:
    made = encoders.encode(["fox " * words], tokens=64, compat="comfy")
    assert made.txt.shape[1] == length
    assert made.cut == (0,)


@pytest.mark.parametrize("name", ["T5", "CLIP"])
def test_a_tokenizer_of_another_model_is_told(name: str, encoders: TextEncoders) -> None:
    changed = {
        "T5": {"t5": T5Encoder(T5Shape(vocab=5, hidden=8, layers=1, heads=2, head_dim=4, mlp=12))},
        "CLIP": {"clip": ClipTextEncoder(ClipShape(vocab=5, hidden=10, layers=1, heads=2, mlp=12, positions=9, eos=1))},
    }
    small = replace(encoders, **changed[name])
    assert small.encode(["a red"], tokens=8).txt.shape == (1, 8, 8), "tokens that nobody uses do not matter"
    with pytest.raises(BadWeights, match=f"the {name} tokenizer gives token 5, and its encoder has 5"):
        small.encode(["a red fox"], tokens=8)


def test_unknown_profiles_are_named(encoders: TextEncoders) -> None:
    with pytest.raises(UnknownName, match="comfy"):
        encoders.encode(["fox"], tokens=16, compat="comfyui")
