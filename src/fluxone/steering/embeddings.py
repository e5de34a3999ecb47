"""Files of textual inversions: vectors of one or several own words, for CLIP, for T5, or for both.

clip_l, t5 (or t5xxl)      (N D) each                           diffusers' trainer, ComfyUI
<word>                     (D) or (N D), for the encoder of that width      diffusers, one key a word
emp_params                 (N D)                                A1111
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from torch import Tensor

from fluxone.errors import BadRequest, BadWeights
from fluxone.text.inversion import ENCODERS
from fluxone.weights.mapped import Mapped
from fluxone.weights.safetensors import listing, read_header

NAMELESS = ("emp_params",)  # keys that are no words

Vectors = dict[str, Tensor]  # encoder -> (N D)


def read_embeddings(
    source: Path | Mapping[str, Tensor], widths: Mapping[str, int], words: Sequence[str] = ()
) -> dict[str, Vectors]:
    """Word -> encoder -> vectors.

    Args:
        widths: of the encoders `clip` and `t5`.
        words: to call them by; several share the rows of a file one by one. Empty: as the file says, or is called.

    Raises:
        BadFile: there is no such file.
        BadWeights: it holds something else.
        BadRequest: there are more words than vectors, or the other way round.
    """
    if isinstance(source, Path):
        header = read_header(source)
        mapped = Mapped([header])
        tensors: Mapping[str, Tensor] = {name: mapped.read(name).clone() for name in header.entries}
        called = source.stem
    else:
        tensors, called = source, ""
    found = _by_word(tensors, widths, called, source if isinstance(source, Path) else "the embedding")
    if not words:
        if "" in found:
            raise BadRequest("the vectors have no name", hint="give token, the word that stands for them")
        return found
    if len(words) == len(found):
        return dict(zip(words, found.values(), strict=True))
    (vectors, *others) = found.values()
    if others or any(len(rows) != len(words) for rows in vectors.values()):
        counts = sorted({len(rows) for each in found.values() for rows in each.values()})
        raise BadRequest(f"{len(words)} words for {counts} vectors", hint="give one word, or one for each vector")
    return {word: {name: rows[i : i + 1] for name, rows in vectors.items()} for i, word in enumerate(words)}


def _by_word(
    tensors: Mapping[str, Tensor], widths: Mapping[str, int], called: str, place: object
) -> dict[str, Vectors]:
    rows = {key: value[None] if value.ndim == 1 else value for key, value in tensors.items()}
    if rows and all(key in ENCODERS for key in rows):
        return {called: rows}
    if strange := [key for key, value in rows.items() if value.ndim != 2 or not value.is_floating_point()]:
        raise BadWeights(f"{place} holds {listing(strange)}", hint="rows of vectors are needed")
    if not rows or any(key in ENCODERS for key in rows):
        raise BadWeights(f"{place} holds {listing(sorted(rows)) or 'nothing'}", hint="give a textual inversion")
    found = {}
    for key, value in rows.items():
        fitting = [name for name, width in widths.items() if width == value.shape[1]]
        if len(fitting) != 1:
            told = "both encoders are" if fitting else "no encoder is"
            raise BadWeights(f"{place}: {key} is {value.shape[1]} wide, and {told}", hint="name its keys clip_l and t5")
        found[called if key in NAMELESS else key] = {fitting[0]: value}
    return found
