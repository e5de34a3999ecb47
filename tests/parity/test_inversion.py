"""Own words (textual inversion) against diffusers' load_textual_inversion: what both encoders make of prompts."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from fluxone import FluxPipeline
from fluxone.errors import BadFile, BadRequest, BadWeights
from parity.conftest import TINIES, Oracle, build
from parity.test_pipeline import arguments, assert_close

Get = Callable[[str], Oracle]
TINY = TINIES["dev"]
PROMPTS = ["a <s0><s1> dog", "<s0>", "the fox <s1>, <s0> red", "plain words", "x<s1>y"]


def vectors(seed: int, count: int, width: int) -> torch.Tensor:
    return torch.randn(count, width, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As diffusers' advanced trainer writes it: two words for both encoders."""
    path = tmp_path_factory.mktemp("inversion") / "emb.safetensors"
    save_file({"clip_l": vectors(0, 2, TINY.pooled), "t5": vectors(1, 2, TINY.text)}, path)
    return path


@pytest.fixture(scope="module")
def theirs() -> Any:
    pipe = build(TINY)
    words = ["<s0>", "<s1>"]
    clip, t5 = vectors(0, 2, TINY.pooled), vectors(1, 2, TINY.text)
    pipe.load_textual_inversion(list(clip), token=words, text_encoder=pipe.text_encoder, tokenizer=pipe.tokenizer)
    pipe.load_textual_inversion(list(t5), token=words, text_encoder=pipe.text_encoder_2, tokenizer=pipe.tokenizer_2)
    return pipe


def load(oracle: Get) -> FluxPipeline:
    return FluxPipeline.from_pretrained(str(oracle("dev").folder), torch_dtype=torch.float32, device="cpu")


def assert_same(theirs: Any, ours: FluxPipeline, prompt: str) -> None:
    txt, pooled, _ = theirs.encode_prompt(prompt, None, max_sequence_length=24)
    found = ours.pipeline.encode([prompt], [None], 24)
    assert (found.txt - txt).abs().max() < 1e-5
    assert (found.pooled - pooled).abs().max() < 1e-5


@pytest.mark.parametrize("prompt", PROMPTS)
def test_both_encoders_read_them(oracle: Get, theirs: Any, file: Path, prompt: str) -> None:
    ours = load(oracle)
    ours.load_textual_inversion(str(file), token=["<s0>", "<s1>"])
    assert_same(theirs, ours, prompt)


def test_the_vectors_themselves_as_in_diffusers_documentation(oracle: Get, theirs: Any) -> None:
    ours, words = load(oracle), ["<s0>", "<s1>"]
    clip, t5 = vectors(0, 2, TINY.pooled), vectors(1, 2, TINY.text)
    ours.load_textual_inversion(clip, token=words, text_encoder=ours.text_encoder, tokenizer=ours.tokenizer)
    ours.load_textual_inversion(t5, token=words, text_encoder=ours.text_encoder_2, tokenizer=ours.tokenizer_2)
    assert_same(theirs, ours, PROMPTS[0])


def test_one_word_of_several_vectors_for_clip(oracle: Get, tmp_path: Path) -> None:
    """A file of one key: the word is the key, the encoder the one of that width; T5 reads the word as it stands."""
    save_file({"<cat>": vectors(3, 3, TINY.pooled)}, tmp_path / "cat.safetensors")
    pipe = build(TINY)
    pipe.load_textual_inversion(str(tmp_path), weight_name="cat.safetensors")
    ours = load(oracle)
    ours.load_textual_inversion(tmp_path / "cat.safetensors")
    assert ours.pipeline.text is not None and ours.pipeline.text.own.names == ["<cat>"]
    prompt = "the <cat> reads"
    _, pooled, _ = pipe.encode_prompt(prompt, None, max_sequence_length=24)
    found = ours.pipeline.encode([prompt], [None], 24)
    assert (found.pooled - pooled).abs().max() < 1e-5
    plain, _, _ = oracle("dev").pipe.encode_prompt(prompt, None, max_sequence_length=24)
    assert (found.txt - plain).abs().max() < 1e-5


def test_pictures_change_and_come_back(oracle: Get, theirs: Any, file: Path) -> None:
    kwargs = arguments("dev", 3, 3, {"prompt": PROMPTS[0]})
    source = torch.Generator().manual_seed
    ours = load(oracle)
    plain = ours(**kwargs, generator=source(3)).images
    ours.load_textual_inversion(file, token=["<s0>", "<s1>"])
    assert_close(theirs(**kwargs, generator=source(3)).images, ours(**kwargs, generator=source(3)).images)
    ours.unload_textual_inversion()
    assert np.array_equal(ours(**kwargs, generator=source(3)).images, plain)
    assert not any(module._forward_hooks for module in ours.pipeline.text.clip.modules())  # type: ignore[union-attr]


def test_bundled_in_an_adapter(oracle: Get, file: Path, theirs: Any, tmp_path: Path) -> None:
    """OneTrainer's way: `bundle_emb.WORD.ENCODER` inside a LoRA; the words come and go with it."""
    width = TINY.heads * sum(TINY.axes)
    state = {
        "transformer.transformer_blocks.0.attn.to_q.lora_A.weight": torch.zeros(2, width),
        "transformer.transformer_blocks.0.attn.to_q.lora_B.weight": torch.zeros(width, 2),
    }
    for i in range(2):
        state[f"bundle_emb.<s{i}>.clip_l"] = vectors(0, 2, TINY.pooled)[i : i + 1].clone()
        state[f"bundle_emb.<s{i}>.t5"] = vectors(1, 2, TINY.text)[i : i + 1].clone()
    save_file(state, tmp_path / "lora.safetensors")
    ours = load(oracle)
    before = ours.pipeline.encode([PROMPTS[0]], [None], 24).txt
    ours.load_lora_weights(tmp_path / "lora.safetensors", adapter_name="a")
    assert_same(theirs, ours, PROMPTS[0])
    ours.delete_adapters("a")
    assert torch.equal(ours.pipeline.encode([PROMPTS[0]], [None], 24).txt, before)
    state["bundle_emb.<s0>.clip_l"] = torch.zeros(1, 5)
    save_file(state, tmp_path / "lora.safetensors")
    with pytest.raises(BadWeights, match=r"the encoder takes \(N, 32\)"):
        ours.load_lora_weights(tmp_path / "lora.safetensors", adapter_name="b")
    assert ours.get_active_adapters() == [] and ours.pipeline.text.own.names == []  # type: ignore[union-attr]


def test_what_is_no_embedding_is_refused(oracle: Get, file: Path, tmp_path: Path) -> None:
    ours = load(oracle)
    with pytest.raises(BadRequest, match=r"3 words for \[2\] vectors"):
        ours.load_textual_inversion(file, token=["a", "b", "c"])
    ours.load_textual_inversion(file, token="<fox>")
    with pytest.raises(BadRequest, match="there is an own word '<fox>' already"):
        ours.load_textual_inversion(file, token="<fox>")
    save_file({"w": torch.zeros(1, 7)}, tmp_path / "odd.safetensors")
    with pytest.raises(BadWeights, match="w is 7 wide, and no encoder is"):
        ours.load_textual_inversion(tmp_path / "odd.safetensors")
    (tmp_path / "old.pt").write_bytes(b"PK\x03\x04")
    with pytest.raises(BadFile, match="pickled"):
        ours.load_textual_inversion(tmp_path / "old.pt")
