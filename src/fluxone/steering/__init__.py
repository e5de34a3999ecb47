"""Steering: networks that work beside the transformer of one loaded model, ControlNets and IP-Adapters.

    load     file -> network, checked against the model; it does nothing until a job gives it pictures
    hints    pixels --autoencoder, or as they are--> Hint        looks   pictures --encoder--> Look         = Steer
    at       Steer, and what the network is given -> velocities that are steered; without any, the very same ones

A ControlNet is run once for each noise level and place, with the positive prompt, and steers both sides of true
guidance (as in diffusers). An IP-Adapter has pictures for each side; without a negative one it is black.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor, nn

from fluxone.errors import BadRequest, pick
from fluxone.nn.controlnet import ControlNet
from fluxone.nn.ip_adapter import IpAdapter, Looking
from fluxone.nn.rope import rotation
from fluxone.nn.tokens import pack, text_ids
from fluxone.nn.transformer import Flux
from fluxone.pixels import Picture, Pixels
from fluxone.request import Request
from fluxone.sampling.guidance import Bound, Rounding, tabulate, velocity
from fluxone.sampling.samplers import Velocity
from fluxone.steering.encoders import OPEN, Encoder, Given, find_encoder, missing
from fluxone.steering.steer import Hint, Look, Steer, mode_of
from fluxone.steering.walk import Guide, Walk
from fluxone.weights.beside import hash_of, load_controlnet, load_ip_adapter

Scales = float | tuple[float, ...]
Using = Callable[[str], AbstractContextManager[None]]


class Places(Protocol):
    """Where parts of a model live: `offload.Offload`."""

    device: torch.device

    def add(self, name: str, modules: Sequence[nn.Module], *, streamed: bool) -> None:
        """Take in another part."""

    def drop(self, name: str) -> None:
        """Forget a part."""


class Steered(Protocol):
    """A walk to steer: `job.Job`."""

    @property
    def steer(self) -> Steer: ...
    @property
    def sigmas(self) -> Sequence[float]: ...
    @property
    def guidance(self) -> float: ...


class Maker(Protocol):
    """What hints are made with: `conditions.condition.Studio`."""

    @property
    def batch(self) -> int: ...

    def encode(self, pixels: Pixels) -> Tensor:
        """The latents of the whole batch."""

    def whole(self, rows: Tensor) -> Tensor:
        """As many rows as the batch has."""


@dataclass(kw_only=True)
class Loaded:
    """A network beside the model. `encoder` is an IP-Adapter's, `scale` its strength, or one a block."""

    net: ControlNet | IpAdapter
    hash: str
    scale: Scales = 1.0
    encoder: Encoder | None = None


