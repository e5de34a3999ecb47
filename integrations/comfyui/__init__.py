"""Nodes for ComfyUI that draw on a `fluxone serve`: a copy of this folder in `custom_nodes`, and `pip install fluxone`.

A node sends its pictures and words to the server and gives back what came; the models are the server's. Pictures in
ComfyUI are tensors `(B, H, W, 3)` in 0..1, masks `(B, H, W)`; of a batch the first is sent, or for Edit all.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from PIL import Image

from fluxone import Client
from fluxone.client import LOCAL, Picture

SEEDS = 2**31 - 1
SERVER = ("STRING", {"default": LOCAL})
KEY = ("STRING", {"default": "", "tooltip": "API key, if the server needs one"})
PROMPT = ("STRING", {"multiline": True, "default": ""})
SEED = ("INT", {"default": 0, "min": 0, "max": SEEDS, "control_after_generate": True})
STEPS = ("INT", {"default": 0, "min": 0, "max": 50, "tooltip": "0: the model's own"})
MARGIN = ("INT", {"default": 0, "min": 0, "max": 2048, "step": 16})
SIDE = ("INT", {"default": 1024, "min": 256, "max": 1440, "step": 32})
LORAS = ("STRING", {"default": "", "tooltip": "as the server calls them: NAME or NAME:SCALE, by commas"})


def to_picture(image: torch.Tensor, number: int = 0) -> Image.Image:
    """One of a batch (B H W 3, 0..1), as Pillow has it."""
    return Image.fromarray((image[number].clamp(0, 1) * 255).round().to(torch.uint8).cpu().numpy())


def to_mask(mask: torch.Tensor) -> Image.Image:
    """The first of a batch of masks (B H W, or H W; 1 is repainted), white where it is repainted."""
    first = mask if mask.ndim == 2 else mask[0]
    return Image.fromarray((first.clamp(0, 1) * 255).round().to(torch.uint8).cpu().numpy(), "L")


def to_tensor(image: Image.Image) -> torch.Tensor:
    """A picture as ComfyUI has it: (1 H W 3), 0..1."""
    return torch.from_numpy(np.asarray(image.convert("RGB"), dtype=np.float32) / 255)[None]


def fields_of(steps: int = 0, loras: str = "") -> dict[str, Any]:
    """What the server is told besides."""
    worn = []
    for text in filter(None, (part.strip() for part in loras.split(","))):
        name, _, scale = text.partition(":")
        worn.append({"name": name.strip(), "scale": float(scale or 1)})
    return {name: value for name, value in (("steps", steps), ("loras", worn)) if value}


class Node:
    """What all nodes have: where the server is, and a bar that follows it."""

    RETURN_TYPES = ("IMAGE",)
    FUNCTION = "draw"
    CATEGORY = "fluxone"

    def made(self, call: Callable[..., Picture], *arguments: Any, **named: Any) -> tuple[torch.Tensor]:
        """Call, show progress, and return the picture."""
        return (to_tensor(call(*arguments, on_progress=self.progress(), **named).image),)

    def progress(self) -> Callable[[float, Image.Image | None], None]:
        """ComfyUI's own bar, with previews; nothing outside of it."""
        try:
            from comfy.utils import ProgressBar
        except ImportError:
            return lambda share, preview: None
        bar = ProgressBar(100)

        def follow(share: float, preview: Image.Image | None) -> None:
            bar.update_absolute(round(100 * share), 100, None if preview is None else ("PNG", preview, 512))

        return follow


def inputs(**needed: Any) -> Mapping[str, Mapping[str, Any]]:
    """A node's inputs, and those that all have."""
    return {"required": needed, "optional": {"loras": LORAS, "server": SERVER, "key": KEY}}


class Draw(Node):
    """Words to a picture."""

    @classmethod
    def INPUT_TYPES(cls) -> Mapping[str, Any]:
        """As ComfyUI asks for them."""
        return inputs(prompt=PROMPT, width=SIDE, height=SIDE, seed=SEED, steps=STEPS)

    def draw(
        self, prompt: str, width: int, height: int, seed: int, steps: int,
        loras: str = "", server: str = LOCAL, key: str = "",
    ) -> tuple[torch.Tensor]:  # fmt: skip
        """Draw."""
        client, fields = Client(server, key=key or None), fields_of(steps, loras)
        return self.made(client.generate, prompt, size=(width, height), seed=seed, fields=fields)


