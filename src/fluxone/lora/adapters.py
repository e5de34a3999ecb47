"""The adapters of one loaded model: loaded, switched, merged and taken out again, the base untouched throughout.

    load    read, checked against the model's shapes, kept
    use     which of the loaded work, and how strongly: beside the layers (`layer`), where they can
    fuse    the same merged into the weights; the original tensors are kept, so `unfuse` is exact, never a subtraction

Changes that cannot work beside a layer (norms, embeddings, replacements) are made in the parameter in both modes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from fluxone.errors import BadRequest, UserError, pick
from fluxone.lora.delta import Delta, merged
from fluxone.lora.layer import Side, attach, beside, sides_of, weight_of
from fluxone.lora.load import WIDENED, Lora, check_fit, shapes_of
from fluxone.lora.strength import Strength as Strength
from fluxone.lora.strength import read_scale as read_scale
from fluxone.weights.keymap import TRANSFORMER

Place = tuple[str, str]  # part, module or parameter
Share = float | Tensor  # of a strength: one number, or one a row of the batch


class Adapters:
    """The adapters of one model.

    Args:
        modules: part -> network; parts that the model lacks are left out.
        width: of the transformer.
        dtype: that adapters compute in beside the layers.
        changed: called with the names of the parts that an adapter has changed.
        bundled: called with the own words that loaded adapters bring: word -> encoder -> vectors.

    Attributes:
        loaded: name -> adapter, whether it works or not.
        active: name -> strength of those that work, beside the layers.
        fused: name -> strength of those that are merged into the weights.
    """

    def __init__(
        self,
        modules: Mapping[str, nn.Module],
        *,
        width: int,
        dtype: torch.dtype,
        changed: Callable[[set[str]], None] = lambda parts: None,
        bundled: Callable[[Mapping[str, Mapping[str, Tensor]]], None] = lambda words: None,
    ) -> None:
        self.modules = dict(modules)
        self.width, self.dtype = width, dtype
        self.loaded: dict[str, Lora] = {}
        self.active: dict[str, Strength] = {}
        self.fused: dict[str, Strength] = {}
        self._changed, self._bundled = changed, bundled
        self._kept: dict[Place, nn.Parameter] = {}  # originals of the parameters that are replaced at present
        self._inside: dict[Place, tuple[tuple[int, float], ...]] = {}  # what is in each of those, and how strongly
        self._sides: dict[tuple[str, int], Side] = {}  # (name, delta) -> its side
        self._shares: dict[str, Share] = {}
        self._strengths: dict[tuple[str, str], dict[int, float]] = {}  # (part, name) -> delta -> how strongly, beside

    @property
    def names(self) -> list[str]:
        """All that are loaded, in order."""
        return list(self.loaded)

    @property
    def in_channels(self) -> int | None:
        """Columns that a working adapter gives the first layer (control LoRAs), or None if none widens it."""
        columns = [
            delta.factor.shape[1]
            for name in (*self.active, *self.fused)
            for delta in self.loaded[name].of(TRANSFORMER)
            if delta.target.name == f"{WIDENED}.weight"
        ]
        return max(columns, default=None)

    @property
    def hashes(self) -> dict[str, str]:
        """What works, for a picture's record: name -> fingerprint of the file, and its strength."""
        working = {**self.fused, **self.active}
        return {f"lora {name}": f"{self.loaded[name].hash} at {at}" for name, at in working.items()}

    @property
    def shares(self) -> Mapping[str, Share]:
        """What the strengths are multiplied by at present."""
        return self._shares

    def load(self, lora: Lora, name: str) -> None:
        """Keep an adapter; it does not work until `use` or `fuse` names it.

        Raises:
            BadWeights: it does not fit the model.
            BadRequest: there is one of that name.
        """
        if name in self.loaded:
            raise BadRequest(f"there is an adapter {name!r} already", hint="give another name, or unload it first")
        check_fit(lora, {part: self._shapes(part) for part in self.modules}, self.width)
        self.loaded[name] = lora
        try:
            self._words()
        except UserError:
            del self.loaded[name]
            raise

    def swap(self, lora: Lora, name: str) -> None:
        """Put an adapter in the place of the one of that name; it works as strongly.

        Raises:
            BadWeights: it does not fit the model; the old one stays.
            UnknownName, BadRequest: there is none of that name, or it is fused.
        """
        old = pick(self.loaded, name, "adapter")
        if name in self.fused:
            raise BadRequest(f"the adapter {name!r} is fused", hint="unfuse it first")
        strengths, order = dict(self.active), list(self.loaded)
        self.drop(name)
        try:
            self.load(lora, name)
        except UserError:
            self.load(old, name)
            raise
        finally:
            self.loaded = {other: self.loaded[other] for other in order}
            self.use(strengths)

    def use(self, strengths: Mapping[str, Strength]) -> None:
        """Let exactly these adapters work, beside those that are fused.

        Raises:
            UnknownName: one of them is not loaded.
            BadRequest: one of them is fused, or has a strength for blocks that there are none of.
        """
        for name, strength in strengths.items():
            pick(self.loaded, name, "adapter")
            if name in self.fused:
                raise BadRequest(f"the adapter {name!r} is fused", hint="unfuse it first")
            if strength.blocks:
                strength.check({part: dict(module.named_modules()) for part, module in self.modules.items()})
        if dict(strengths) != self.active:
            with self._or_as_before():
                self.active = dict(strengths)
                self._shares = {}
                self._lay()

    def fuse(self, names: Iterable[str] | None = None, *, scale: float = 1.0) -> None:
        """Merge working adapters (all if None) into the weights, at their strengths times `scale`.

        Raises:
            UnknownName: one of them does not work.
            BadRequest: the strength of one runs over the steps, or a weight is quantized; all stays as it was.
        """
        chosen = list(self.active) if names is None else list(names)
        for name in chosen:
            if pick(self.active, name, "working adapter").course:
                hint = "leave it beside the weights, or give it one strength"
                raise BadRequest(f"the strength of the adapter {name!r} runs over the steps", hint=hint)
        with self._or_as_before():
            for name in chosen:
                now = self.active.pop(name)
                self.fused[name] = Strength(scale=now.scale * scale, blocks=now.blocks)
            self._lay()

    def unfuse(self) -> None:
        """Take all fused adapters out of the weights, to the last bit; they work beside the layers again."""
        self.active = {**self.fused, **self.active}
        self.fused = {}
        self._lay()

    def drop(self, name: str) -> None:
        """Forget one adapter, which leaves no trace."""
        pick(self.loaded, name, "adapter")
        self.active.pop(name, None)
        self.fused.pop(name, None)
        self._lay()
        del self.loaded[name]
        self._words()

    def clear(self, *, keep_fused: bool = False) -> None:
        """Forget all adapters.

        Args:
            keep_fused: leave merged what is merged; it cannot be taken out afterwards.
        """
        self.active = {}
        if keep_fused:
            for place in [place for place, inside in self._inside.items() if self._of_fused(inside)]:
                del self._kept[place], self._inside[place]
        self.fused = {}
        self._lay()
        self.loaded = {}
        self._words()

    def share(self, shares: Mapping[str, Share]) -> None:
        """Multiply the strengths of working adapters for the time being: those in a walk's course, or in a batch.

        Parameters that an adapter has to replace keep the strength of `use`. An empty table ends it.
        """
        if shares or self._shares:
            self._shares = dict(shares)
            self._set()

    def _words(self) -> None:
        self._bundled({word: vectors for lora in self.loaded.values() for word, vectors in lora.embeddings.items()})

    def _of_fused(self, inside: tuple[tuple[int, float], ...]) -> bool:
        fused = {id(delta) for name in self.fused for delta in self.loaded[name].deltas}
        return any(number in fused for number, _ in inside)

    def _shapes(self, part: str) -> dict[str, tuple[int, ...]]:
        """As they are without adapters."""
        shapes = shapes_of(self.modules[part])
        kept = {name: tuple(tensor.shape) for (where, name), tensor in self._kept.items() if where == part}
        return {name: shape for name, shape in shapes.items() if ".adapters." not in name} | kept

    @contextmanager
    def _or_as_before(self) -> Iterator[None]:
        """Take back what was asked for where it cannot be done."""
        before = dict(self.active), dict(self.fused)
        try:
            yield
        except UserError:
            self.active, self.fused = before
            raise

    def _lay(self) -> None:
        """Bring layers and parameters to what `active` and `fused` say, touching none that is so already."""
        layers: dict[Place, list[tuple[str, Delta]]] = {}
        inside: dict[Place, list[tuple[Delta, float]]] = {}
        told: dict[tuple[str, str], dict[int, float]] = {}
        for strengths, live in ((self.fused, False), (self.active, True)):
            for name, strength in strengths.items():
                for delta in self.loaded[name].deltas:
                    target = delta.target
                    at = strength.at(target.part, target.module)
                    if at == 0:
                        continue
                    if live and beside(delta) and self._linear(target.part, target.module):
                        layers.setdefault((target.part, target.module), []).append((name, delta))
                        told.setdefault((target.part, name), {})[id(delta)] = at
                    else:
                        inside.setdefault((target.part, target.name), []).append((delta, at))
        for place in inside:
            if place not in self._kept:
                self._parameter(place)  # what cannot be is told before anything changes
        touched = self._place(inside) | self._beside(layers)
        touched |= {key[0] for key in told.keys() | self._strengths.keys() if told.get(key) != self._strengths.get(key)}
        self._strengths = told
        self._set()
        if touched:
            self._changed(touched)

    def _linear(self, part: str, module: str) -> bool:
        return hasattr(self.modules[part].get_submodule(module), "in_features")

    def _place(self, inside: Mapping[Place, list[tuple[Delta, float]]]) -> set[str]:
        """Replace and restore parameters; the parts in which any was."""
        touched = set()
        for place in [place for place in self._kept if place not in inside]:
            self._write(place, self._kept.pop(place))
            del self._inside[place]
            touched.add(place[0])
        for place, deltas in inside.items():
            signature = tuple((id(delta), at) for delta, at in deltas)
            if self._inside.get(place) == signature:
                continue
            original = self._kept.setdefault(place, self._parameter(place))
            present = self._parameter(place)
            with torch.inference_mode(False), torch.no_grad():
                value = merged(original.detach().to(present.device), deltas, self.width)
            self._write(place, nn.Parameter(value, requires_grad=original.requires_grad))
            self._inside[place] = signature
            touched.add(place[0])
        return touched

    def _parameter(self, place: Place) -> nn.Parameter:
        part, name = place
        owner, _, leaf = name.rpartition(".")
        module = self.modules[part].get_submodule(owner)
        found = module._parameters.get(leaf)
        if found is None or not found.is_floating_point():
            hint = "leave it unfused, or merge it into the model before quantizing"
            raise BadRequest(f"{name} is quantized, and nothing can be merged into it", hint=hint)
        return found

    def _write(self, place: Place, value: nn.Parameter) -> None:
        part, name = place
        owner, _, leaf = name.rpartition(".")
        module = self.modules[part].get_submodule(owner)
        module._parameters[leaf] = value
        if isinstance(module, nn.Linear) and leaf == "weight":
            module.in_features = value.shape[1]

    def _beside(self, layers: Mapping[Place, list[tuple[str, Delta]]]) -> set[str]:
        """Give each layer its sides; the parts in which any layer changed."""
        touched = set()
        sides: dict[tuple[str, int], Side] = {}
        for part, root in self.modules.items():
            for module, layer in list(root.named_modules()):
                wanted = layers.get((part, module), [])
                keys = [(name, id(delta)) for name, delta in wanted]
                present = sides_of(layer)
                if not wanted and not present:
                    continue
                for key, (_, delta) in zip(keys, wanted, strict=True):
                    sides[key] = self._sides.get(key) or self._side(layer, delta)
                if [id(side) for side in present] != [id(sides[key]) for key in keys]:
                    attach(layer, [sides[key] for key in keys])
                    touched.add(part)
        self._sides = sides
        return touched

    def _side(self, layer: nn.Module, delta: Delta) -> Side:
        kept = self._kept.get((delta.target.part, delta.target.name))
        weight = None if delta.magnitude is None else weight_of(layer) if kept is None else kept
        height: int = layer.out_features  # type: ignore[assignment]
        rows = delta.target.rows(height, self.width)
        with torch.inference_mode(False), torch.no_grad():
            return Side(delta, rows, None if weight is None else weight[rows], self.dtype)

    def _set(self) -> None:
        """Tell every side its strength; equal ones share a tensor."""
        tensors: dict[tuple[str, float, torch.device], Tensor] = {}
        exact = torch.promote_types(self.dtype, torch.float32)
        for name, strength in self.active.items():
            share = self._shares.get(name, 1.0)
            for delta in self.loaded[name].deltas:
                side = self._sides.get((name, id(delta)))
                if side is None:
                    continue
                key = (name, strength.at(delta.target.part, delta.target.module), side.strength.device)
                if key not in tensors:
                    tensors[key] = torch.as_tensor(share, dtype=exact, device=key[2]) * key[1]
                side.strength = tensors[key]
