"""Whole files of every kind that fluxone opens, of small models, and how each kind is opened."""

from __future__ import annotations

import io
import json
import struct
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random

import torch
from fuzz_mutations import mislabelled, spoil_bytes, spoil_json, spoil_safetensors, spoil_tree
from PIL import Image
from safetensors.torch import load, save
from torch import Tensor, nn

from fluxone import provenance
from fluxone.cli.replay import recipe_of
from fluxone.lora import doctor
from fluxone.lora.adapters import Adapters, Strength
from fluxone.lora.load import load_lora, read_lora
from fluxone.lora.save import STYLES, in_style
from fluxone.nn.autoencoder import AutoEncoder
from fluxone.nn.clip import ClipTextEncoder
from fluxone.nn.t5 import T5Encoder
from fluxone.nn.transformer import Flux
from fluxone.recipe import Recipe
from fluxone.request import Request
from fluxone.shapes import AutoEncoderShape, ClipShape, FluxShape, T5Shape
from fluxone.text.tokenizers import load_tokenizer
from fluxone.variants import DEV, MINI
from fluxone.weights.convert import convert
from fluxone.weights.formats import FORMATS
from fluxone.weights.inspect import inspect
from fluxone.weights.keymap import TRANSFORMER
from fluxone.weights.layouts import wanted
from fluxone.weights.load import load_bundle
from fluxone.weights.save import in_format, save_file, save_folder

FLUX = FluxShape(
    in_channels=16, out_channels=16, hidden=32, heads=2, axes=(4, 6, 6), double_blocks=1, single_blocks=1,
    text_dim=24, vec_dim=64,
)  # fmt: skip
WORDS = ["<pad>", "</s>", "<unk>", "<|startoftext|>", "<|endoftext|>", "r", "e", "d</w>", "d", "re", "red</w>"]

Spoil = Callable[[bytes, Random], bytes]


@dataclass(frozen=True)
class Kind:
    """Files in a folder, which of them are spoiled and how, and what opens the folder or file `entrance`."""

    name: str
    files: dict[str, bytes]
    open: Callable[[Path], object]
    entrance: str = ""

    def spoilt(self, random: Random, others: list[bytes]) -> dict[str, bytes]:
        """The same files with one of them spoiled, dropped, or replaced by the content of another kind."""
        files = dict(self.files)
        name = self.entrance if self.entrance and random.random() < 0.7 else random.choice(sorted(files))
        if random.random() < 0.12:
            files[name] = mislabelled(random, others)
        elif random.random() < 0.04:
            del files[name]
        else:
            files[name] = next(way for ending, way in WAYS if name.endswith(ending))(files[name], random)
        return files


def _spoil_png(data: bytes, random: Random) -> bytes:
    """A picture whose record is spoiled, in each of the formats that hold one; or its bytes."""
    if random.random() < 0.3:
        return spoil_bytes(data, random)
    with Image.open(io.BytesIO(data)) as image:
        image.load()
        form, text = image.format, image.info.get(provenance.KEY) or provenance._comment(image.getexif()) or "{}"
    record = json.loads(text)
    branch = random.choice(("request", "recipe", None))
    if branch in record:
        record[branch] = spoil_tree(record[branch], random)
    else:
        record = spoil_tree(record, random)
    if random.random() < 0.05:
        record["request"] = {"prompt": "x" * 3_000_000}
    text, out = json.dumps(record), io.BytesIO()
    if form == "PNG":
        chunks = provenance.PngImagePlugin.PngInfo()
        chunks.add_itxt(provenance.KEY, text, zip=random.random() < 0.3)
        image.save(out, "PNG", pnginfo=chunks)
        return out.getvalue()
    exif = Image.Exif()
    comment = provenance.COMMENT + text[:30_000].encode("utf-16-be", "surrogatepass")
    exif.get_ifd(provenance.ExifTags.IFD.Exif)[provenance.ExifTags.Base.UserComment] = comment
    image.save(out, form, exif=exif.tobytes())
    return out.getvalue()


WAYS: tuple[tuple[str, Spoil], ...] = (
    (".safetensors", spoil_safetensors),
    (".json", spoil_json),
    (".png", _spoil_png),
    (".jpg", _spoil_png),
    (".webp", _spoil_png),
    ("", spoil_bytes),
)