class Steering:
    """The networks beside one transformer.

    Args:
        using: brings a part to the device, its weights looked through.
        on_device: told of networks that come and go.

    Attributes:
        controlnets, adapters: by name, in the order of their loading.
        given: what the pictures of IP-Adapters are seen with, where nothing else is said.
    """

    def __init__(self, transformer: Flux, dtype: torch.dtype, on_device: Places, using: Using) -> None:
        self.transformer, self.dtype, self.on_device, self.using = transformer, dtype, on_device, using
        self.controlnets: dict[str, Loaded] = {}
        self.adapters: dict[str, Loaded] = {}
        self.given = Given()

    @property
    def hashes(self) -> dict[str, str]:
        """What can steer, for a picture's record: kind and name -> fingerprint, with its strength."""
        kinds = {"controlnet": self.controlnets, "ip-adapter": self.adapters}
        return {
            f"{kind} {name}": f"{loaded.hash} at {loaded.scale}"
            for kind, table in kinds.items()
            for name, loaded in table.items()
        }

    def load_controlnet(self, path: Path | nn.Module, name: str, scale: float = 1.0) -> None:
        """Load a ControlNet.

        Raises:
            BadFile, BadWeights: it cannot be read, or was made for another network.
            BadRequest: there is one of that name.
        """
        _new(self.controlnets, name, "ControlNet")
        net = load_controlnet(path, self.transformer.shape, self.dtype)
        net.attend = self.transformer.attend
        self.controlnets[name] = Loaded(net=net, hash=hash_of(path), scale=scale)
        self.on_device.add(f"controlnet {name}", [net], streamed=True)

    def load_adapter(self, path: Path, name: str, *, scale: Scales = 1.0, given: Given = OPEN) -> None:
        """Load an IP-Adapter and the encoder of its pictures, which is looked for near it where none is given.

        Args:
            given: the encoder and what brings pictures to it; what is open is `self.given`.

        Raises:
            BadFile, BadWeights: it cannot be read, or was made for another network.
            MissingParts: there is no encoder for it.
            BadRequest: there is one of that name.
        """
        _new(self.adapters, name, "IP-Adapter")
        net = load_ip_adapter(path, self.transformer.shape, self.dtype)
        looks_with = find_encoder(net.shape, path, given.over(self.given), self.dtype)
        self.adapters[name] = Loaded(net=net, hash=hash_of(path), encoder=looks_with)
        self.scale_adapter(name, scale)
        modules = [net] if looks_with is None else [net, looks_with.network]
        self.on_device.add(f"ip-adapter {name}", modules, streamed=False)

    def scale_adapter(self, name: str, scale: Scales) -> None:
        """Set how strongly an IP-Adapter works: everywhere, or in each of its blocks.

        Raises:
            BadRequest: there are as many blocks as not.
        """
        loaded = pick(self.adapters, name, "IP-Adapter")
        assert isinstance(loaded.net, IpAdapter)
        blocks = loaded.net.shape.blocks
        if isinstance(scale, tuple) and len(scale) != blocks:
            raise BadRequest(f"{len(scale)} scales for the {blocks} blocks of {name}", hint="give one, or as many")
        loaded.scale = scale

    def drop(self, kind: str, name: str) -> None:
        """Forget a network; `kind` is `controlnet` or `ip-adapter`."""
        table = {"controlnet": self.controlnets, "ip-adapter": self.adapters}[kind]
        pick(table, name, kind)
        del table[name]
        self.on_device.drop(f"{kind} {name}")

    def of(self, request: Request, hints: Sequence[Pixels], studio: Maker) -> Steer:
        """What steers a request's walk; `hints` are its pictures for ControlNets, at the size that is drawn.

        Raises:
            BadRequest: they are not what the loaded networks need.
        """
        found = self.hints(
            hints,
            studio,
            scales=request.hint_scales,
            spans=[request.hint_range] * len(hints),
            modes=request.hint_modes,
        )
        each = [list(request.looks)] if len(self.adapters) == 1 else [[picture] for picture in request.looks]
        return Steer(hints=found, looks=self.looks(each if request.looks else (), studio.batch))

    def hints(
        self,
        pictures: Sequence[Pixels],
        studio: Maker,
        *,
        scales: Sequence[float] = (),
        spans: Sequence[tuple[float, float]] = (),
        modes: Sequence[int | str | None] = (),
    ) -> tuple[Hint, ...]:
        """What the ControlNets look at: a batch of pixels each, or several for the only one.

        Args:
            scales: one each; empty: as they were loaded.
            spans: start and end of each; empty: the whole way.
            modes: of each, by name or number; only for those that know several.

        Raises:
            BadRequest: pictures and ControlNets are not as many, or a mode is missing, or of no use.
        """
        names = list(self.controlnets)
        if not pictures and not names:
            return ()
        if not names:
            raise BadRequest(f"{len(pictures)} pictures for ControlNets, and none is loaded", hint="load one first")
        if not pictures:
            raise BadRequest(
                f"the ControlNet {names[0]!r} is given no picture", hint="give control_image, or unload it"
            )
        names = names * len(pictures) if len(names) == 1 else names
        for what, count in (("pictures", len(pictures)), ("scales", len(scales)), ("modes", len(modes))):
            if count != len(names) and (count or what == "pictures"):
                raise BadRequest(f"{count} {what} for {len(names)} ControlNets", hint="give as many")
        found = []
        for i, (name, pixels) in enumerate(zip(names, pictures, strict=True)):
            loaded = self.controlnets[name]
            net = loaded.net
            assert isinstance(net, ControlNet) and isinstance(loaded.scale, float | int)
            own = net.shape.hint > 0
            start, end = spans[i] if spans else (0.0, 1.0)
            found.append(
                Hint(
                    net=name,
                    picture=studio.whole(pixels) if own else pack(studio.encode(pixels)),
                    scale=scales[i] if scales else loaded.scale,
                    start=start,
                    end=end,
                    mode=mode_of(modes[i] if modes else None, net.shape.modes, name),
                )
            )
        return tuple(found)

    def looks(
        self,
        pictures: Sequence[Sequence[Picture] | Tensor],
        batch: int,
        *,
        away: Sequence[Sequence[Picture] | Tensor] = (),
    ) -> tuple[Look, ...]:
        """What the IP-Adapters look at: several pictures each, or their vectors (P E, or B P E).

        Args:
            away: the same for the side of the negative prompt; empty: a black picture each.

        Raises:
            BadRequest: pictures and adapters are not as many.
            MissingParts: pictures are given, and an adapter has no encoder.
        """
        if not pictures and not away:
            return ()
        if not self.adapters:
            raise BadRequest("a picture for an IP-Adapter is given, and none is loaded", hint="load one first")
        for given in (pictures, away):
            if given and len(given) != len(self.adapters):
                raise BadRequest(f"{len(given)} pictures for {len(self.adapters)} IP-Adapters", hint="give as many")
        found = []
        for i, name in enumerate(self.adapters):
            with self.using(f"ip-adapter {name}"):
                vectors, other = (self._vectors(name, each[i] if each else None, batch) for each in (pictures, away))
            found.append(Look(adapter=name, vectors=vectors, away=other))
        return tuple(found)

    @torch.inference_mode()
    def _vectors(self, name: str, pictures: Sequence[Picture] | Tensor | None, batch: int) -> Tensor:
        loaded = self.adapters[name]
        assert isinstance(loaded.net, IpAdapter)
        if isinstance(pictures, Tensor):
            rows = pictures.float() if pictures.ndim == 3 else pictures.float()[None]
            if rows.shape[-1] != loaded.net.shape.image or batch % len(rows):
                wanted = f"(P, {loaded.net.shape.image}) or (B, P, {loaded.net.shape.image})"
                raise BadRequest(f"vectors for {name} are of shape {tuple(pictures.shape)}", hint=f"{wanted} fit")
            return rows.repeat_interleave(batch // len(rows), 0)
        if loaded.encoder is None:
            if pictures is None:
                return torch.zeros(batch, 1, loaded.net.shape.image)
            raise missing(loaded.net.shape, name)
        seen = loaded.encoder.vectors(pictures, self.on_device.device)
        return seen[None].expand(batch, -1, -1)

    @contextmanager
    def at(self, walk: Steered, bounds: Sequence[Bound], rounding: Rounding) -> Iterator[list[Velocity]]:
        """A context whose value are the velocities, steered: of the prompt, then of the negative one.

        Args:
            bounds: what the network is given on each of those sides.
        """
        steer = walk.steer
        plain = [velocity(self.transformer, bound.inputs, bound.tables) for bound in bounds]
        if not steer or not bounds:
            yield plain
            return
        for name in dict.fromkeys(look.adapter for look in steer.looks):
            pick(self.adapters, name, "IP-Adapter")
        with ExitStack() as stack:
            for name in dict.fromkeys(hint.net for hint in steer.hints):
                stack.enter_context(self.using(f"controlnet {name}"))
            guides = [self._guide(hint, bounds[0], rounding, walk.guidance) for hint in steer.hints]
            sides = [self._looking(steer.looks, negative=side > 0) for side in range(len(bounds))]
            inside = Walk(self.transformer, guides, walk.sigmas)
            words = [bound.inputs.words.shape[1] for bound in bounds]
            yield [inside.steered(v, side, text) for v, side, text in zip(plain, sides, words, strict=True)]

    @torch.inference_mode()
    def _guide(self, hint: Hint, bound: Bound, rounding: Rounding, guidance: float) -> Guide:
        net = pick(self.controlnets, hint.net, "ControlNet").net
        assert isinstance(net, ControlNet)
        inputs, flux = bound.inputs, net.shape.flux
        device, dtype = inputs.txt.device, inputs.txt.dtype
        if inputs.guidance is None and flux.guided:
            inputs = replace(inputs, guidance=torch.full((len(inputs.txt),), guidance, device=device))
        words = net.words(inputs.txt, hint.mode)
        ids = torch.cat((text_ids(words.shape[1]), inputs.ids.cpu()))
        return Guide(
            hint=hint,
            net=net,
            seen=net.hint(hint.picture.to(device, dtype)),
            words=words,
            pe=rotation(ids, flux.axes, flux.theta).to(device),
            tables=tabulate(net, inputs, list(bound.tables.rows), rounding=rounding),
        )

    @torch.inference_mode()
    def _looking(self, looks: Sequence[Look], *, negative: bool) -> list[Looking]:
        found = []
        shape, device = self.transformer.shape, self.on_device.device
        for look in looks:
            loaded = self.adapters[look.adapter]
            net, scale = loaded.net, loaded.scale
            assert isinstance(net, IpAdapter)
            scales = scale if isinstance(scale, tuple) else (scale,) * net.shape.blocks
            with self.using(f"ip-adapter {look.adapter}"):
                pairs = net((look.away if negative else look.vectors).to(device, self.dtype), shape.heads)
            found.append(Looking(pairs=pairs, scales=scales, inside=net.shape.inside))
        return found


def _new(table: dict[str, Loaded], name: str, what: str) -> None:
    if name in table:
        raise BadRequest(f"there is a {what} {name!r} already", hint="give another name, or unload it first")
