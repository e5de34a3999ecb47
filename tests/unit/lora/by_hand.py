"""Random adapters for a tiny network, in every style, and what they do to its weights worked out by hand in float64.

It shares nothing with what it tests: names, scales and products are written down here a second time.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from fluxone.nn.transformer import Flux
from fluxone.shapes import FluxShape

SHAPE = FluxShape(
    in_channels=8, out_channels=8, hidden=24, heads=2, axes=(4, 4, 4), double_blocks=2, single_blocks=2, text_dim=20,
    vec_dim=16,
)  # fmt: skip
H, M = 24, 96

# Native module -> diffusers' names of its pieces, for block 1 and the rest of the network.
NAMES = {
    "img_in": ["x_embedder"],
    "txt_in": ["context_embedder"],
    "time_in.in_layer": ["time_text_embed.timestep_embedder.linear_1"],
    "guidance_in.out_layer": ["time_text_embed.guidance_embedder.linear_2"],
    "vector_in.in_layer": ["time_text_embed.text_embedder.linear_1"],
    "final_layer.linear": ["proj_out"],
    "final_layer.adaLN_modulation.1": ["norm_out.linear"],
    "double_blocks.1.img_mod.lin": ["transformer_blocks.1.norm1.linear"],
    "double_blocks.1.txt_mod.lin": ["transformer_blocks.1.norm1_context.linear"],
    "double_blocks.1.img_attn.qkv": [f"transformer_blocks.1.attn.to_{x}" for x in "qkv"],
    "double_blocks.1.txt_attn.qkv": [f"transformer_blocks.1.attn.add_{x}_proj" for x in "qkv"],
    "double_blocks.1.img_attn.proj": ["transformer_blocks.1.attn.to_out.0"],
    "double_blocks.1.txt_attn.proj": ["transformer_blocks.1.attn.to_add_out"],
    "double_blocks.1.img_mlp.0": ["transformer_blocks.1.ff.net.0.proj"],
    "double_blocks.1.img_mlp.2": ["transformer_blocks.1.ff.net.2"],
    "double_blocks.0.txt_mlp.0": ["transformer_blocks.0.ff_context.net.0.proj"],
    "double_blocks.0.txt_mlp.2": ["transformer_blocks.0.ff_context.net.2"],
    "single_blocks.1.modulation.lin": ["single_transformer_blocks.1.norm.linear"],
    "single_blocks.1.linear1": [
        *(f"single_transformer_blocks.1.attn.to_{x}" for x in "qkv"),
        "single_transformer_blocks.1.proj_mlp",
    ],
    "single_blocks.1.linear2": ["single_transformer_blocks.1.proj_out"],
}
SWAPPED = "final_layer.adaLN_modulation.1"
XLABS = {
    "double_blocks.1.img_attn.qkv": "double_blocks.1.processor.qkv_lora1",
    "double_blocks.1.img_attn.proj": "double_blocks.1.processor.proj_lora1",
    "double_blocks.0.txt_attn.qkv": "double_blocks.0.processor.qkv_lora2",
    "double_blocks.0.txt_attn.proj": "double_blocks.0.processor.proj_lora2",
    "single_blocks.1.linear2": "single_blocks.1.processor.proj_lora",
}


def network(dtype: torch.dtype = torch.float64) -> Flux:
    """Random weights, always the same."""
    torch.manual_seed(0)
    model = Flux(SHAPE)
    for parameter in model.parameters():
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=1 / parameter.shape[1] ** 0.5)
        else:
            torch.nn.init.normal_(parameter, std=0.1, mean=float(parameter.shape[0] == H // 2))
    return model.requires_grad_(False).eval().to(dtype)


def run(model: Flux, in_channels: int = 8) -> Tensor:
    """The velocity of a fixed input, in the model's own type."""
    source = torch.Generator().manual_seed(1)
    dtype = next(model.parameters()).dtype

    def draw(*shape: int) -> Tensor:
        return torch.randn(shape, generator=source, dtype=torch.float64).to(dtype)

    ids = torch.stack(torch.meshgrid(torch.zeros(1), torch.arange(2.0), torch.arange(3.0), indexing="ij"), -1)
    with torch.inference_mode():
        sigma, guidance = torch.tensor([0.7, 0.2]), torch.tensor([3.5, 1.0])
        txt, pooled, img = draw(2, 4, 20), draw(2, 16), draw(2, 6, in_channels)
        return model(img, ids.reshape(6, 3), txt, torch.zeros(4, 3), sigma, pooled, guidance)


