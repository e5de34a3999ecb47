"""What pictures and captions become before the network sees them, kept on disk under the hash of what they were.

    picture, its place in a bucket --autoencoder's mean--> tokens       caption --T5, CLIP--> txt, pooled

A key holds the content of the file, the size, and the fingerprint of the network that made it: a picture that was
changed, another size or another model has another key, and nothing is ever paired by its position.
"""

from __future__ import annotations

import hashlib
import secrets
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path

import torch
from PIL import Image, ImageOps
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from fluxone.errors import CannotWrite
from fluxone.geometry import Resolution
from fluxone.nn.tokens import pack
from fluxone.pipeline import Pipeline
from fluxone.pixels import from_images, masks
from fluxone.text.encode import Text
from fluxone.tune.buckets import Grid
from fluxone.tune.folder import digest, open_picture
from fluxone.tune.views import WHOLE, View
from fluxone.weights.keymap import AUTOENCODER, CLIP, T5

KEPT = 2**30  # bytes in memory; the rest is read again


class Cache:
    """Latents and embeddings of one model, in a folder."""

    def __init__(self, pipeline: Pipeline, folder: Path) -> None:
        self.pipeline, self.folder = pipeline, folder
        hashes = pipeline.bundle.hashes
        self._eye = hashes.get(AUTOENCODER, "")
        self._reader = f"{hashes.get(T5, '')} {hashes.get(CLIP, '')}"
        self._memory: OrderedDict[str, dict[str, Tensor]] = OrderedDict()
        self._bytes = 0
        self._digests: dict[Path, str] = {}
        self.made = 0

    def digest(self, path: Path) -> str:
        """The content of a file, looked at once a run."""
        if path not in self._digests:
            self._digests[path] = digest(path)
        return self._digests[path]

    def tokens(self, path: Path, grid: Grid, *, covered: Path | None = None, view: View = WHOLE) -> Tensor:
        """The packed latent (L C) of a picture in a bucket, float32.

        Args:
            covered: mask of what is made grey first, for models that repaint.
            view: the part that is seen.
        """
        cover = "" if covered is None else self.digest(covered)
        key = self._key("picture", self._eye, self.digest(path), cover, *grid, view)

        def make() -> dict[str, Tensor]:
            size = self.resolution(grid)
            pixels = from_images(view.of(fitted(open_picture(path), size)), size)
            if covered is not None:
                pixels = pixels * (1 - self.mask(covered, grid))
            latent = self.pipeline.encode_pixels(pixels, sources=None, posterior=False)
            return {"tokens": pack(latent)[0].clone()}

        return self._get(key, make)["tokens"]

    def mask(self, path: Path, grid: Grid, view: View = WHOLE) -> Tensor:
        """A mask (1 1 H W) of 0..1 in a bucket."""
        size = self.resolution(grid)
        return masks(view.of(fitted(open_picture(path).convert("L"), size)), size)

    def text(self, prompt: str) -> Text:
        """A caption as the network reads it: txt (1 T D), pooled (1 V), in the network's type."""
        length = self.pipeline.variant.text_tokens
        key = self._key("text", self._reader, str(self.pipeline.dtype), length, prompt)

        def make() -> dict[str, Tensor]:
            text = self.pipeline.encode([prompt], [None], None)
            cut = torch.tensor([*text.cut, *text.clip_cut])
            return {"txt": text.txt.clone(), "pooled": text.pooled.clone(), "cut": cut}

        found = self._get(key, make)
        cut = found["cut"].tolist()
        return Text(txt=found["txt"], pooled=found["pooled"], cut=(cut[0],), clip_cut=(cut[1],))

    def resolution(self, grid: Grid) -> Resolution:
        """px of a bucket."""
        return Resolution(height=grid[0] * self.pipeline.token, width=grid[1] * self.pipeline.token)

    def _key(self, *parts: object) -> str:
        return hashlib.sha256(repr(parts).encode()).hexdigest()[:40]

    def _get(self, key: str, make: Callable[[], dict[str, Tensor]]) -> dict[str, Tensor]:
        if key in self._memory:
            self._memory.move_to_end(key)
            return self._memory[key]
        path = self.folder / f"{key}.safetensors"
        found = _read(path)
        if found is None:
            found = {name: tensor.cpu().contiguous() for name, tensor in make().items()}
            self.made += 1
            _write(path, found)
        self._memory[key] = found
        self._bytes += _size(found)
        while self._bytes > KEPT and len(self._memory) > 1:
            _, old = self._memory.popitem(last=False)
            self._bytes -= _size(old)
        return found


def fitted(image: Image.Image, size: Resolution) -> Image.Image:
    """The picture at a size: scaled to cover it, what sticks out cut off evenly."""
    return ImageOps.fit(image, (size.width, size.height), Image.Resampling.LANCZOS)


def _read(path: Path) -> dict[str, Tensor] | None:
    """What is there, or None; a file that a crash left broken is made again."""
    try:
        return load_file(path) if path.is_file() else None
    except (SafetensorError, OSError):
        return None


def _write(path: Path, tensors: dict[str, Tensor]) -> None:
    part = path.with_suffix(f".{secrets.token_hex(4)}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file(tensors, part)
        part.replace(path)
    except (OSError, SafetensorError) as error:
        part.unlink(missing_ok=True)
        raise CannotWrite(f"cannot write {path}: {error}", hint="free space or choose another folder") from None


def _size(tensors: dict[str, Tensor]) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
