"""Options for networks beside the model: ControlNets, IP-Adapters, own words, tiny decoders."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import click

from fluxone.cli import options
from fluxone.errors import BadRequest
from fluxone.request import MODES


@dataclass(frozen=True, kw_only=True)
class Beside:
    """What the command line said of them, an attribute an option."""

    controlnets: tuple[str, ...] = ()
    control_images: tuple[str, ...] = ()
    control_modes: tuple[str, ...] = ()
    control_range: str | None = None
    ip_adapters: tuple[str, ...] = ()
    ip_images: tuple[str, ...] = ()
    image_encoder: str | None = None
    embeddings: tuple[str, ...] = ()
    decoder: str | None = None
    preview_decoder: str | None = None

    def of_request(self) -> dict[str, Any]:
        """Fields of the request.

        Raises:
            UserError: pictures are given without what looks at them, or the other way round; or cannot be read.
        """
        for network, picture, networks, pictures in (
            ("--controlnet", "--control-image", self.controlnets, self.control_images),
            ("--ip-adapter", "--ip-image", self.ip_adapters, self.ip_images),
        ):
            if bool(networks) != bool(pictures):
                given, other = (picture, network) if pictures else (network, picture)
                raise BadRequest(f"{given} is given without {other}", hint=f"add {other}")
        start, end = options.read_interval(self.control_range, "--control-range")
        for option, value, other, networks in (
            ("--control-mode", self.control_modes, "--controlnet", self.controlnets),
            ("--control-range", self.control_range, "--controlnet", self.controlnets),
            ("--image-encoder", self.image_encoder, "--ip-adapter", self.ip_adapters),
        ):
            if value and not networks:
                raise BadRequest(f"{option} is given without {other}", hint="leave it out")
        return {
            "hints": tuple(options.read_image(path) for path in self.control_images),
            "hint_modes": self.control_modes,
            "hint_range": (start, end),
            "looks": tuple(options.read_image(path) for path in self.ip_images),
        }

    def of_recipe(self) -> dict[str, Any]:
        """Fields of the recipe."""
        names = ("controlnets", "ip_adapters", "image_encoder", "embeddings", "decoder", "preview_decoder")
        return {name: getattr(self, name) for name in names}


FILE = "FILE[:SCALE]"
# Files that a picture's record names without their folders.
FILES: list[click.Parameter] = [
    click.Option(["--controlnet", "controlnets"], metavar=FILE, multiple=True, help="A ControlNet; repeat."),
    click.Option(["--ip-adapter", "ip_adapters"], metavar=FILE, multiple=True, help="An IP-Adapter; repeat."),
    click.Option(["--image-encoder"], metavar="FILE", help="Of --ip-image: CLIP or SigLIP; default: near the adapter."),
    click.Option(["--embedding", "embeddings"], metavar="FILE[:WORD]", multiple=True, help="An own word; repeat."),
    click.Option(["--decoder"], metavar="FILE", help="TAEF1, in place of the autoencoder's decoder."),
]
PICTURES: list[click.Parameter] = [
    click.Option(["--control-image", "control_images"], metavar="IMAGE", multiple=True, help="For each --controlnet."),
    click.Option(["--ip-image", "ip_images"], metavar="IMAGE", multiple=True, help="For each --ip-adapter."),
]
OPTIONS: list[click.Parameter] = [
    *FILES,
    *PICTURES,
    click.Option(
        ["--control-mode", "control_modes"],
        metavar="NAME",
        multiple=True,
        help=f"What each --control-image shows, for Union: {', '.join(MODES)}.",
    ),
    click.Option(["--control-range"], metavar="START:END", help="Shares of the way between which they work: 0:0.6."),
    click.Option(["--preview-decoder"], metavar="FILE", help="TAEF1 for --preview; default: near the model's files."),
]