def _networks() -> dict[str, nn.Module]:
    torch.manual_seed(0)
    return {
        "transformer": Flux(FLUX),
        "autoencoder": AutoEncoder(AutoEncoderShape(channels=(32, 32), blocks=1, latent=4)),
        "t5": T5Encoder(T5Shape(vocab=30, hidden=24, layers=1, heads=2, head_dim=4, mlp=16, buckets=4)),
        "clip": ClipTextEncoder(ClipShape(vocab=40, hidden=64, layers=1, heads=1, mlp=16, positions=8, eos=39)),
    }


def _tokenizers() -> dict[str, dict[str, bytes]]:
    """A tokenizer's folder in each of the three ways."""
    assets = Path(doctor.__file__).parents[1] / "assets" / "mini" / "tokenizer"
    modern = {file.name: file.read_bytes() for file in sorted(assets.iterdir())}
    vocabulary = json.dumps({word: i for i, word in enumerate(WORDS)}).encode()
    clip = {"vocab.json": vocabulary, "merges.txt": b"#version: 0.2\nr e\nre d</w>\n", "tokenizer_config.json": b"{}"}
    pieces = b""
    for number, piece in enumerate(("<pad>", "</s>", "<unk>", "▁re", "d", "▁")):
        word = piece.encode()
        body = b"\x0a" + bytes([len(word)]) + word + b"\x15" + struct.pack("<f", -number)
        body += b"\x18" + bytes([{0: 3, 1: 3, 2: 2}.get(number, 1)])
        pieces += b"\x0a" + bytes([len(body)]) + body
    return {"tokenizer": modern, "vocabulary": clip, "pieces": {"spiece.model": pieces}}


def _open_model(path: Path) -> None:
    inspect(path)
    load_bundle(str(path), recipe=Recipe(device="cpu", dtype="float32"))


def _open_tokenizer(path: Path) -> None:
    load_tokenizer(path).fit(["a red fox\0 <|endoftext|> éé", ""], 8)


def _open_picture(path: Path) -> None:
    entry = provenance.read(path)
    recipe_of(entry, device=None, offload="none")
    provenance.parameters(entry)
    entry.request.resolve(MINI)
    provenance.request_of(path)


def _open_lora(path: Path) -> None:
    lora = load_lora(path)
    doctor.inspect(path).lines()
    network = Flux(FLUX)
    adapters = Adapters({TRANSFORMER: network}, width=FLUX.hidden, dtype=torch.float32, changed=lambda parts: None)
    adapters.load(lora, "x")
    adapters.use({"x": Strength()})
    adapters.fuse()


def _loras() -> dict[str, bytes]:
    """One adapter in several styles."""
    generator = torch.Generator().manual_seed(0)

    def noise(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator) / 10

    stem = "transformer.transformer_blocks.0"
    pair = {f"{stem}.attn.to_q.lora_A.weight": noise(2, 32), f"{stem}.attn.to_q.lora_B.weight": noise(32, 2)}
    pair |= {f"{stem}.ff.net.0.proj.lora_A.weight": noise(2, 32), f"{stem}.ff.net.0.proj.lora_B.weight": noise(128, 2)}
    lora = read_lora(pair)
    found = {style: in_style(lora, style) for style in STYLES}
    name = "lora_unet_single_blocks_0_linear2"
    found["lokr"] = {
        f"{name}.lokr_w1": noise(4, 4),
        f"{name}.lokr_w2": noise(8, 40),
        f"{name}.alpha": torch.tensor(1.0),
    }
    found["loha"] = {
        f"{name}.hada_w{n}_{ab}": noise(*shape) for n in (1, 2) for ab, shape in (("a", (32, 2)), ("b", (2, 160)))
    }
    found["dora"] = {
        f"{name}.lora_down.weight": noise(2, 160),
        f"{name}.lora_up.weight": noise(32, 2),
        f"{name}.dora_scale": noise(32, 1).abs(),
    }
    found["diff"] = {f"{name}.diff": noise(32, 160), f"{name}.diff_b": noise(32)}
    return {
        style: save({key: tensor.contiguous() for key, tensor in tensors.items()}) for style, tensors in found.items()
    }