@dataclass
class Made:
    """An adapter file, and the weights that a network has with it at a strength."""

    tensors: dict[str, Tensor] = field(default_factory=dict)
    # parameter -> its value with the adapter at a strength
    value: dict[str, Callable[[Tensor, float], Tensor]] = field(default_factory=dict)

    def merged(self, strength: float = 1.0) -> Flux:
        """The network with the adapter put into its weights by hand, in float64."""
        model = network()
        for name, change in self.value.items():
            parameter = model.get_parameter(name)
            owner, _, leaf = name.rpartition(".")
            new = change(parameter.detach().clone(), strength)
            setattr(model.get_submodule(owner), leaf, torch.nn.Parameter(new, requires_grad=False))
        return model


class Maker:
    """Draws the tensors of modules, kind by kind."""

    def __init__(self, seed: int = 3) -> None:
        self.source = torch.Generator().manual_seed(seed)

    def draw(self, *shape: int, size: float = 0.3) -> Tensor:
        return size * torch.randn(shape, generator=self.source, dtype=torch.float64).float()

    def low_rank(self, out: int, inside: int, rank: int = 3) -> tuple[dict[str, Tensor], Tensor]:
        down, up = self.draw(rank, inside), self.draw(out, rank)
        return {"down": down, "up": up, "alpha": torch.tensor(2.0)}, 2 / rank * up.double() @ down.double()

    def kind(self, kind: str, out: int, inside: int) -> tuple[dict[str, Tensor], Tensor]:
        """Tensors by ending, and the change of the weight."""
        if kind in ("lora", "dora out", "dora in"):
            return self.low_rank(out, inside)
        if kind == "lokr":
            a, b = self.draw(4, 2), self.draw(out // 4, inside // 2)
            return {"lokr_w1": a, "lokr_w2": b, "alpha": torch.tensor(5.0)}, torch.kron(a.double(), b.double())
        if kind == "lokr factorized":
            a1, a2, b1, b2 = self.draw(4, 2), self.draw(2, 4), self.draw(out // 4, 2), self.draw(2, inside // 4)
            whole = torch.kron(a1.double() @ a2.double(), b1.double() @ b2.double())
            tensors = {"lokr_w1_a": a1, "lokr_w1_b": a2, "lokr_w2_a": b1, "lokr_w2_b": b2, "alpha": torch.tensor(3.0)}
            return tensors, 1.5 * whole
        if kind == "lokr odd":
            a, b1, b2 = self.draw(1, 2), self.draw(out, 2), self.draw(2, inside // 2)
            return {"lokr_w1": a, "lokr_w2_a": b1, "lokr_w2_b": b2}, torch.kron(a.double(), b1.double() @ b2.double())
        if kind == "lokr core":
            core, a, b = self.draw(2, 3, 1, 1), self.draw(2, out // 4), self.draw(3, inside // 2)
            two = torch.einsum("ij,jr,ip->pr", core[:, :, 0, 0].double(), b.double(), a.double())
            one = self.draw(4, 2)
            tensors = {"lokr_w1": one, "lokr_t2": core, "lokr_w2_a": a, "lokr_w2_b": b}
            return tensors, torch.kron(one.double(), two.contiguous())
        if kind == "loha":
            a, b, c, d = self.draw(out, 2), self.draw(2, inside), self.draw(out, 2), self.draw(2, inside)
            tensors = {"hada_w1_a": a, "hada_w1_b": b, "hada_w2_a": c, "hada_w2_b": d, "alpha": torch.tensor(1.0)}
            return tensors, 0.5 * (a.double() @ b.double()) * (c.double() @ d.double())
        assert kind == "diff"
        diff = self.draw(out, inside, size=0.1)
        return {"diff": diff}, diff.double()


DORA = {"dora out": 1, "dora in": 0}
SPELT = {
    "peft": {"down": "lora_A.weight", "up": "lora_B.weight"},
    "kohya": {"down": "lora_down.weight", "up": "lora_up.weight"},
    "old": {"down": "lora.down.weight", "up": "lora.up.weight"},
    "xlabs": {"down": "down.weight", "up": "up.weight"},
}


def make(names: dict[str, list[str]], kind: str = "lora", spelling: str = "peft", swaps: bool = True) -> Made:
    """An adapter of the modules in `names` (native -> written names of its pieces) and the weights it makes.

    Args:
        swaps: the file has the last layer's modulation with its halves exchanged.
    """
    made, maker, model = Made(), Maker(), network()
    for native, pieces in names.items():
        weight = model.get_parameter(f"{native}.weight")
        out, inside = weight.shape
        sizes = [out] if len(pieces) == 1 else [H] * 3 + [out - 3 * H] * (len(pieces) == 4)
        changes: list[Tensor] = []
        scales: list[Tensor | None] = []
        for piece, size in zip(pieces, sizes, strict=True):
            tensors, change = maker.kind(kind, size, inside)
            if kind in DORA:
                shape = (size, 1) if DORA[kind] else (1, inside)
                tensors["dora_scale"] = (1 + maker.draw(*shape)).abs()
            for role, tensor in tensors.items():
                made.tensors[f"{piece}.{SPELT[spelling].get(role, role)}"] = tensor
            swap = swaps and native == SWAPPED
            changes.append(torch.cat(tuple(reversed(change.chunk(2)))) if swap else change)
            scale = tensors.get("dora_scale")
            if scale is not None and swap and scale.shape[0] > 1:
                scale = torch.cat(tuple(reversed(scale.chunk(2))))
            scales.append(scale)
        made.value[f"{native}.weight"] = _changed(sizes, changes, scales, kind)
    return made


def _changed(
    sizes: list[int], changes: list[Tensor], scales: list[Tensor | None], kind: str
) -> Callable[[Tensor, float], Tensor]:
    def value(weight: Tensor, strength: float) -> Tensor:
        rows = []
        for part, change, scale in zip(weight.split(sizes), changes, scales, strict=True):
            full = part + change
            if scale is not None:
                full = scale.double() * full / full.square().sum(DORA[kind], keepdim=True).sqrt()
            rows.append(part + strength * (full - part))
        return torch.cat(rows)

    return value


def prefixed(names: dict[str, list[str]], prefix: str, joint: str = ".") -> dict[str, list[str]]:
    """The names as a tool writes them."""
    return {native: [prefix + name.replace(".", joint) for name in pieces] for native, pieces in names.items()}


BFL = {native: [native] for native in NAMES}
SPLIT = {
    native: [f"{native}.{i}" for i in range(len(pieces))] if len(pieces) > 1 else [native]
    for native, pieces in NAMES.items()
}
STYLED: dict[str, Callable[[], Made]] = {
    "diffusers": lambda: make(prefixed(NAMES, "transformer.")),
    "bare": lambda: make(NAMES),
    "old": lambda: make(prefixed(NAMES, "transformer."), spelling="old"),
    "peft": lambda: make(prefixed(NAMES, "base_model.model.")),
    "kohya-diffusers": lambda: make(prefixed(NAMES, "lora_unet_", "_"), spelling="kohya"),
    "onetrainer": lambda: make(prefixed(NAMES, "lora_transformer_", "_"), spelling="kohya"),
    "onetrainer dora out": lambda: make(prefixed(NAMES, "lora_transformer_", "_"), "dora out", "kohya"),
    "onetrainer dora in": lambda: make(prefixed(NAMES, "lora_transformer_", "_"), "dora in", "kohya"),
    "lycoris lokr": lambda: make(prefixed(NAMES, "lycoris_", "_"), "lokr"),
    "lycoris lokr factorized": lambda: make(prefixed(NAMES, "lycoris_", "_"), "lokr factorized"),
    "lycoris lokr odd": lambda: make(prefixed(NAMES, "lycoris_", "_"), "lokr odd"),
    "lycoris loha": lambda: make(prefixed(NAMES, "lycoris_", "_"), "loha"),
    "lycoris diff": lambda: make(prefixed(NAMES, "lycoris_", "_"), "diff"),
    "kohya": lambda: make(prefixed(BFL, "lora_unet_", "_"), spelling="kohya", swaps=False),
    "comfy": lambda: make(prefixed(BFL, "diffusion_model."), swaps=False),
    "comfy lokr": lambda: make(prefixed(BFL, "diffusion_model."), "lokr", swaps=False),
    "comfy lokr core": lambda: make(prefixed(BFL, "diffusion_model."), "lokr core", swaps=False),
    "comfy loha": lambda: make(prefixed(BFL, "diffusion_model."), "loha", swaps=False),
    "comfy dora out": lambda: make(prefixed(BFL, "diffusion_model."), "dora out", swaps=False),
    "comfy dora in": lambda: make(prefixed(BFL, "diffusion_model."), "dora in", swaps=False),
    "bfl": lambda: make(BFL, swaps=False),
    "fal": lambda: make(prefixed(BFL, "base_model.model."), swaps=False),
    "onetrainer-bfl": lambda: make(prefixed(SPLIT, "transformer."), spelling="kohya", swaps=False),
    "xlabs": lambda: make({native: [name] for native, name in XLABS.items()}, spelling="xlabs"),
    "kohya split in pieces": lambda: _split_kohya(),
    "control": lambda: control(),
    "xlabs single": lambda: _xlabs_single(),
    "rest": lambda: _rest(),
}


def _split_kohya() -> Made:
    """`lora_down.0`: pieces of one module, whose one alpha is over each piece's own rank."""
    whole = {"double_blocks.1.img_attn.qkv": 3, "single_blocks.0.linear1": 4}
    made, maker, model = Made(), Maker(), network()
    for native, count in whole.items():
        out, inside = model.get_parameter(f"{native}.weight").shape
        key = "lora_unet_" + native.replace(".", "_")
        made.tensors[f"{key}.alpha"] = torch.tensor(2.0)
        sizes = [H] * 3 + [out - 3 * H] * (count == 4)
        changes = []
        for i, size in enumerate(sizes):
            tensors, change = maker.low_rank(size, inside)
            made.tensors |= {f"{key}.lora_down.{i}.weight": tensors["down"], f"{key}.lora_up.{i}.weight": tensors["up"]}
            changes.append(change)
        made.value[f"{native}.weight"] = _changed(sizes, changes, [None] * len(sizes), "lora")
    return made


def _xlabs_single() -> Made:
    """Query, key and value of a single block, not its MLP."""
    made, maker = Made(), Maker()
    tensors, change = maker.low_rank(3 * H, H)
    key = "single_blocks.1.processor.qkv_lora"
    made.tensors = {f"{key}.down.weight": tensors["down"], f"{key}.up.weight": tensors["up"]}
    change = torch.cat((1.5 * change, torch.zeros(M, H, dtype=torch.float64)))  # no alpha: the scale is 1
    made.value["single_blocks.1.linear1.weight"] = lambda weight, strength: weight + strength * change
    return made


def control() -> Made:
    """All layers with biases, new values of norms, four more channels at the entrance."""
    made, maker, model = make(BFL, swaps=False), Maker(9), network()
    for name in [name for name in made.tensors if name.endswith("alpha")]:
        del made.tensors[name]
    for native in BFL:
        bias = maker.draw(len(model.get_parameter(f"{native}.bias")))
        made.tensors[f"{native}.lora_B.bias"] = bias
        made.value[f"{native}.bias"] = lambda old, strength, bias=bias: old + strength * bias.double()
        change = made.value[f"{native}.weight"]
        made.value[f"{native}.weight"] = lambda old, strength, change=change: old + 1.5 * (change(old, strength) - old)
    for name in ("double_blocks.1.img_attn.norm.query_norm.scale", "single_blocks.0.norm.key_norm.scale"):
        scale = 1 + maker.draw(H // 2)
        made.tensors[name] = scale
        made.value[name] = lambda old, strength, scale=scale: scale.double()
    down, up = maker.draw(3, 12), maker.draw(H, 3)
    made.tensors |= {"img_in.lora_A.weight": down, "img_in.lora_B.weight": up}

    def wide(old: Tensor, strength: float) -> Tensor:
        return torch.cat((old, old.new_zeros(H, 4)), 1) + strength * up.double() @ down.double()

    made.value["img_in.weight"] = wide
    return made


def _rest() -> Made:
    """What else ComfyUI reads: differences of biases and norms, new weights."""
    made, maker = Made(), Maker()
    bias, norm, new = maker.draw(3 * H + M), maker.draw(H // 2), maker.draw(8, H)
    made.tensors = {
        "diffusion_model.single_blocks.0.linear1.diff_b": bias,
        "diffusion_model.double_blocks.0.txt_attn.norm.key_norm.w_norm": norm,
        "diffusion_model.final_layer.linear.set_weight": new,
        "diffusion_model.txt_in.diff": maker.draw(H, 20, size=0.1),
    }
    text = made.tensors["diffusion_model.txt_in.diff"]
    made.value = {
        "single_blocks.0.linear1.bias": lambda old, strength: old + strength * bias.double(),
        "double_blocks.0.txt_attn.norm.key_norm.scale": lambda old, strength: old + strength * norm.double(),
        "final_layer.linear.weight": lambda old, strength: new.double(),
        "txt_in.weight": lambda old, strength: old + strength * text.double(),
    }
    return made


def apart(ours: Tensor, theirs: Tensor) -> float:
    """Largest difference relative to the largest value."""
    assert ours.shape == theirs.shape
    return ((ours.double() - theirs.double()).abs().max() / theirs.double().abs().max()).item()

