"""From files to the Python door and back, in diffusers' names: load, share, save, and the parts.

source --from_pretrained, from_single_file--> pipe --save_pretrained--> folder      pipe.transformer, pipe.vae, ...
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Self

import torch
from torch import nn

from fluxone.assembly import assemble, compile_blocks
from fluxone.errors import BadRequest, pick
from fluxone.guiding import bring, place_of
from fluxone.pipeline import Pipeline
from fluxone.quant.apply import scheme_of
from fluxone.recipe import DTYPES, Recipe
from fluxone.steering import encoders
from fluxone.variants import VARIANTS
from fluxone.weights.held import part_of
from fluxone.weights.keymap import AUTOENCODER, CLIP, T5, TRANSFORMER
from fluxone.weights.load import Bundle
from fluxone.weights.locate import TOKENIZERS
from fluxone.weights.parts import Part, open_part
from fluxone.weights.redux import Given
from fluxone.weights.save import save_folder

Network = str | os.PathLike[str] | nn.Module | None
PARTS = ("vae", "text_encoder", "tokenizer", "text_encoder_2", "tokenizer_2", "transformer")


class Opening:
    """How `FluxPipeline` comes about, and what it is made of.

    Attributes:
        pipeline: the floor below, with `Request` and `Result`.
    """

    def __init__(self, pipeline: Pipeline) -> None:
        self.pipeline = pipeline

    @classmethod
    def from_pretrained(  # noqa: PLR0913
        cls,
        source: str | os.PathLike[str],
        *,
        torch_dtype: torch.dtype | str | None = None,
        device: torch.device | str | None = None,
        quant: str | None = None,
        quant_t5: str | None = None,
        offload: str | None = None,
        compile: bool = False,
        attention: str | None = None,
        variant: str | None = None,
        transformer: Network = None,
        vae: Network = None,
        text_encoder: Network = None,
        text_encoder_2: Network = None,
        controlnet: Network | Sequence[Network] = None,
        decoder: str | None = None,
        redux: str | None = None,
        siglip: str | None = None,
        image_embedder: Network = None,
        image_encoder: Network = None,
        feature_extractor: object = None,
        token: str | None = None,
        compat: str | None = None,
    ) -> Self:
        """Load a model: a name from the table, a hub id, a diffusers folder, or a single file or its address there.

        Args:
            torch_dtype: of transformer and text encoders; None is float32 on a CPU, else bfloat16.
            quant, quant_t5: fp8, int8, int8-dynamic or nf4, for the transformer's blocks and for the T5 encoder.
            device: where it runs; None picks the best there is. Parts go there when they are first needed.
            variant: name of the row whose defaults apply, where the files cannot tell.
            transformer, vae, text_encoder, text_encoder_2: files or folders of parts that the source lacks, or that go
                before its own; or the networks themselves: diffusers' and transformers', or those of another pipe.
            controlnet: ControlNets to load with it; see `load_controlnet`.
            decoder: a tiny decoder (TAEF1), in place of the autoencoder's.
            redux: what makes words of pictures beside this model, for `image_prompts`: a name, a hub id, a folder or
                a file. As the source itself it stands on the model that its row names.
            siglip: the folder or file of the SigLIP that it looks with, where it comes without.
            image_embedder, image_encoder, feature_extractor: diffusers' parts of Redux, files or networks; without
                Redux the latter two are those of IP-Adapters that are loaded later.
            token: hub access token; None is the one that `hf auth login` stored.
            compat: whose rounding and padding to follow: exact, bfl, diffusers or comfy.

        Raises:
            UserError: the model cannot be found, fetched, read or completed; each its own kind.
        """
        networks = {TRANSFORMER: transformer, AUTOENCODER: vae, CLIP: text_encoder, T5: text_encoder_2}
        held = {name: part_of(one, name) for name, one in networks.items() if isinstance(one, nn.Module)}
        if transformer is not None and TRANSFORMER not in held:
            held[TRANSFORMER] = open_part(Path(str(_path(transformer))).expanduser(), TRANSFORMER)
        if redux is not None and image_embedder is not None:
            raise BadRequest("redux and image_embedder are both given", hint="they are the same: give one")
        seeing = image_encoder
        if seeing is not None and not isinstance(seeing, nn.Module):
            seeing = place_of(str(_path(seeing)), token)
        in_hand = image_embedder if isinstance(image_embedder, nn.Module) else None
        prior = Given(embedder=in_hand, encoder=seeing, extractor=feature_extractor)
        beside = _several(controlnet)
        in_memory = any(isinstance(one, nn.Module) for one in beside)
        recipe = Recipe(
            dtype=_dtype_name(torch_dtype),
            device=None if device is None else str(device),
            quant=quant,
            quant_t5=quant_t5,
            offload=offload or "none",
            compat=compat or "exact",
            attention=attention or "sdpa",
            compile=compile,
            vae=_path(vae, held.get(AUTOENCODER)),
            text_encoder=_path(text_encoder, held.get(CLIP)),
            text_encoder_2=_path(text_encoder_2, held.get(T5)),
            controlnets=() if in_memory else tuple(str(_path(one)) for one in beside),
            decoder=_path(decoder),
            redux=_path(redux if image_embedder is None or in_hand is not None else image_embedder),
            siglip=_path(siglip),
            token=token,
        )
        pipe = cls(assemble(str(_path(source)), recipe, variant=variant, held=held, prior=prior))
        if pipe.bundle.redux is None:
            pipe.pipeline.steering.given = encoders.Given(network=seeing, extractor=feature_extractor)
        for one in beside if in_memory else ():
            bring(pipe.pipeline, one if isinstance(one, nn.Module) else str(_path(one)), token=token)
        return pipe

    from_single_file = from_pretrained

    @classmethod
    def from_pipe(cls, pipeline: object, *, torch_dtype: torch.dtype | None = None) -> Self:
        """Another door to the same loaded model, for scripts that have a pipeline a task: one does all tasks here, and
        adapters, offload and all else that is set belong to the model, so that both doors share them.

        Raises:
            BadRequest: it is no pipeline of ours, or in another dtype.
        """
        if not isinstance(pipeline, Opening):
            hint = "save it with its save_pretrained, and give from_pretrained the folder"
            raise BadRequest(f"from_pipe is given a {type(pipeline).__name__}", hint=hint)
        if torch_dtype is not None and torch_dtype != pipeline.dtype:
            raise BadRequest(f"the model is in {pipeline.dtype}", hint=f"load it with torch_dtype={torch_dtype}")
        return cls(pipeline.pipeline)

    def save_pretrained(self, save_directory: str | os.PathLike[str], *, safe_serialization: bool = True) -> None:
        """Write the model, with what is fused, as a folder that diffusers and `from_pretrained` load.

        Redux, ControlNets and IP-Adapters stay in their own files. An older model there is replaced.

        Raises:
            BadRequest: adapters work beside the weights, or these are packed.
            CannotWrite: the disk is full, the folder is not writable, or it holds something else than a model.
        """
        if not safe_serialization:
            raise BadRequest("safe_serialization is off", hint="leave it on: models are written as safetensors alone")
        if working := list(self.pipeline.adapters.active):
            hint = "call fuse_lora or unload_lora_weights before"
            raise BadRequest(f"{', '.join(working)} works beside the weights, not in them", hint=hint)
        for network in (self.transformer, self.text_encoder_2):
            if network is not None and (scheme := scheme_of(network)) is not None:
                hint = "load it without quant, or use fluxone models convert"
                raise BadRequest(f"the {type(network).__name__}'s weights are packed as {scheme}", hint=hint)
        row, words = self.pipeline.variant, {T5: self.bundle.t5_tokenizer, CLIP: self.bundle.clip_tokenizer}
        if row.wide is not None:  # a control LoRA may have made it so
            row = replace(row, pipeline=next(one.pipeline for one in VARIANTS.values() if one.wide is row.wide))
        save_folder(
            os.fspath(save_directory),
            variant=row,
            transformer=self.pipeline.transformer,
            autoencoder=self.pipeline.autoencoder,
            t5=self.bundle.t5,
            clip=self.bundle.clip,
            tokenizers={TOKENIZERS[name]: folder for name, folder in words.items() if folder is not None},
        )

    @property
    def components(self) -> dict[str, object]:
        """The parts by diffusers' names; there is no scheduler, because a schedule is a list of numbers here."""
        return {name: getattr(self, name) for name in PARTS}

    @property
    def bundle(self) -> Bundle:
        """The loaded parts."""
        return self.pipeline.bundle

    @property
    def transformer(self) -> nn.Module:
        """The network. `pipe.transformer = torch.compile(pipe.transformer)` compiles its blocks, one by one."""
        return self.pipeline.transformer

    @transformer.setter
    def transformer(self, value: object) -> None:
        own = self.pipeline.transformer
        if getattr(value, "_orig_mod", value) is not own:
            what = type(value).__name__
            hint = "load the model that you want, or give from_pretrained this transformer"
            raise BadRequest(f"the transformer cannot be replaced by a {what}", hint=hint)
        if value is not own:
            compile_blocks(own)

    @property
    def vae(self) -> nn.Module:
        """The autoencoder."""
        return self.pipeline.autoencoder

    @property
    def text_encoder(self) -> nn.Module | None:
        """CLIP, if the model has it."""
        return self.bundle.clip

    @property
    def text_encoder_2(self) -> nn.Module | None:
        """T5, if the model has it."""
        return self.bundle.t5

    @property
    def tokenizer(self) -> object:
        """CLIP's tokenizer, if the model has it."""
        return None if self.pipeline.text is None else self.pipeline.text.clip_tokenizer

    @property
    def tokenizer_2(self) -> object:
        """T5's tokenizer, if the model has it."""
        return None if self.pipeline.text is None else self.pipeline.text.t5_tokenizer

    @property
    def vae_scale_factor(self) -> int:
        """Pixels a cell."""
        return self.pipeline.autoencoder.shape.factor

    @property
    def device(self) -> torch.device:
        """Where the model computes."""
        return self.pipeline.on_device.device

    @property
    def dtype(self) -> torch.dtype:
        """Of transformer and text encoders."""
        return self.pipeline.dtype


def _dtype_name(dtype: torch.dtype | str | None) -> str | None:
    if dtype is None or dtype == "auto":
        return None
    name = str(dtype).removeprefix("torch.")
    pick(DTYPES, name, "dtype")
    return name


def _several(parts: object) -> list[object]:
    """ControlNets as a list, those too that diffusers has put into one FluxMultiControlNetModel."""
    parts = getattr(parts, "nets", parts)
    return [] if parts is None else list(parts) if isinstance(parts, list | tuple | nn.ModuleList) else [parts]


def _path(part: object, held: Part | None = None) -> str | None:
    if held is not None:
        return None
    if part is None or isinstance(part, str):
        return part
    if hasattr(part, "__fspath__"):
        return str(part.__fspath__())
    hint = "give the path of its file or folder, or the network itself"
    raise BadRequest(f"a part is given as {type(part).__name__}", hint=hint)
