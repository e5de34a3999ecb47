"""Which layers are adapted: presets and patterns of the network's own names.

    attention             double_blocks.*.img_mlp.*             !single_blocks.3*

A preset or pattern adds layers; with `!` in front it takes them out again. What matches nothing is an error.
"""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase

from torch import nn

from fluxone.errors import UnknownName

# Every way into and out of a block is a linear layer; `lin` are those of modulation, which see no picture.
PRESETS: dict[str, tuple[str, ...]] = {
    "attention": (
        "double_blocks.*.img_attn.*",
        "double_blocks.*.txt_attn.*",
        "single_blocks.*.linear1",
        "single_blocks.*.linear2",
    ),
    "picture": ("double_blocks.*.img_attn.*", "double_blocks.*.img_mlp.*", "single_blocks.*.linear?"),
    "blocks": ("double_blocks.*.???_attn.*", "double_blocks.*.???_mlp.*", "single_blocks.*.linear?"),
    "double": ("double_blocks.*.???_attn.*", "double_blocks.*.???_mlp.*"),
    "single": ("single_blocks.*.linear?",),
    "modulation": ("double_blocks.*_mod.lin", "single_blocks.*.modulation.lin"),
    "ends": ("img_in", "txt_in", "final_layer.linear"),
}


def layers(network: nn.Module) -> dict[str, nn.Module]:
    """All linear layers by name, packed ones too, in the network's order."""
    return {
        name: module
        for name, module in network.named_modules()
        if isinstance(getattr(module, "in_features", None), int)
        and isinstance(getattr(module, "out_features", None), int)
    }


def chosen(network: nn.Module, wanted: Sequence[str]) -> dict[str, nn.Module]:
    """The layers that presets and patterns choose, in the network's order.

    Raises:
        UnknownName: one of them chooses nothing.
    """
    there = layers(network)
    kept: set[str] = set()
    for word in wanted:
        bare = word.removeprefix("!")
        patterns = PRESETS.get(bare, (bare,))
        found = {name for name in there for pattern in patterns if _fits(name, pattern)}
        if not found:
            presets = ", ".join(PRESETS)
            raise UnknownName(
                f"no layer is chosen by {word!r}", hint=f"use a preset ({presets}) or a pattern such as single_blocks.*"
            )
        kept = kept - found if word.startswith("!") else kept | found
    if not kept:
        raise UnknownName(f"no layer is left of {', '.join(wanted) or 'nothing'}", hint="take fewer out")
    return {name: layer for name, layer in there.items() if name in kept}


def _fits(name: str, pattern: str) -> bool:
    return fnmatchcase(name, pattern) or name.startswith(f"{pattern}.")
