"""A policy of pictures: a classifier that the operator has, in a folder as transformers saves it. Nothing is fetched.

    folder of a classifier    (ViT, Swin, ConvNeXt, ...)  picture -> a share for each of its own labels
    folder of a CLIP          (texts and pictures)        picture -> a share for each label, read as words

    a share above a label's limit, for the request's safety_tolerance -> the picture is withheld, the label is told
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from fluxone.errors import BadFile, BadRequest, BrokenModel, MissingExtra, pick
from fluxone.serve.policy import Policy

if TYPE_CHECKING:
    from PIL.Image import Image

LEEWAY = (0.5, 0.75, 1.0, 1.25, 1.5, 1.75, 2.0)  # times a limit, by safety_tolerance; 2 is what clients ask for
MOST = 0.99  # share that is too much at any tolerance
NEUTRAL = "a picture"  # what CLIP compares the labels with: of one label alone it is always sure
SINGLE = "ForImageClassification"  # how such classes end in transformers
Shares = Callable[["Image"], Mapping[str, float]]


def looks(folder: str, withheld: Mapping[str, object]) -> Policy:
    """A policy that withholds pictures in which a classifier finds a label, by the share from which it does.

    Raises:
        BadRequest: there is no label, a share is none, or the classifier does not know the label.
        BadFile: the folder holds no classifier, or only pickled weights.
        MissingExtra: transformers is not installed.
    """
    if not folder:
        return Policy()
    if not withheld:
        raise BadRequest("a classifier without labels withholds nothing", hint="say label = share in [withheld]")
    limits: dict[str, float] = {}
    for label, limit in withheld.items():
        if not isinstance(limit, int | float) or not 0 < limit < 1:
            raise BadRequest(f"the share of {label!r} is {limit!r}", hint="use more than 0 and less than 1")
        limits[label] = limit
    shares = _loaded(Path(folder).expanduser(), tuple(withheld))

    def picture(image: Image, tolerance: int) -> list[str]:
        found = shares(image.convert("RGB"))
        leeway = LEEWAY[min(max(tolerance, 0), len(LEEWAY) - 1)]
        return [label for label, limit in limits.items() if found[label] >= min(limit * leeway, MOST)]

    return Policy(picture=picture)


def _loaded(folder: Path, labels: tuple[str, ...]) -> Shares:
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    try:
        import transformers
    except ImportError:
        raise MissingExtra("safety", "a classifier needs transformers, which is not installed") from None
    transformers.utils.logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        config = transformers.AutoConfig.from_pretrained(folder, local_files_only=True)
        made = (config.architectures or [""])[0]
        return (_classes if made.endswith(SINGLE) else _words)(folder, labels)
    except (OSError, ValueError, KeyError, RuntimeError, AttributeError, ImportError) as error:
        first = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise BadFile(f"{folder} holds no classifier: {first:.200}", hint="give its folder, with safetensors") from None


def _classes(folder: Path, labels: tuple[str, ...]) -> Shares:
    """A classifier with labels of its own."""
    from transformers import AutoImageProcessor, AutoModelForImageClassification

    reader: Any = AutoImageProcessor.from_pretrained(folder, local_files_only=True)  # type: ignore[no-untyped-call]
    model: Any = AutoModelForImageClassification.from_pretrained(folder, local_files_only=True, use_safetensors=True)
    model.eval()
    places = {str(name): int(place) for place, name in model.config.id2label.items()}
    for label in labels:
        pick(places, label, "label of the classifier")
    many = getattr(model.config, "problem_type", None) == "multi_label_classification"

    @torch.inference_mode()
    def shares(image: Image) -> dict[str, float]:
        logits = model(**reader(images=image, return_tensors="pt")).logits[0].float()
        return _told(folder, torch.sigmoid(logits) if many else logits.softmax(0), places)

    return shares


def _words(folder: Path, labels: tuple[str, ...]) -> Shares:
    """A model of texts and pictures: labels are read as words."""
    from transformers import AutoModel, AutoProcessor

    reader: Any = AutoProcessor.from_pretrained(folder, local_files_only=True)  # type: ignore[no-untyped-call]
    model: Any = AutoModel.from_pretrained(folder, local_files_only=True, use_safetensors=True)
    model.eval()
    asked = {"text": [*labels, NEUTRAL], "return_tensors": "pt", "padding": True, "truncation": True}
    places = {label: place for place, label in enumerate(labels)}

    @torch.inference_mode()
    def shares(image: Image) -> dict[str, float]:
        logits = model(**reader(images=image, **asked)).logits_per_image[0].float()
        return _told(folder, logits.softmax(0), places)

    return shares


def _told(folder: Path, shares: torch.Tensor, places: Mapping[str, int]) -> dict[str, float]:
    if not torch.isfinite(shares).all():
        raise BrokenModel(f"the classifier in {folder} computes values that are not finite", hint="get it again")
    return {label: float(shares[place]) for label, place in places.items()}
