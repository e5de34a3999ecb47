"""The `config.json` files of a diffusers folder, to and from our shapes.

A config may describe more than FLUX.1 has; whatever the network cannot do is refused by name, never ignored.

Source: the configs' defaults are those of huggingface/diffusers 0.42 and huggingface/transformers 5.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from fluxone.errors import BadFile, BadWeights
from fluxone.shapes import ACTIVATIONS, AutoEncoderShape, ClipShape, ClipVisionShape, FluxShape, T5Shape, TinyShape
from fluxone.variants import Variant

Config = Mapping[str, Any]

TRANSFORMER_CLASS = "FluxTransformer2DModel"
AUTOENCODER_CLASS = "AutoencoderKL"
SCHEDULER_CLASS = "FlowMatchEulerDiscreteScheduler"
EXPONENTIAL, LINEAR = "exponential", "linear"
# Row of `sampling.schedule.SPACINGS` -> the key that asks for it; a test compares.
SPACINGS = {"karras": "use_karras_sigmas", "exponential": "use_exponential_sigmas", "beta": "use_beta_sigmas"}
GATED_GELU = "gated-gelu"  # a name that means the approximation, `gelu_new`
QUANTIZED, READABLE = "quantization_config", "bitsandbytes"  # whose tensors tell how they are packed
LARGE = 1_000_000  # no size in a config is as large
LONG = 200  # no network has as many layers
STAGES = 8  # nor an autoencoder as many levels, or a position as many axes


def read_flux(config: Config, path: object) -> FluxShape:
    """Read the transformer's config.

    Raises:
        BadFile: a value is no number, or out of range.
        BadWeights: it describes another architecture.
    """
    _check_class(config, TRANSFORMER_CLASS, path)
    _refuse_unless(config, {"patch_size": 1, "quantization_config": None}, path)
    head_dim = _whole(config, "attention_head_dim", 128, path)
    heads = _whole(config, "num_attention_heads", 24, path)
    in_channels = _whole(config, "in_channels", 64, path)
    out_channels = in_channels if config.get("out_channels") is None else _whole(config, "out_channels", 64, path)
    axes = _list(config, "axes_dims_rope", [16, 56, 56], path)
    if len(axes) != 3 or sum(axes) != head_dim or any(size % 2 for size in axes):
        raise BadWeights(
            f"{path}: axes_dims_rope is {axes}, attention_head_dim {head_dim}",
            hint="three even numbers must add up to the head's dimension",
        )
    return FluxShape(
        in_channels=in_channels,
        out_channels=out_channels,
        hidden=heads * head_dim,
        heads=heads,
        axes=tuple(axes),
        double_blocks=_whole(config, "num_layers", 19, path, least=0),
        single_blocks=_whole(config, "num_single_layers", 38, path, least=0),
        text_dim=_whole(config, "joint_attention_dim", 4096, path),
        vec_dim=_whole(config, "pooled_projection_dim", 768, path),
        guided=bool(config.get("guidance_embeds", False)),
    )


def write_flux(shape: FluxShape) -> dict[str, Any]:
    """The config that diffusers reads for a transformer of this shape.

    Raises:
        BadWeights: diffusers has no key for one of the shape's numbers.
    """
    if shape.mlp_ratio != 4.0 or shape.theta != 10000.0:
        raise BadWeights(
            f"the network has mlp_ratio {shape.mlp_ratio} and theta {shape.theta}",
            hint="the diffusers layout can say only 4.0 and 10000",
        )
    return {
        "_class_name": TRANSFORMER_CLASS,
        "patch_size": 1,
        "in_channels": shape.in_channels,
        "out_channels": shape.out_channels,
        "num_layers": shape.double_blocks,
        "num_single_layers": shape.single_blocks,
        "attention_head_dim": shape.head_dim,
        "num_attention_heads": shape.heads,
        "joint_attention_dim": shape.text_dim,
        "pooled_projection_dim": shape.vec_dim,
        "guidance_embeds": shape.guided,
        "axes_dims_rope": list(shape.axes),
    }


def read_autoencoder(config: Config, path: object) -> AutoEncoderShape:
    """Read the autoencoder's config.

    Raises:
        BadFile: a value is no number, or out of range.
        BadWeights: it describes another architecture.
    """
    _check_class(config, AUTOENCODER_CLASS, path)
    only = {"act_fn": "silu", "latents_mean": None, "latents_std": None, "out_channels": 3, "in_channels": 3}
    _refuse_unless(config, only | {"quantization_config": None}, path)
    for key, block in (("down_block_types", "DownEncoderBlock2D"), ("up_block_types", "UpDecoderBlock2D")):
        if not isinstance(blocks := config.get(key, []), list) or any(name != block for name in blocks):
            raise BadWeights(f"{path}: {key} is {blocks!r:.200}", hint=f"FLUX.1's autoencoder has {block} only")
    shift = config.get("shift_factor")
    channels = _list(config, "block_out_channels", [64], path)
    groups = _whole(config, "norm_num_groups", 32, path)
    if any(wide % groups for wide in channels):
        raise BadFile(f"{path}: block_out_channels is {channels}", hint=f"groups of {groups} must divide them")
    return AutoEncoderShape(
        channels=tuple(channels),
        blocks=_whole(config, "layers_per_block", 1, path),
        latent=_whole(config, "latent_channels", 4, path),
        groups=groups,
        scale=_number(config, "scaling_factor", 0.18215, path),
        shift=0.0 if shift is None else _number(config, "shift_factor", 0.0, path),
        attention=_flag(config, "mid_block_add_attention", True, path),
        quant=_flag(config, "use_quant_conv", True, path),
        post_quant=_flag(config, "use_post_quant_conv", True, path),
    )


def write_autoencoder(shape: AutoEncoderShape, sample: int) -> dict[str, Any]:
    """The config that diffusers reads for an autoencoder of this shape, trained on pictures of `sample` px."""
    return {
        "_class_name": AUTOENCODER_CLASS,
        "act_fn": "silu",
        "in_channels": shape.colours,
        "out_channels": shape.colours,
        "block_out_channels": list(shape.channels),
        "down_block_types": ["DownEncoderBlock2D"] * len(shape.channels),
        "up_block_types": ["UpDecoderBlock2D"] * len(shape.channels),
        "layers_per_block": shape.blocks,
        "latent_channels": shape.latent,
        "norm_num_groups": shape.groups,
        "scaling_factor": shape.scale,
        "shift_factor": shape.shift,
        "sample_size": sample,
        "force_upcast": True,
        "mid_block_add_attention": shape.attention,
        "use_quant_conv": shape.quant,
        "use_post_quant_conv": shape.post_quant,
    }


def read_t5(config: Config, path: object) -> T5Shape:
    """Read the T5 encoder's config.

    Raises:
        BadFile: a value is no number, or out of range.
        BadWeights: it describes another architecture.
    """
    _refuse_unless(config, {"model_type": "t5", "quantization_config": None}, path)
    forward = config.get("feed_forward_proj", "relu")
    name = forward.removeprefix("gated-") if isinstance(forward, str) else ""
    return T5Shape(
        vocab=_whole(config, "vocab_size", 32128, path),
        hidden=_whole(config, "d_model", 512, path),
        layers=_whole(config, "num_layers", 6, path),
        heads=_whole(config, "num_heads", 8, path),
        head_dim=_whole(config, "d_kv", 64, path),
        mlp=_whole(config, "d_ff", 2048, path),
        activation=_activation("gelu_new" if forward == GATED_GELU else name, f"{path}: feed_forward_proj", forward),
        gated=name != forward,
        buckets=_whole(config, "relative_attention_num_buckets", 32, path),
        max_distance=_whole(config, "relative_attention_max_distance", 128, path),
        eps=_number(config, "layer_norm_epsilon", 1e-6, path),
    )


def write_t5(shape: T5Shape) -> dict[str, Any]:
    """The config that transformers reads for a T5 encoder of this shape.

    Raises:
        BadWeights: transformers has no word for its feed-forward layers.
    """
    if shape.gated and shape.activation == "gelu":
        raise BadWeights("a T5 encoder gated by exact GELU has no config", hint="'gated-gelu' means gelu_new there")
    forward = f"gated-{shape.activation}" if shape.gated else shape.activation
    return {
        "architectures": ["T5EncoderModel"],
        "model_type": "t5",
        "d_ff": shape.mlp,
        "d_kv": shape.head_dim,
        "d_model": shape.hidden,
        "dense_act_fn": shape.activation,
        "feed_forward_proj": GATED_GELU if forward == "gated-gelu_new" else forward,
        "is_gated_act": shape.gated,
        "is_encoder_decoder": False,
        "layer_norm_epsilon": shape.eps,
        "num_heads": shape.heads,
        "num_layers": shape.layers,
        "relative_attention_max_distance": shape.max_distance,
        "relative_attention_num_buckets": shape.buckets,
        "vocab_size": shape.vocab,
        "pad_token_id": 0,
        "eos_token_id": 1,
        "use_cache": False,
    }


def read_clip(config: Config, path: object) -> ClipShape:
    """Read the CLIP text encoder's config, alone or inside that of a whole CLIP.

    Raises:
        BadFile: a value is no number, or out of range.
        BadWeights: it describes another architecture.
    """
    if isinstance(config.get("text_config"), Mapping):
        config = config["text_config"]
    _refuse_unless(config, {"quantization_config": None}, path)
    kind = config.get("model_type", "clip_text_model")
    if kind not in ("clip", "clip_text_model"):
        raise BadWeights(f"{path}: model_type is {kind!r}", hint="FLUX.1 needs CLIP's text encoder")
    activation = config.get("hidden_act", "quick_gelu")
    hidden, heads = _whole(config, "hidden_size", 512, path), _whole(config, "num_attention_heads", 8, path)
    if hidden % heads:
        raise BadFile(f"{path}: hidden_size is {hidden}", hint=f"num_attention_heads, {heads}, must divide it")
    return ClipShape(
        vocab=_whole(config, "vocab_size", 49408, path),
        hidden=hidden,
        layers=_whole(config, "num_hidden_layers", 12, path),
        heads=heads,
        mlp=_whole(config, "intermediate_size", 2048, path),
        positions=_whole(config, "max_position_embeddings", 77, path),
        eos=_whole(config, "eos_token_id", 49407, path, least=0),
        activation=_activation(activation, f"{path}: hidden_act", activation),
        eps=_number(config, "layer_norm_eps", 1e-5, path),
    )


def write_clip(shape: ClipShape) -> dict[str, Any]:
    """The config that transformers reads for a CLIP text encoder of this shape."""
    return {
        "architectures": ["CLIPTextModel"],
        "model_type": "clip_text_model",
        "hidden_act": shape.activation,
        "hidden_size": shape.hidden,
        "intermediate_size": shape.mlp,
        "layer_norm_eps": shape.eps,
        "max_position_embeddings": shape.positions,
        "num_attention_heads": shape.heads,
        "num_hidden_layers": shape.layers,
        "projection_dim": shape.hidden,
        "vocab_size": shape.vocab,
        "eos_token_id": shape.eos,
        "bos_token_id": None,
        "pad_token_id": None,
    }


def read_clip_vision(config: Config, path: object) -> ClipVisionShape:
    """Read the CLIP picture encoder's config, alone or inside that of a whole CLIP.

    Raises:
        BadFile: a value is no number, or out of range.
        BadWeights: it describes another architecture.
    """
    if isinstance(config.get("vision_config"), Mapping):
        config = {"projection_dim": config.get("projection_dim", 512), **config["vision_config"]}
    _refuse_unless(config, {"quantization_config": None, "num_channels": 3}, path)
    activation = config.get("hidden_act", "quick_gelu")
    hidden, heads = _whole(config, "hidden_size", 768, path), _whole(config, "num_attention_heads", 12, path)
    size, patch = _whole(config, "image_size", 224, path), _whole(config, "patch_size", 32, path)
    if hidden % heads or patch > size:
        raise BadFile(f"{path}: {hidden} in {heads} heads, patches of {patch} in {size} px", hint="they do not fit")
    return ClipVisionShape(
        hidden=hidden,
        layers=_whole(config, "num_hidden_layers", 12, path),
        heads=heads,
        mlp=_whole(config, "intermediate_size", 3072, path),
        size=size,
        patch=patch,
        out=_whole(config, "projection_dim", 512, path),
        activation=_activation(activation, f"{path}: hidden_act", activation),
        eps=_number(config, "layer_norm_eps", 1e-5, path),
    )


def read_tiny(config: Config, shape: TinyShape, path: object) -> TinyShape:
    """A tiny decoder's shape with the scale and shift that its config says.

    Raises:
        BadFile: a value is no number.
        BadWeights: it describes another architecture.
    """
    only = {"act_fn": "relu", "upsample_fn": "nearest", "upsampling_scaling_factor": 2, "out_channels": 3}
    _refuse_unless(config, only, path)
    scale = _number(config, "scaling_factor", 1.0, path)
    if scale == 0:
        raise BadFile(f"{path}: scaling_factor is 0", hint="download the config again")
    return replace(shape, scale=scale, shift=_number(config, "shift_factor", 0.0, path))


def read_scheduler(config: Config, variant: Variant, path: object) -> Variant:
    """The variant with the schedule's shift that a scheduler's config asks for.

    Raises:
        BadFile: a value is no number, or out of range.
        BadWeights: it asks for a schedule of another kind.
    """
    _check_class(config, SCHEDULER_CLASS, path)
    _refuse_unless(config, {"invert_sigmas": False, "stochastic_sampling": False, "num_train_timesteps": 1000}, path)
    spacings = [name for name, key in SPACINGS.items() if _flag(config, key, False, path)]
    if len(spacings) > 1:
        raise BadFile(f"{path} spaces its levels by {' and '.join(spacings)}", hint="one of them can be true")
    if config.get("time_shift_type", EXPONENTIAL) not in (EXPONENTIAL, LINEAR):
        raise BadFile(f"{path}: time_shift_type is {config['time_shift_type']!r:.80}", hint="exponential or linear")
    terminal = 0.0 if config.get("shift_terminal") is None else _number(config, "shift_terminal", 0.0, path)
    if not 0 <= terminal < 1:
        raise BadFile(f"{path}: shift_terminal is {terminal:g}", hint="a number from 0 to below 1 is needed")
    shifted = bool(config.get("use_dynamic_shifting", False))
    low = _whole(config, "base_image_seq_len", 256, path)
    high = _whole(config, "max_image_seq_len", 4096, path)
    if low == high:
        raise BadFile(f"{path}: base_image_seq_len and max_image_seq_len are both {low}", hint="they must differ")
    shift = 1.0 if shifted else _number(config, "shift", 1.0, path)
    if shift <= 0:
        raise BadFile(f"{path}: shift is {shift:g}", hint="a number above 0 is needed; 1 is no shift")
    return replace(
        variant,
        shifted=shifted,
        shift=shift,
        base_shift=_number(config, "base_shift", 0.5, path),
        max_shift=_number(config, "max_shift", 1.15, path),
        base_tokens=low,
        max_tokens=high,
        linear_shift=config.get("time_shift_type", EXPONENTIAL) == LINEAR,
        terminal=terminal,
        spacing=next(iter(spacings), ""),
    )


def write_scheduler(variant: Variant) -> dict[str, Any]:
    """The config that diffusers reads for a variant's schedule."""
    more = {SPACINGS[variant.spacing]: True} if variant.spacing else {}
    return {
        **more,
        **({"shift_terminal": variant.terminal} if variant.terminal else {}),
        **({"time_shift_type": LINEAR} if variant.linear_shift else {}),
        "_class_name": SCHEDULER_CLASS,
        "num_train_timesteps": 1000,
        "use_dynamic_shifting": variant.shifted,
        "shift": variant.shift,
        "base_shift": variant.base_shift,
        "max_shift": variant.max_shift,
        "base_image_seq_len": variant.base_tokens,
        "max_image_seq_len": variant.max_tokens,
    }


