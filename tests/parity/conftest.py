"""Tiny random FLUX pipelines of diffusers, saved to folders: the oracle, and what we load."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKL, FlowMatchEulerDiscreteScheduler, FluxPipeline, FluxTransformer2DModel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer, T5Config, T5EncoderModel, T5Tokenizer

from reference import reference as reference

LETTERS = "abcdefghijklmnopqrstuvwxyz"


@dataclass(frozen=True)
class Tiny:
    """The numbers of a tiny model, far from FLUX.1's and from each other."""

    heads: int = 2
    axes: tuple[int, int, int] = (4, 6, 6)
    doubles: int = 1
    singles: int = 2
    text: int = 24
    pooled: int = 32
    guided: bool = True
    latent: int = 16
    levels: tuple[int, ...] = (8, 8, 16, 16)
    scheduler: dict[str, Any] = field(default_factory=lambda: {"shift": 3.0, "use_dynamic_shifting": True})

    @property
    def factor(self) -> int:
        return 2 ** (len(self.levels) - 1)


DEV = Tiny()
SCHNELL = Tiny(guided=False, heads=3, doubles=2, singles=0, scheduler={"shift": 1.0, "use_dynamic_shifting": False})
FIXED = Tiny(levels=(8, 16), latent=4, text=40, axes=(2, 4, 6), scheduler={"shift": 3.0})
ODD = Tiny(
    levels=(8, 16, 24),
    latent=8,
    doubles=0,
    singles=3,
    pooled=16,
    scheduler={"use_dynamic_shifting": True, "base_shift": 0.2, "max_shift": 2.0, "max_image_seq_len": 512},
)
TINIES = {"dev": DEV, "schnell": SCHNELL, "fixed": FIXED, "odd": ODD}


def clip_tokenizer() -> CLIPTokenizer:
    words = [*LETTERS, *(f"{letter}</w>" for letter in LETTERS), "th", "the</w>", "fo", "fox</w>"]
    special = ["<|startoftext|>", "<|endoftext|>"]
    vocab = {word: i for i, word in enumerate([*words, *special])}
    merges = [("t", "h"), ("th", "e</w>"), ("f", "o"), ("fo", "x</w>")]
    return CLIPTokenizer(vocab=vocab, merges=merges, model_max_length=77)


def t5_tokenizer() -> T5Tokenizer:
    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -2.0), ("▁the", -3.0), ("fox", -3.5), ("re", -4.0)]
    return T5Tokenizer(vocab=[*pieces, *((letter, -5.0) for letter in LETTERS)], extra_ids=0)


def build(tiny: Tiny, seed: int = 0, *, in_channels: int | None = None, kind: type = FluxPipeline) -> Any:
    """A pipeline with weights that are random and large enough for every part to matter."""
    torch.manual_seed(seed)
    clip_words, t5_words = clip_tokenizer(), t5_tokenizer()
    transformer = FluxTransformer2DModel(
        in_channels=in_channels or 4 * tiny.latent,
        out_channels=4 * tiny.latent,
        num_layers=tiny.doubles,
        num_single_layers=tiny.singles,
        attention_head_dim=sum(tiny.axes),
        num_attention_heads=tiny.heads,
        joint_attention_dim=tiny.text,
        pooled_projection_dim=tiny.pooled,
        guidance_embeds=tiny.guided,
        axes_dims_rope=tiny.axes,
    )
    vae = AutoencoderKL(
        block_out_channels=tiny.levels,
        down_block_types=["DownEncoderBlock2D"] * len(tiny.levels),
        up_block_types=["UpDecoderBlock2D"] * len(tiny.levels),
        layers_per_block=1,
        latent_channels=tiny.latent,
        norm_num_groups=4,
        scaling_factor=0.3611,
        shift_factor=0.1159,
        use_quant_conv=False,
        use_post_quant_conv=False,
    )
    clip = CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(clip_words),
            hidden_size=tiny.pooled,
            intermediate_size=48,
            num_hidden_layers=2,
            num_attention_heads=2,
            bos_token_id=clip_words.bos_token_id,
            eos_token_id=clip_words.eos_token_id,
            pad_token_id=clip_words.pad_token_id,
        )
    )
    t5 = T5EncoderModel(
        T5Config(
            vocab_size=len(t5_words),
            d_model=tiny.text,
            d_kv=8,
            d_ff=48,
            num_layers=2,
            num_heads=3,
            feed_forward_proj="gated-gelu",
        )
    )
    for module in (transformer, vae, clip, t5):
        module.eval()
    for module in (transformer, vae):
        for name, parameter in module.named_parameters():
            if parameter.ndim > 1:
                torch.nn.init.normal_(parameter, std=1.3 / parameter[0].numel() ** 0.5)
            elif name.endswith("bias"):
                torch.nn.init.normal_(parameter, std=0.1)
            else:
                torch.nn.init.normal_(parameter, mean=1.0, std=0.1)
    pipe = kind(
        scheduler=FlowMatchEulerDiscreteScheduler(**tiny.scheduler),
        vae=vae,
        text_encoder=clip,
        tokenizer=clip_words,
        text_encoder_2=t5,
        tokenizer_2=t5_words,
        transformer=transformer,
    )
    pipe.set_progress_bar_config(disable=True)
    return pipe


@dataclass(frozen=True)
class Oracle:
    """A tiny model twice: diffusers' pipeline, and the folder it was saved to."""

    tiny: Tiny
    pipe: FluxPipeline
    folder: Path


@pytest.fixture(scope="session")
def oracle(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Oracle]:
    """The tiny model of a name in `TINIES`, built once."""
    made: dict[str, Oracle] = {}

    def get(name: str) -> Oracle:
        if name not in made:
            folder = tmp_path_factory.mktemp(name)
            pipe = build(TINIES[name])
            pipe.save_pretrained(folder)
            made[name] = Oracle(TINIES[name], pipe, folder)
        return made[name]

    return get