class Ultra(Node):
    """Words to four megapixels."""

    @classmethod
    def INPUT_TYPES(cls) -> Mapping[str, Any]:
        """As ComfyUI asks for them."""
        aspect, raw = ("STRING", {"default": "16:9"}), ("BOOLEAN", {"default": False})
        return inputs(prompt=PROMPT, aspect=aspect, raw=raw, seed=SEED)

    def draw(
        self, prompt: str, aspect: str, raw: bool, seed: int, loras: str = "", server: str = LOCAL, key: str = ""
    ) -> tuple[torch.Tensor]:
        """Draw."""
        client = Client(server, key=key or None)
        return self.made(client.ultra, prompt, aspect=aspect, raw=raw, seed=seed, fields=fields_of(0, loras))


class Edit(Node):
    """Pictures changed by an instruction; a batch is looked at together."""

    @classmethod
    def INPUT_TYPES(cls) -> Mapping[str, Any]:
        """As ComfyUI asks for them."""
        return inputs(image=("IMAGE",), instruction=PROMPT, seed=SEED)

    def draw(
        self, image: torch.Tensor, instruction: str, seed: int, loras: str = "", server: str = LOCAL, key: str = ""
    ) -> tuple[torch.Tensor]:
        """Draw."""
        client, images = Client(server, key=key or None), [to_picture(image, number) for number in range(len(image))]
        return self.made(client.edit, images, instruction, seed=seed, fields=fields_of(0, loras))


class Fill(Node):
    """What a mask covers drawn anew."""

    @classmethod
    def INPUT_TYPES(cls) -> Mapping[str, Any]:
        """As ComfyUI asks for them."""
        return inputs(image=("IMAGE",), mask=("MASK",), prompt=PROMPT, seed=SEED)

    def draw(
        self, image: torch.Tensor, mask: torch.Tensor, prompt: str, seed: int,
        loras: str = "", server: str = LOCAL, key: str = "",
    ) -> tuple[torch.Tensor]:  # fmt: skip
        """Draw."""
        client = Client(server, key=key or None)
        return self.made(client.fill, to_picture(image), to_mask(mask), prompt, seed=seed, fields=fields_of(0, loras))


class Expand(Node):
    """A picture grown on its sides."""

    @classmethod
    def INPUT_TYPES(cls) -> Mapping[str, Any]:
        """As ComfyUI asks for them."""
        return inputs(
            image=("IMAGE",), prompt=PROMPT, left=MARGIN, right=MARGIN, top=MARGIN, bottom=MARGIN, seed=SEED
        )

    def draw(
        self, image: torch.Tensor, prompt: str, left: int, right: int, top: int, bottom: int, seed: int,
        loras: str = "", server: str = LOCAL, key: str = "",
    ) -> tuple[torch.Tensor]:  # fmt: skip
        """Draw."""
        margins = {"left": left, "right": right, "top": top, "bottom": bottom}
        client, fields = Client(server, key=key or None), fields_of(0, loras)
        return self.made(client.expand, to_picture(image), prompt, margins=margins, seed=seed, fields=fields)


class Control(Node):
    """Along the edges of a picture, or along given depths or limbs."""

    @classmethod
    def INPUT_TYPES(cls) -> Mapping[str, Any]:
        """As ComfyUI asks for them."""
        return inputs(kind=(["canny", "depth", "pose"],), image=("IMAGE",), prompt=PROMPT, seed=SEED)

    def draw(
        self, kind: str, image: torch.Tensor, prompt: str, seed: int,
        loras: str = "", server: str = LOCAL, key: str = "",
    ) -> tuple[torch.Tensor]:  # fmt: skip
        """Draw."""
        client, fields = Client(server, key=key or None), fields_of(0, loras)
        return self.made(client.control, kind, to_picture(image), prompt, seed=seed, fields=fields)


NODE_CLASS_MAPPINGS = {f"Fluxone{node.__name__}": node for node in (Draw, Ultra, Edit, Fill, Expand, Control)}
NODE_DISPLAY_NAME_MAPPINGS = {name: f"fluxone: {name.removeprefix('Fluxone').lower()}" for name in NODE_CLASS_MAPPINGS}