def _check_class(config: Config, name: str, path: object) -> None:
    found = config.get("_class_name", name)
    if found != name:
        raise BadWeights(f"{path} describes a {found}", hint=f"FLUX.1 has a {name} here")


def _refuse_unless(config: Config, allowed: Config, path: object) -> None:
    for key, value in allowed.items():
        if key == QUANTIZED and isinstance(config.get(key), Mapping) and config[key].get("quant_method") == READABLE:
            continue
        if config.get(key, value) != value:
            raise BadWeights(f"{path}: {key} is {config[key]!r:.80}", hint=f"only {value!r} can be run")


def _whole(config: Config, key: str, default: int, path: object, least: int = 1) -> int:
    value, most = config.get(key, default), LONG if "layers" in key else LARGE
    if type(value) is not int or not least <= value <= most:
        raise BadFile(f"{path}: {key} is {value!r:.80}", hint=f"a whole number from {least} to {most:,} is needed")
    return value


def _list(config: Config, key: str, default: list[int], path: object) -> list[int]:
    value = config.get(key, default)
    if not isinstance(value, list) or not 0 < len(value) <= STAGES:
        raise BadFile(f"{path}: {key} is {value!r:.80}", hint=f"a list of 1 to {STAGES} numbers is needed")
    if not all(type(size) is int and 0 < size <= LARGE for size in value):
        raise BadFile(f"{path}: {key} is {value!r:.80}", hint="a list of positive whole numbers is needed")
    return value


def _flag(config: Config, key: str, default: bool, path: object) -> bool:
    value = config.get(key, default)
    if type(value) is not bool:
        raise BadFile(f"{path}: {key} is {value!r:.80}", hint="true or false is needed")
    return value


def _activation(name: object, what: str, said: object) -> str:
    if name not in ACTIVATIONS:
        raise BadWeights(f"{what} is {said!r:.80}", hint=f"known activations are {', '.join(ACTIVATIONS)}")
    return str(name)


def _number(config: Config, key: str, default: float, path: object) -> float:
    value = config.get(key, default)
    if type(value) not in (int, float) or not abs(value) <= LARGE:
        raise BadFile(f"{path}: {key} is {value!r:.80}", hint=f"a number of at most {LARGE:,} is needed")
    return float(value)
