"""The adapters of the Python door, in diffusers' names: load, set, fuse, unload.

They work beside the layers until they are fused, and leave nothing behind when they are unloaded.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

from torch import Tensor

from fluxone.errors import BadRequest, UserError, pick
from fluxone.lora.delta import check_finite
from fluxone.lora.load import Lora, load_lora, read_lora
from fluxone.lora.strength import Strength
from fluxone.pipeline import Pipeline

Weight = float | Mapping[str, Any] | Strength
BLOCKS = {"transformer_blocks": "double_blocks", "single_transformer_blocks": "single_blocks"}
NAMED = re.compile(rf"\b({'|'.join(BLOCKS)})\b")


class Adapting:
    """What `FluxPipeline` can do with adapters.

    Attributes:
        pipeline: whose adapters they are.
    """

    pipeline: Pipeline
    _resting: Mapping[str, Strength] = MappingProxyType({})

    def load_lora_weights(
        self,
        source: str | Path | Mapping[str, Tensor],
        adapter_name: str | None = None,
        *,
        weight_name: str | None = None,
        subfolder: str | None = None,
        token: str | None = None,
        hotswap: bool = False,
    ) -> None:
        """Load an adapter, in any style, and let it work with strength 1 beside those that do already.

        Args:
            source: a file, a folder with one, a hub id, `civitai:VERSION`, or tensors by key.
            adapter_name: to call it by; None is `default_0`, `default_1`, ...
            weight_name, subfolder: the file in the folder or repository, and the folder in it.
            hotswap: take the place of the adapter of that name, and its strength.

        Raises:
            BadFile, HubError: it is not there.
            BadWeights: it is no LoRA of FLUX.1, or does not fit the model; nothing of it is loaded.
            BadRequest: it replaces a weight that is quantized; nothing of it is loaded.
        """
        adapters = self.pipeline.adapters
        name = adapter_name or next(name for n in range(1 << 20) if (name := f"default_{n}") not in adapters.loaded)
        if isinstance(source, Mapping):
            lora = _read(source)
        else:
            place = "/".join(str(word) for word in (source, subfolder, weight_name) if word)
            lora = load_lora(place or "the adapter", token=token)
        if hotswap:
            adapters.swap(lora, name)
            return
        adapters.load(lora, name)
        try:
            adapters.use({**adapters.active, name: Strength()})
        except UserError:
            adapters.drop(name)
            raise

    def set_adapters(
        self, adapter_names: str | Sequence[str], adapter_weights: Weight | Sequence[Weight] | None = None
    ) -> None:
        """Let exactly these adapters work.

        Args:
            adapter_weights: of each: a number; pattern of blocks (`single_blocks`, `text_encoder`,
                `*.img_mlp.*`) -> number; or a `Strength`. One serves all; None is 1.
        """
        names = _names(adapter_names)
        several = isinstance(adapter_weights, Sequence)
        weights = list(adapter_weights) if isinstance(adapter_weights, Sequence) else [adapter_weights] * len(names)
        if several and len(weights) != len(names):
            raise BadRequest(f"{len(weights)} weights for {len(names)} adapters", hint="give as many")
        self.pipeline.adapters.use(dict(zip(names, (_strength(weight) for weight in weights), strict=True)))

    def get_active_adapters(self) -> list[str]:
        """The names of those that work, fused ones too."""
        adapters = self.pipeline.adapters
        return [*adapters.fused, *adapters.active]

    def get_list_adapters(self) -> dict[str, list[str]]:
        """Part of the model -> the names of the adapters that change it."""
        loaded = self.pipeline.adapters.loaded
        titles = {"transformer": "transformer", "clip": "text_encoder", "t5": "text_encoder_2"}
        found = {title: [name for name, lora in loaded.items() if lora.of(part)] for part, title in titles.items()}
        return {title: names for title, names in found.items() if names}

    def delete_adapters(self, adapter_names: str | Sequence[str]) -> None:
        """Forget these adapters, fused ones too."""
        for name in _names(adapter_names):
            self.pipeline.adapters.drop(name)

    def disable_lora(self) -> None:
        """Let no adapter work, until `enable_lora` or `set_adapters`."""
        self._resting = dict(self.pipeline.adapters.active) or self._resting
        self.pipeline.adapters.use({})

    def enable_lora(self) -> None:
        """Let those work again that `disable_lora` has stopped, as strongly as before."""
        adapters = self.pipeline.adapters
        if not adapters.active:
            adapters.use({name: strength for name, strength in self._resting.items() if name in adapters.loaded})

    def fuse_lora(
        self,
        components: Sequence[str] | None = None,
        lora_scale: float = 1.0,
        safe_fusing: bool = True,
        adapter_names: str | Sequence[str] | None = None,
    ) -> None:
        """Merge working adapters into the weights: a step then costs what it costs without them.

        Args:
            components: None is all that they change; an adapter is merged whole.
            safe_fusing: adapters with NaN or infinity are refused when they are loaded, so that fusing is always safe.
        """
        names = list(self.pipeline.adapters.active) if adapter_names is None else _names(adapter_names)
        self._whole(components, names)
        self.pipeline.adapters.fuse(names, scale=lora_scale)

    def unfuse_lora(self, components: Sequence[str] | None = None) -> None:
        """Take fused adapters out of the weights again, to the last bit; `components` as for `fuse_lora`."""
        self._whole(components, list(self.pipeline.adapters.fused))
        self.pipeline.adapters.unfuse()

    def _whole(self, components: Sequence[str] | None, names: Sequence[str]) -> None:
        """Refuse a part of what adapters change."""
        if components is None:
            return
        for part, changed in self.get_list_adapters().items():
            if part not in components and (left := [name for name in names if name in changed]):
                hint = f"name {part} among the components too, or leave them out"
                raise BadRequest(f"the adapter {left[0]!r} changes the {part} as well", hint=hint)

    def unload_lora_weights(self) -> None:
        """Forget all adapters. As in diffusers, what is fused stays in the weights: `unfuse_lora` goes before."""
        self.pipeline.adapters.clear(keep_fused=True)

    def adapter(self, name: str) -> dict[str, str]:
        """The metadata in the file of an adapter, such as its trigger words."""
        return pick(self.pipeline.adapters.loaded, name, "adapter").metadata


def _names(adapter_names: str | Sequence[str]) -> list[str]:
    names = [adapter_names] if isinstance(adapter_names, str) else list(adapter_names or ())
    if not names or len(set(names)) < len(names):
        raise BadRequest(f"the adapters are {adapter_names!r:.80}", hint="give one name, or several, each once")
    return names


def _read(tensors: Mapping[Any, Any]) -> Lora:
    for key, tensor in tensors.items():
        if not isinstance(key, str) or not isinstance(tensor, Tensor):
            found = f"{key!r:.60} is a {type(tensor).__name__}"
            raise BadRequest(f"the adapter holds more than tensors by key: {found}", hint="give torch tensors")
    check_finite(tensors.items(), "the adapter")
    return read_lora(tensors)


def _strength(weight: Weight | None) -> Strength:
    if weight is None:
        return Strength()
    if isinstance(weight, Strength):
        return weight
    if isinstance(weight, Mapping):
        return Strength(blocks=_flat(weight))
    return Strength(scale=_number(weight))


def _number(value: object) -> float:
    try:
        return float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        hint = "give a number, numbers by block, or a Strength"
        raise BadRequest(f"the strength of an adapter is {value!r:.80}", hint=hint) from None


def _flat(blocks: Mapping[str, object], above: str = "") -> dict[str, float]:
    """Strengths by block: diffusers' names of blocks as the network's own, tables in tables as longer names."""
    found: dict[str, float] = {}
    for name, value in blocks.items():
        pattern = f"{above}{NAMED.sub(lambda match: BLOCKS[match[1]], str(name))}"
        found |= _flat(value, f"{pattern}.") if isinstance(value, Mapping) else {pattern: _number(value)}
    return found
