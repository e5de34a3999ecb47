"""From an embedder and a picture encoder to a folder in the layout of the published Redux: diffusers loads it too."""

from __future__ import annotations

from pathlib import Path

import torch

from fluxone.nn.siglip import ReduxEmbedder, SiglipEncoder
from fluxone.shapes import Intake
from fluxone.weights.held import write_vision
from fluxone.weights.locate import INDEX
from fluxone.weights.redux import CLASS, EMBEDDER, ENCODER, EXTRACTOR, PREPROCESSOR
from fluxone.weights.safetensors import write
from fluxone.weights.save import DIFFUSERS_FILE, METADATA, TRANSFORMERS_FILE, _json, _outline, _whole_folder

PROCESSOR = "SiglipImageProcessor"
NOT_HERE = {key: [None, None] for key in ("text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2")}
PARTS = {
    EXTRACTOR: ["transformers", PROCESSOR],
    EMBEDDER: ["flux", "ReduxImageEncoder"],
    ENCODER: ["transformers", "SiglipVisionModel"],
}


def save_redux(
    path: Path | str,
    *,
    encoder: SiglipEncoder,
    embedder: ReduxEmbedder,
    intake: Intake,
    dtype: torch.dtype | None = None,
) -> None:
    """Write the folder; replace an older one there.

    Args:
        intake: how pictures were brought to the encoder when it was trained.
        dtype: what floating-point tensors become; None keeps each as it is.

    Raises:
        CannotWrite: the disk is full, the folder is not writable, or it holds something else than a model.
    """
    looks = {
        "architectures": ["SiglipVisionModel"],
        "model_type": "siglip_vision_model",
        **write_vision(encoder.shape),
        "vision_use_head": False,
    }
    says = {
        "_class_name": "ReduxImageEncoder",
        "redux_dim": embedder.shape.image,
        "txt_in_features": embedder.shape.text,
    }
    comes = {
        "image_processor_type": PROCESSOR,
        "size": {"height": intake.height, "width": intake.width},
        "resample": intake.filter,
        "image_mean": list(intake.mean),
        "image_std": list(intake.spread),
    }
    with _whole_folder(Path(path)) as folder:
        for name, config, file, module in (
            (EMBEDDER, says, DIFFUSERS_FILE, embedder),
            (ENCODER, looks, TRANSFORMERS_FILE, encoder),
        ):
            _json(folder / name / "config.json", config)
            tensors = module.state_dict().items()
            write(folder / name / file, [_outline(key, tensor, dtype) for key, tensor in tensors], METADATA)
        _json(folder / EXTRACTOR / PREPROCESSOR, comes)
        _json(folder / INDEX, {"_class_name": CLASS, **NOT_HERE, **PARTS})
