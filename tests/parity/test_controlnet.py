"""ControlNets beside tiny models against diffusers' FluxControlNetPipeline and its kin: pixels within 1e-4."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import (
    FluxControlNetImg2ImgPipeline,
    FluxControlNetInpaintPipeline,
    FluxControlNetModel,
    FluxControlNetPipeline,
    FluxMultiControlNetModel,
)
from PIL import Image

from fluxone import FluxPipeline
from fluxone.errors import BadRequest
from parity.conftest import TINIES, Oracle, Tiny
from parity.equal import scatter
from parity.test_pipeline import arguments, assert_close, change_words, start

Get = Callable[[str], Oracle]
Nets = Callable[[str, str, int], tuple[FluxControlNetModel, Path]]
# kind -> blocks, guided, modes, XLabs' own encoder
KINDS: dict[str, tuple[int, int, bool, int | None, bool]] = {
    "plain": (1, 2, True, None, False),
    "short": (1, 1, True, None, False),
    "union": (1, 1, False, 5, False),
    "xlabs": (1, 0, True, None, True),
}


def controlnet(tiny: Tiny, kind: str, seed: int) -> FluxControlNetModel:
    doubles, singles, guided, modes, own = KINDS[kind]
    model = FluxControlNetModel(
        patch_size=2 if own else 1,
        in_channels=4 * tiny.latent,
        num_layers=doubles,
        num_single_layers=singles,
        attention_head_dim=sum(tiny.axes),
        num_attention_heads=tiny.heads,
        joint_attention_dim=tiny.text,
        pooled_projection_dim=tiny.pooled,
        guidance_embeds=guided,
        axes_dims_rope=list(tiny.axes),
        num_mode=modes,
        conditioning_embedding_channels=tiny.latent if own else None,
    ).eval()
    scatter(model)
    source = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, value in model.named_parameters():
            if "controlnet_" in name and value.ndim > 1:  # strong enough to be seen
                value.copy_(torch.randn(value.shape, generator=source) * 1.5 / value.shape[1] ** 0.5)
    return model


@pytest.fixture(scope="module")
def nets(tmp_path_factory: pytest.TempPathFactory) -> Nets:
    made: dict[tuple[str, str, int], tuple[FluxControlNetModel, Path]] = {}

    def get(tiny: str, kind: str, seed: int = 0) -> tuple[FluxControlNetModel, Path]:
        key = (tiny, kind, seed)
        if key not in made:
            folder = tmp_path_factory.mktemp(f"{tiny}-{kind}-{seed}")
            model = controlnet(TINIES[tiny], kind, seed)
            model.save_pretrained(folder)
            made[key] = model, folder
        return made[key]

    return get


def both(
    oracle: Oracle, made: list[tuple[FluxControlNetModel, Path]], kind: type, *, multi: bool = False, **kwargs: Any
) -> tuple[Any, Any]:
    models = [model for model, _ in made]
    net = FluxMultiControlNetModel(models) if multi or len(models) > 1 else models[0]
    theirs = kind(**{name: part for name, part in oracle.pipe.components.items() if part is not None}, controlnet=net)
    theirs.set_progress_bar_config(disable=True)
    ours = FluxPipeline.from_pretrained(str(oracle.folder), torch_dtype=torch.float32, device="cpu")
    for i, (_, folder) in enumerate(made):
        ours.load_controlnet(folder, adapter_name=f"net{i}")
    return tuple(pipe(**kwargs, generator=torch.Generator().manual_seed(3)).images for pipe in (theirs, ours))


# name -> tiny model, kinds of ControlNets, other arguments
CASES: dict[str, tuple[str, list[str], dict[str, Any]]] = {
    "one": ("dev", ["plain"], {"controlnet_conditioning_scale": 0.7}),
    "shorter than the network": ("odd", ["short"], {}),
    "guided beside an unguided network": ("schnell", ["plain"], {"controlnet_conditioning_scale": 1.3}),
    "xlabs": ("dev", ["xlabs"], {"controlnet_conditioning_scale": 0.8}),
    "union": ("dev", ["union"], {"control_mode": 2}),
    "from the second to the third step": (
        "dev",
        ["plain"],
        {"control_guidance_start": 0.2, "control_guidance_end": 0.6, "num_inference_steps": 5},
    ),
    "true cfg: the prompt's residuals on both sides": (
        "dev",
        ["plain"],
        {"negative_prompt": "blur", "true_cfg_scale": 3.0},
    ),
    "two of one": ("dev", ["plain"], {"num_images_per_prompt": 2}),
    "two prompts, two pictures": (
        "dev",
        ["plain"],
        {"prompt": ["the fox", "a dog"], "control_image": [start(40, 60), start(70, 30, 1)]},
    ),
    "two of one kind": (
        "dev",
        ["plain", "plain"],
        {
            "control_image": [start(40, 60), start(70, 30, 1)],
            "controlnet_conditioning_scale": [0.5, 0.9],
            "control_guidance_start": [0.0, 0.3],
            "control_guidance_end": [0.7, 1.0],
        },
    ),
    "words that change on the way": (
        "dev",
        ["plain"],
        {"callback_on_step_end": change_words, "callback_on_step_end_tensor_inputs": ["prompt_embeds"]},
    ),
    "one union twice": (
        "odd",
        ["union"],
        {
            "control_image": [start(40, 60), start(70, 30, 1)],
            "control_mode": [0, 4],
            "controlnet_conditioning_scale": [0.5, 0.9],
            "control_guidance_start": [0.0, 0.0],
            "control_guidance_end": [1.0, 1.0],
        },
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_text_to_image(oracle: Get, nets: Nets, case: str) -> None:
    tiny, kinds, more = CASES[case]
    made = [nets(tiny, kind, i) for i, kind in enumerate(kinds)]
    kwargs = arguments(tiny, 4, 3, {"control_image": start(50, 37), "controlnet_conditioning_scale": 1.0} | more)
    multi = isinstance(more.get("control_mode"), list)
    theirs, ours = both(oracle(tiny), made, FluxControlNetPipeline, multi=multi, **kwargs)
    assert_close(theirs, ours)


def test_image_to_image(oracle: Get, nets: Nets) -> None:
    more = {"image": start(50, 37), "strength": 0.7, "num_inference_steps": 4, "control_image": start(40, 60, 1)}
    kwargs = arguments("dev", 4, 3, more | {"controlnet_conditioning_scale": 0.7})
    assert_close(*both(oracle("dev"), [nets("dev", "plain", 0)], FluxControlNetImg2ImgPipeline, **kwargs))


def test_inpainting(oracle: Get, nets: Nets) -> None:
    mask = Image.new("L", (48, 64))
    mask.paste(255, (10, 20, 40, 50))
    more = {"image": start(48, 64), "mask_image": mask, "strength": 0.9, "num_inference_steps": 4}
    more |= {"control_image": start(48, 64, 1), "controlnet_conditioning_scale": 0.7}
    kwargs = arguments("dev", 4, 3, more)
    assert_close(*both(oracle("dev"), [nets("dev", "xlabs", 0)], FluxControlNetInpaintPipeline, **kwargs))


def test_it_matters_and_leaves_nothing_behind(oracle: Get, nets: Nets) -> None:
    kwargs = arguments("dev", 4, 3, {"seed": 1})
    pipe = FluxPipeline.from_pretrained(str(oracle("dev").folder), controlnet=str(nets("dev", "plain", 0)[1]))
    assert pipe.get_list_controlnets() == [nets("dev", "plain", 0)[1].name]
    one, other = (pipe(**kwargs, control_image=start(48, 64, seed)).images for seed in (0, 1))
    assert np.abs(one - other).max() > 0.01
    off = pipe(**kwargs, control_image=start(48, 64), controlnet_conditioning_scale=0.0).images
    pipe.unload_controlnet()
    without = pipe(**kwargs).images
    plain = FluxPipeline.from_pretrained(str(oracle("dev").folder))(**kwargs).images
    assert np.array_equal(without, plain) and np.array_equal(off, plain)
    assert not any(block._forward_hooks for block in pipe.transformer.modules())


@pytest.mark.parametrize("offload", ["model", "block"])
def test_offloading_changes_nothing(oracle: Get, nets: Nets, offload: str) -> None:
    kwargs = arguments("dev", 4, 3, {"seed": 1, "control_image": start(48, 64)})
    made = []
    for mode in ("none", offload):
        pipe = FluxPipeline.from_pretrained(str(oracle("dev").folder), offload=mode)
        pipe.load_controlnet(nets("dev", "plain", 0)[1])
        made.append(pipe(**kwargs).images)
    assert np.array_equal(*made)


def test_what_does_not_fit_is_refused(oracle: Get, nets: Nets) -> None:
    pipe = FluxPipeline.from_pretrained(str(oracle("dev").folder))
    kwargs = arguments("dev", 4, 3, {"seed": 1})
    union = nets("dev", "union", 0)[1]
    pipe.load_controlnet(union, adapter_name="u")
    with pytest.raises(BadRequest, match="given no picture"):
        pipe(**kwargs)
    with pytest.raises(BadRequest, match="is not told its mode; give one of canny, tile, depth, blur, pose"):
        pipe(**kwargs, control_image=start(48, 64))
    with pytest.raises(BadRequest, match="control mode 5 is none of the 5"):
        pipe(**kwargs, control_image=start(48, 64), control_mode=5)
    with pytest.raises(BadRequest, match="there is a ControlNet 'u' already"):
        pipe.load_controlnet(union, adapter_name="u")
    pipe.load_controlnet(nets("dev", "plain", 0)[1], adapter_name="p")
    with pytest.raises(BadRequest, match="1 pictures for 2 ControlNets"):
        pipe(**kwargs, control_image=[start(48, 64)], control_mode=["canny", None])
    with pytest.raises(BadRequest, match="'p' knows no modes"):
        pipe(**kwargs, control_image=[start(48, 64)] * 2, control_mode=["canny", "canny"])
    with pytest.raises(BadRequest, match=r"works from 0\.5 to 0\.2"):
        pipe(**kwargs, control_image=[start(48, 64)] * 2, control_guidance_start=0.5, control_guidance_end=0.2)