def _files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def _sharded(files: dict[str, bytes], place: str) -> dict[str, bytes]:
    """A folder's files with a part's weights in two shards."""
    files = dict(files)
    tensors = load(files.pop(place))
    names, stem = sorted(tensors), place.removesuffix(".safetensors")
    where = {}
    for number, chosen in enumerate((names[::2], names[1::2]), 1):
        shard = f"{stem}-0000{number}-of-00002.safetensors"
        files[shard] = save({name: tensors[name] for name in chosen})
        where |= dict.fromkeys(chosen, Path(shard).name)
    files[f"{place}.index.json"] = json.dumps({"metadata": {"total_size": 1}, "weight_map": where}).encode()
    return files


def kinds(work: Path) -> list[Kind]:
    """All samples; `work` is an empty folder to write into."""
    networks, words = _networks(), _tokenizers()
    for name, files in (("tokenizer", words["tokenizer"]), ("tokenizer_2", words["tokenizer"])):
        (work / name).mkdir(parents=True)
        for file, data in files.items():
            (work / name / file).write_bytes(data)
    places = {name: work / name for name in ("tokenizer", "tokenizer_2")}
    save_folder(work / "folder", variant=replace(DEV, shape=FLUX), tokenizers=places, **networks)  # type: ignore[arg-type]
    folder = _files(work / "folder")
    apart = {f"{name}/{file}": data for name in places for file, data in words["tokenizer"].items()}
    whole: dict[str, Tensor] = {}
    for name, module in networks.items():
        whole |= in_format(module.state_dict(), FORMATS[f"comfy {name}"])
    save_file(work / "whole.safetensors", whole, metadata={})
    convert(str(work / "folder"), work / "scaled.safetensors", wanted("comfy", "float8_e4m3fn", scaled=True))
    split = dict(apart)
    files = {"flux1-x": "bfl transformer", "ae": "bfl autoencoder", "t5xxl_fp16": "t5", "clip_l": "clip"}
    for (file, form), module in zip(files.items(), networks.values(), strict=True):
        save_file(work / "one.safetensors", in_format(module.state_dict(), FORMATS[form]), metadata={"a": "b"})
        split[f"{file}.safetensors"] = (work / "one.safetensors").read_bytes()
    blocks = dict(split)
    for name, part in (("flux1-x", "transformer"), ("t5xxl_fp16", "t5")):
        convert(str(work / "folder"), work / f"{name}.gguf", wanted("gguf"), part=part)
        del blocks[f"{name}.safetensors"]
        blocks[f"{name}.gguf"] = (work / f"{name}.gguf").read_bytes()
    request = Request(prompt="a red fox", seed=3, steps=4, guidance=3.0, sigmas=(1.0, 0.5))
    entry = provenance.record(request, model="mini", source="mini", hashes={"transformer": "sha256:0"}, recipe=Recipe())
    pictures = {}
    for ending in (".png", ".jpg", ".webp"):
        provenance.save(Image.new("RGB", (16, 16), "red"), work / f"x{ending}", entry)
        pictures[f"x{ending}"] = (work / f"x{ending}").read_bytes()
    config = {"lora_alpha": 2, "r": 2, "alpha_pattern": {"a": 1}, "use_rslora": True}
    loras = _loras()
    peft = {"adapter_model.safetensors": loras["diffusers"], "adapter_config.json": json.dumps(config).encode()}
    return [
        Kind("folder", folder, _open_model),
        Kind("shards", _sharded(folder, "transformer/diffusion_pytorch_model.safetensors"), _open_model),
        Kind(
            "whole",
            {"whole.safetensors": (work / "whole.safetensors").read_bytes(), **apart},
            _open_model,
            "whole.safetensors",
        ),
        Kind("split", split, _open_model, "flux1-x.safetensors"),
        Kind(
            "scaled",
            {"whole.safetensors": (work / "scaled.safetensors").read_bytes(), **apart},
            _open_model,
            "whole.safetensors",
        ),
        Kind("gguf", blocks, _open_model, "flux1-x.gguf"),
        Kind("peft", peft, _open_lora, "adapter_model.safetensors"),
        *(Kind(f"lora {style}", {"x.safetensors": data}, _open_lora, "x.safetensors") for style, data in loras.items()),
        *(Kind(f"picture {name}", {name: data}, _open_picture, name) for name, data in pictures.items()),
        *(Kind(f"words {name}", files, _open_tokenizer) for name, files in words.items()),
        *(
            Kind(f"pickle {ending}", {f"x{ending}": b""}, way, f"x{ending}")
            for ending, way in (
                (".ckpt", _open_model),
                (".bin", _open_lora),
                (".pt", _open_lora),
                (".pth", _open_model),
            )
        ),
    ]
