"""The table of LoRA formats; a file is of exactly one."""

from __future__ import annotations

from collections.abc import Collection

from fluxone.errors import BadWeights
from fluxone.lora.formats import bfl, diffusers, kohya
from fluxone.lora.formats.format import BUNDLED, Format, strange
from fluxone.weights.safetensors import listing

FORMATS: dict[str, Format] = {
    row.name: row
    for row in (
        diffusers.FORMAT,
        kohya.KOHYA,
        kohya.KOHYA_DIFFUSERS,
        kohya.ONETRAINER,
        kohya.LYCORIS,
        bfl.COMFY,
        bfl.CONTROL,
        bfl.FAL,
        bfl.ONETRAINER,
        bfl.XLABS_FORMAT,
    )
}

WHOLE = ("img_in.weight", "x_embedder.weight")  # an adapter has endings of its own after the module's name


def recognise(keys: Collection[str], place: object) -> Format:
    """The one format of a file with these keys.

    Raises:
        BadWeights: it is of none, or of two.
    """
    if not keys:
        raise BadWeights(f"{place} holds no tensors", hint="get the file again")
    if any(key.endswith(WHOLE) for key in keys):
        raise BadWeights(f"{place} is a model, not an adapter", hint="fluxone lora extract makes one of two models")
    named = [key for key in keys if not key.startswith(BUNDLED)]
    found = [form for form in FORMATS.values() if form.recognise(named)]
    found = found or [form for form in FORMATS.values() if form.knows(named)]
    if len(found) == 1:
        return found[0]
    if found:
        styles = " and ".join(form.name for form in found)
        raise BadWeights(f"{place} mixes the styles {styles}", hint="keep one adapter a file")
    if title := strange(keys):
        raise BadWeights(f"{place} is {title}, which cannot be read", hint="LoRA, DoRA, LoKr, LoHa and diffs can")
    raise BadWeights(
        f"{place} is no LoRA of FLUX.1; it holds {listing(sorted(keys), 4)}", hint="LoRAs of other models do not fit"
    )
