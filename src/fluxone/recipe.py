"""How to run a model: precision, where it lives, and whose rounding to follow. Not what to draw."""

from __future__ import annotations

from dataclasses import dataclass, fields

from fluxone.errors import BadRequest, pick

DTYPES = {"float32": 4, "bfloat16": 2, "float16": 2}  # name -> bytes a number
KEPT = "kept"
AUTO = "auto"  # of quant and offload: the quickest way that fits the memory there is
OFFLOADS = {
    "none": "everything stays on the device",
    "lean": "the transformer stays; text encoders, modulation and autoencoder come when their turn comes",
    "model": "each part comes to the device when its turn comes",
    "block": "the transformer's blocks come one by one, the next while one computes",
    "disk": "the same, from a file: the machine's own memory holds little of them",
}
QUANTS = {
    "fp8": "8-bit floating-point weights, computed in the dtype",
    "fp8-dynamic": "the same, and activations in 8 bits as well, a scale a token: the fastest on GPUs with fp8 units",
    "int8": "8-bit whole-number weights, computed in the dtype",
    "int8-dynamic": "the same, and activations in 8 bits as well, a scale a token: the fastest on CPUs",
    "nf4": "4-bit weights, computed in the dtype: the smallest",
    KEPT: "as a GGUF file packs them, unpacked for each product: the memory of the file, and the same pictures",
    "packed": "the same weights in the order in which this CPU multiplies them: nothing is lost, for CPUs alone",
}
CACHES = {
    "first-block": "guess a step when the first block adds about what it added before",
    "teacache": "guess a step when the first block is shown about what it was shown before",
    "taylor": "compute every third step, and go on between them along the last changes",
}
PARALLELS = {
    "ulysses": "the picture's tokens; each attends for some heads",
    "gather": "the picture's tokens; each attends for its own, with everybody's keys and values",
    "tensor": "the blocks' weights",
}
COMPATS = {
    "exact": "float32 sigma, time and guidance; noise drawn in float32",
    "bfl": "time and guidance rounded to bfloat16 as the reference implementation does",
    "diffusers": "rounding of time and guidance to the model's dtype, as diffusers does",
    "comfy": "float32 time, constant mu of 1.15, T5 padded to at least 256 tokens and never cut",
}


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How to run a model.

    Attributes:
        dtype: of the transformer and text encoders; None is float32 on a CPU, else bfloat16.
        device: as torch writes it, `cpu`, `cuda`, `cuda:1`, `mps`; None picks the best there is.
        quant: row of `QUANTS`, for the transformer's blocks; None keeps the dtype; `auto` plans (`plan.py`).
        quant_t5: the same for the T5 encoder, which is quantized apart.
        offload: row of `OFFLOADS`, or `auto`. Where it is, a picture that runs out of memory goes on with less.
        attention: row of `ATTENTION` in `nn/attention.py`, or `auto`, which tries them on the device.
        compile: torch's compiler for each block; on CUDA text encoders are recorded as graphs (`nn/graphs.py`).
        compat: row of `COMPATS`: whose rounding and padding to follow.
        cache: `NAME` or `NAME:LIMIT` of a row of `CACHES`: some steps are guessed; None computes all.
        max_drift: picks the quickest row of `cache` whose measured drift is at most this.
        parallel: row of `PARALLELS`: what the processes share that torchrun has started; None shares nothing.
        adapters: LoRAs and their relatives as `FILE` or `FILE:SCALE`; a hub id or `civitai:VERSION` serves as FILE.
        controlnets, ip_adapters: networks beside the transformer as `FILE` or `FILE:SCALE`; calls give them pictures.
        embeddings: files of own words (textual inversion), as `FILE` or `FILE:WORD`.
        image_encoder: of the IP-Adapters' pictures; None looks for it near their files.
        decoder, preview_decoder: TAEF1's file, in place of the autoencoder's decoder, or for previews alone.
        tiled: decode and encode pictures in tiles: less memory, same picture up to rounding.
        vae, text_encoder, text_encoder_2: files or folders of parts that the model's own lacks.
        redux: what makes words of pictures beside this model: a name, a hub id, a folder or a file.
        siglip: the folder or file of the SigLIP that it looks with, where it comes without.
        token: hub access token; None is the one that `hf auth login` stored.
    """

    dtype: str | None = None
    device: str | None = None
    quant: str | None = None
    quant_t5: str | None = None
    offload: str = "none"
    compat: str = "exact"
    attention: str = "sdpa"
    compile: bool = False
    cache: str | None = None
    max_drift: float | None = None
    parallel: str | None = None
    adapters: tuple[str, ...] = ()
    controlnets: tuple[str, ...] = ()
    ip_adapters: tuple[str, ...] = ()
    embeddings: tuple[str, ...] = ()
    image_encoder: str | None = None
    decoder: str | None = None
    preview_decoder: str | None = None
    tiled: bool = False
    vae: str | None = None
    text_encoder: str | None = None
    text_encoder_2: str | None = None
    redux: str | None = None
    siglip: str | None = None
    token: str | None = None

    def __post_init__(self) -> None:
        for item in fields(self):  # a picture's record may say anything
            value = getattr(self, item.name)
            if not _fits(value, str(item.type)):
                raise BadRequest(f"{item.name} is {value!r:.80}", hint=f"{item.type} is needed")
        if self.dtype is not None:
            pick(DTYPES, self.dtype, "dtype")
        for name in (self.quant, self.quant_t5):
            if name is not None and name != AUTO:
                pick(QUANTS, name, "quantization")
        if self.offload != AUTO:
            pick(OFFLOADS, self.offload, "offload")
        pick(COMPATS, self.compat, "compat profile")
        if self.cache is not None:
            pick(CACHES, self.cache.partition(":")[0], "cache")
        if self.parallel is not None:
            pick(PARALLELS, self.parallel, "way of sharing")
        if self.max_drift is not None and not 0 <= self.max_drift < 10:
            raise BadRequest(f"max_drift is {self.max_drift!r}", hint="use a share of the picture, such as 0.05")
        if self.device is not None and self.device.split(":")[0] not in ("cpu", "cuda", "mps", "xpu"):
            raise BadRequest(f"device is {self.device!r}", hint="use cpu, cuda, cuda:N, mps or xpu")


def _fits(value: object, kind: str) -> bool:
    """Whether a field's value is of the kind that its annotation names."""
    own, _, empty = kind.partition(" | ")
    if value is None:
        return empty == "None"
    if own == "tuple[str, ...]":
        return isinstance(value, tuple) and all(isinstance(text, str) for text in value)
    if own == "float":
        return isinstance(value, (int, float)) and not isinstance(value, bool)
    return isinstance(value, {"str": str, "bool": bool}[own])
