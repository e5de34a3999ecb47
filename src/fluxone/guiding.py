"""ControlNets, IP-Adapters and own words of the Python door, in diffusers' names where it has them; and a recipe's.

They do nothing until a call gives them pictures or words, and leave nothing behind when they are unloaded.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from fluxone.errors import BadRequest, BadWeights, MissingParts
from fluxone.lora.adapters import read_scale
from fluxone.lora.fetch import fetch
from fluxone.nn.taef1 import TinyDecoder
from fluxone.pipeline import Pipeline
from fluxone.recipe import Recipe
from fluxone.shapes import AutoEncoderShape
from fluxone.steering.embeddings import read_embeddings
from fluxone.steering.encoders import Given
from fluxone.weights.beside import hash_of, load_tiny

Source = str | Path
Scale = float | Sequence[float] | Sequence[Sequence[float]]


class Guiding:
    """What `FluxPipeline` can do with networks beside its own.

    Attributes:
        pipeline: whose they are.
    """

    pipeline: Pipeline

    def load_controlnet(
        self,
        source: Source | nn.Module,
        *,
        adapter_name: str | None = None,
        weight_name: str | None = None,
        scale: float = 1.0,
        token: str | None = None,
    ) -> None:
        """Load a ControlNet: calls then need a `control_image` for it.

        Args:
            source: a file or folder in diffusers' or XLabs' layout, or a hub id; or diffusers' FluxControlNetModel.
            adapter_name: to call it by; None is the file's or folder's name, or the class'.
            weight_name: the file in the folder or repository.
            scale: where a call gives no `controlnet_conditioning_scale`.

        Raises:
            BadFile, HubError: it is not there.
            BadWeights: it is something else, or made for another network.
        """
        whole = source if isinstance(source, nn.Module) or not weight_name else f"{source}/{weight_name}"
        bring(self.pipeline, whole, adapter_name, scale, token)

    def get_list_controlnets(self) -> list[str]:
        """The names of the loaded ControlNets, in the order in which calls give pictures for them."""
        return list(self.pipeline.steering.controlnets)

    def unload_controlnet(self, adapter_name: str | None = None) -> None:
        """Forget a ControlNet, or all."""
        for name in self.get_list_controlnets() if adapter_name is None else [adapter_name]:
            self.pipeline.steering.drop("controlnet", name)

    def load_ip_adapter(  # noqa: PLR0913
        self,
        source: Source | Sequence[Source],
        weight_name: str | Sequence[str] | None = None,
        subfolder: str = "",
        image_encoder_pretrained_model_name_or_path: Source | None = None,
        image_encoder_subfolder: str = "",
        image_encoder_dtype: torch.dtype | None = None,
        *,
        image_encoder: nn.Module | None = None,
        feature_extractor: object = None,
        adapter_name: str | None = None,
        token: str | None = None,
    ) -> None:
        """Load one IP-Adapter or several, in XLabs' or InstantX's layout; calls then take `ip_adapter_image`.

        Args:
            source: a file, a folder, or a hub id; or a list of them.
            weight_name: the file in the folder or repository; or one for each.
            image_encoder_pretrained_model_name_or_path: CLIP's picture encoder; None is the one that the model was
                loaded with, or looks for `image_encoder/` or `clip_vision/` near the file.
            image_encoder_dtype: None is the model's.
            image_encoder, feature_extractor: the encoder itself, of transformers', and what brings pictures to it.
            adapter_name: of a single one; None is the file's name.

        Raises:
            BadFile, HubError: it is not there.
            BadWeights: it is something else, or made for another network.
            BadRequest: the feature extractor does not fit the encoder, or an encoder is given twice.
        """
        sources = [source] if isinstance(source, str | Path) else list(source)
        files = [weight_name] if weight_name is None or isinstance(weight_name, str) else list(weight_name)
        sources = sources * len(files) if len(sources) == 1 else sources
        files = files * len(sources) if len(files) == 1 else files
        if len(files) != len(sources):
            raise BadRequest(f"{len(files)} files of {len(sources)} IP-Adapters", hint="give as many")
        path, network = image_encoder_pretrained_model_name_or_path, image_encoder
        if path is not None and network is not None:
            raise BadRequest("two image encoders are given", hint="give its path, or image_encoder alone")
        given: object = network
        if given is not None and not isinstance(given, nn.Module):
            hint = "give transformers' network, or its place as image_encoder_pretrained_model_name_or_path"
            raise BadRequest(f"image_encoder is a {type(given).__name__}", hint=hint)
        where = None if path is None else f"{path}/{image_encoder_subfolder}" if image_encoder_subfolder else str(path)
        own = network if where is None else place_of(where, token)
        seeing = Given(network=own, extractor=feature_extractor, dtype=image_encoder_dtype)
        for one, file in zip(sources, files, strict=True):
            place = place_of("/".join(str(word) for word in (one, subfolder, file) if word), token)
            self.pipeline.steering.load_adapter(place, adapter_name or name_of(place), given=seeing)

    def set_ip_adapter_scale(self, scale: Scale) -> None:
        """Set how strongly IP-Adapters work: a number for all; of a single one a number a block; else a list with
        either for each.

        Raises:
            BadRequest: there are as many adapters, or blocks, as not.
        """
        steering = self.pipeline.steering
        names = list(steering.adapters)
        each: list[float | Sequence[float]] = [scale] * len(names) if isinstance(scale, float | int) else list(scale)
        if len(names) == 1 and not isinstance(scale, float | int) and all(isinstance(x, float | int) for x in each):
            each = [tuple(each)] if len(each) > 1 else each  # type: ignore[arg-type]
        if len(each) != len(names):
            raise BadRequest(f"{len(each)} scales for {len(names)} IP-Adapters", hint="give one, or as many")
        for name, own in zip(names, each, strict=True):
            steering.scale_adapter(name, float(own) if isinstance(own, float | int) else tuple(map(float, own)))

    def unload_ip_adapter(self) -> None:
        """Forget all IP-Adapters and their picture encoders."""
        for name in list(self.pipeline.steering.adapters):
            self.pipeline.steering.drop("ip-adapter", name)

    def load_textual_inversion(
        self,
        source: Source | Mapping[str, Tensor] | Tensor,
        token: str | Sequence[str] | None = None,
        tokenizer: object = None,
        text_encoder: object = None,
        *,
        weight_name: str | None = None,
        hf_token: str | None = None,
    ) -> None:
        """Let words of prompts stand for the vectors in a file, in the encoders that it has them for.

        Args:
            source: a file, a folder, a hub id, tensors by key, or the vectors themselves.
            tokenizer, text_encoder: of bare vectors: `pipe.text_encoder` (CLIP) or `pipe.text_encoder_2` (T5); None
                is the one of their width.
            token: the word, such as `<fox>`, for all vectors; or one for each. None is what the file says, or its name.

        Raises:
            BadFile, HubError: it is not there.
            BadWeights: it is no textual inversion, or made for other encoders.
            BadRequest: there is such a word already.
        """
        if isinstance(source, Tensor):
            encoders = {id(getattr(self.pipeline.text, name, None)): name for name in ("clip", "t5")}
            spell(self.pipeline, {encoders.get(id(text_encoder), "emp_params"): source}, token)
        elif isinstance(source, Mapping):
            spell(self.pipeline, source, token)
        else:
            spell(self.pipeline, place_of(f"{source}/{weight_name}" if weight_name else source, hf_token), token)

    def unload_textual_inversion(self, tokens: str | Sequence[str] | None = None) -> None:
        """Forget own words: these, or all."""
        own = None if self.pipeline.text is None else self.pipeline.text.own
        for word in (
            [] if own is None else own.names if tokens is None else [tokens] if isinstance(tokens, str) else tokens
        ):
            own.drop(word)  # type: ignore[union-attr]
        self.pipeline.forget()


def bring(
    pipeline: Pipeline,
    source: Source | nn.Module,
    name: str | None = None,
    scale: float = 1.0,
    token: str | None = None,
) -> None:
    """Load a ControlNet of a file or folder, or make one of a network in memory, called by its class.

    Raises:
        BadFile, HubError, BadWeights: see `load_controlnet`.
    """
    table = pipeline.steering.controlnets
    place = source if isinstance(source, nn.Module) else place_of(source, token)
    called = _free(type(place).__name__, table) if isinstance(place, nn.Module) else name_of(place)
    pipeline.steering.load_controlnet(place, name or called, scale)


def spell(pipeline: Pipeline, source: Path | Mapping[str, Tensor], token: str | Sequence[str] | None = None) -> None:
    """Add the own words of a file of vectors.

    Raises:
        MissingParts: the model has no text encoders.
        BadFile, BadWeights, BadRequest: see `load_textual_inversion`.
    """
    if pipeline.text is None:
        raise MissingParts("this model has no text encoders", hint="give text_encoder and text_encoder_2")
    if isinstance(source, Path) and source.is_dir():
        source = fetch(str(source))
    widths = {"clip": pipeline.text.clip.shape.hidden, "t5": pipeline.text.t5.shape.hidden}
    words = [] if token is None else [token] if isinstance(token, str) else list(token)
    for word, vectors in read_embeddings(source, widths, words).items():
        pipeline.text.own.add(word, vectors)
    pipeline.forget()


def furnish(pipeline: Pipeline, recipe: Recipe) -> None:
    """Load what a recipe has beside the model.

    Raises:
        UserError: it is not there, cannot be read, or does not fit.
    """
    steering = pipeline.steering
    for text in recipe.controlnets:
        source, scale = read_scale(text)
        place = place_of(source, recipe.token)
        steering.load_controlnet(place, _free(name_of(place), steering.controlnets), scale)
    seeing = Given(network=None if recipe.image_encoder is None else place_of(recipe.image_encoder, recipe.token))
    for text in recipe.ip_adapters:
        source, scale = read_scale(text)
        place = place_of(source, recipe.token)
        steering.load_adapter(place, _free(name_of(place), steering.adapters), scale=scale, given=seeing)
    if recipe.decoder is not None:
        place = place_of(recipe.decoder, recipe.token)
        pipeline.decoder = fitting_tiny(place, pipeline.autoencoder.shape)
        pipeline.on_device.add("decoder", [pipeline.decoder], streamed=False)
        pipeline.bundle.hashes["decoder"] = hash_of(place)
    for text in recipe.embeddings:
        source, word = read_word(text)
        spell(pipeline, place_of(source, recipe.token), word)


def fitting_tiny(place: Path, shape: AutoEncoderShape) -> TinyDecoder:
    """A tiny decoder for the latents of an autoencoder.

    Raises:
        BadFile: it is not there.
        BadWeights: it is something else, or made for other latents.
    """
    tiny = load_tiny(place)
    if (tiny.shape.latent, tiny.shape.factor) != (shape.latent, shape.factor):
        raise BadWeights(
            f"{place} decodes {tiny.shape.latent} channels, {tiny.shape.factor} px a cell; this model's latents have "
            f"{shape.latent}, {shape.factor} px",
            hint="use it with the model that it was made for",
        )
    return tiny


def place_of(source: Source, token: str | None = None) -> Path:
    """The file or folder itself; what is remote is downloaded.

    Raises:
        BadFile, HubError: it is not there.
    """
    path = Path(source).expanduser()
    return path if path.exists() else fetch(str(source), token=token, what="file")


def read_word(text: str) -> tuple[str, str | None]:
    """`FILE:WORD` as the file and its word; None if there is none."""
    file, colon, word = text.rpartition(":")
    return (text, None) if not colon or Path(text).exists() or not Path(file).exists() else (file, word)


def name_of(place: Path) -> str:
    """What a network is called by: the name of its folder, or of its file without the ending."""
    return place.name if place.is_dir() else place.stem


def _free(name: str, taken: object) -> str:
    assert isinstance(taken, dict)
    return next(word for word in (name, *(f"{name}-{n}" for n in range(2, 1000))) if word not in taken)
