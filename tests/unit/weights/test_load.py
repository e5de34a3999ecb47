"""Whatever a model comes as, the same networks come out; whatever is wrong with it is named."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from fluxone import variants
from fluxone.errors import BadFile, BadWeights, FluxoneError, MissingParts, UnknownName
from fluxone.nn.transformer import Flux
from fluxone.recipe import Recipe
from fluxone.shapes import FluxShape
from fluxone.variants import DEV, KREA, SCHNELL, VARIANTS, Kind
from fluxone.weights import load
from fluxone.weights.formats import FORMATS
from fluxone.weights.load import Bundle, load_bundle, resolve
from fluxone.weights.parts import file_parts
from fluxone.weights.safetensors import read_json
from unit.weights import tiny

CPU = Recipe(device="cpu")


def comfy_folders(root: Path) -> Path:
    flat = tiny.split_files(root / "flat").parent
    for name, place in (("ae.safetensors", "vae"), ("t5xxl_fp16.safetensors", "text_encoders"),
                        ("clip_l.safetensors", "clip"), ("flux1-tiny.safetensors", "diffusion_models")):  # fmt: skip
        (root / place).mkdir()
        (flat / name).rename(root / place / name)
    shutil.move(flat / "tokenizer", root / "tokenizer")
    shutil.move(flat / "tokenizer_2", root / "tokenizer_2")
    return root / "diffusion_models" / "flux1-tiny.safetensors"


def all_in_one(root: Path) -> Path:
    tiny.tokenizer(root / "tokenizer")
    tiny.tokenizer(root / "tokenizer_2")
    return tiny.all_in_one(root / "all.safetensors")


def in_a_repository(root: Path) -> Path:
    """The published repositories hold the single file at the root of the diffusers folder."""
    folder = tiny.folder(root / "repo")
    shutil.rmtree(folder / "transformer")
    return tiny.one_file(folder / "flux1.safetensors", tiny.network("transformer"), FORMATS["bfl transformer"])


SOURCES: dict[str, Callable[[Path], Path]] = {
    "diffusers folder": lambda root: tiny.folder(root / "model"),
    "files together": lambda root: tiny.split_files(root),
    "ComfyUI folders": comfy_folders,
    "ComfyUI all-in-one": all_in_one,
    "file in a repository": in_a_repository,
}


@pytest.mark.parametrize("kind", SOURCES)
def test_every_source_gives_the_same_model(kind: str, tmp_path: Path) -> None:
    source = SOURCES[kind](tmp_path)
    bundle = load_bundle(str(source), recipe=CPU)
    for name, module in tiny.networks().items():
        tiny.equal(getattr(bundle, name), module)
    assert bundle.variant == replace(DEV, shape=tiny.FLUX, size=bundle.variant.size)
    assert bundle.variant.size == 1024 * tiny.VAE.factor // 8
    assert bundle.t5_tokenizer is not None
    assert (bundle.t5_tokenizer / "tokenizer.json").is_file()
    assert bundle.clip_tokenizer is not None
    assert bundle.clip_tokenizer.name == "tokenizer"
    assert bundle.source == str(source)
    assert all(text.startswith("sha256:") for text in bundle.hashes.values())


def test_parts_may_be_given(tmp_path: Path) -> None:
    file = tiny.one_file(tmp_path / "a" / "m.safetensors", tiny.network("transformer"), FORMATS["comfy transformer"])
    folder = tiny.folder(tmp_path / "model")
    ae = tiny.one_file(tmp_path / "b" / "x.safetensors", tiny.network("autoencoder"), FORMATS["diffusers autoencoder"])
    recipe = replace(CPU, vae=str(ae), text_encoder=str(folder / "text_encoder"), text_encoder_2=str(folder))
    bundle = load_bundle(str(file), recipe=recipe)
    for name, module in tiny.networks().items():
        tiny.equal(getattr(bundle, name), module)
    assert bundle.clip_tokenizer == folder / "tokenizer"
    assert bundle.t5_tokenizer == folder / "tokenizer_2"


def test_a_given_part_goes_before_the_models_own(tmp_path: Path) -> None:
    folder = tiny.folder(tmp_path / "model")
    (folder / "vae" / "diffusion_pytorch_model.safetensors").write_bytes(b"broken")
    other = tiny.network("autoencoder", seed=5)
    ae = tiny.one_file(tmp_path / "other.safetensors", other, FORMATS["bfl autoencoder"])
    tiny.equal(load_bundle(str(folder), recipe=replace(CPU, vae=str(ae))).autoencoder, other)


def test_among_several_t5_files_the_most_precise_is_taken(tmp_path: Path) -> None:
    file = tiny.split_files(tmp_path)
    t5 = tiny.network("t5", seed=9)
    tiny.one_file(tmp_path / "t5xxl_fp8.safetensors", t5.to(torch.float8_e4m3fn), FORMATS["t5"])
    scale = {"encoder.block.0.layer.0.SelfAttention.q.scale_weight": torch.full((1,), 2.0)}
    tiny.one_file(tmp_path / "t5xxl_fp8_e4m3fn_scaled.safetensors", t5, FORMATS["t5"], scale)
    tiny.equal(load_bundle(str(file), recipe=CPU).t5, tiny.network("t5"))


def test_missing_parts_are_all_named_with_how_to_give_them(tmp_path: Path) -> None:
    file = tiny.one_file(tmp_path / "m.safetensors", tiny.network("transformer"), FORMATS["bfl transformer"])
    with pytest.raises(MissingParts) as caught:
        load_bundle(str(file), recipe=CPU)
    for words in ("ae.safetensors", "t5xxl", "clip_l.safetensors", "tokenizer_2", "vae, text_encoder", "hf download"):
        assert words in str(caught.value), words
    shutil.rmtree(tiny.folder(tmp_path / "model") / "tokenizer_2")
    with pytest.raises(MissingParts, match="comes without T5's tokenizer"):
        load_bundle(str(tmp_path / "model"), recipe=CPU)


def test_a_folder_may_leave_its_text_encoders_out_on_purpose(tmp_path: Path) -> None:
    folder = tiny.folder(tmp_path / "model")
    index = read_json(folder / "model_index.json")
    for name in ("text_encoder_2", "tokenizer_2"):
        shutil.rmtree(folder / name)
    with pytest.raises(MissingParts, match="T5 text encoder"):
        load_bundle(str(folder), recipe=CPU)
    (folder / "model_index.json").write_text(json.dumps(index | {"text_encoder_2": [None, None]}))
    bundle = load_bundle(str(folder), recipe=CPU)
    assert bundle.t5 is None
    assert bundle.t5_tokenizer is None
    assert bundle.clip is not None


def transformer(path: Path, shape: FluxShape) -> Path:
    return tiny.one_file(path, Flux(shape), FORMATS["bfl transformer"])


def with_transformer(root: Path, shape: FluxShape) -> Path:
    file = tiny.split_files(root)
    return transformer(file, shape)


def test_which_variant(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    guided = str(tiny.split_files(tmp_path / "a"))
    plain = str(with_transformer(tmp_path / "b", replace(tiny.FLUX, guided=False)))

    def name(source: str, variant: str | None = None) -> str:
        return load_bundle(source, variant=variant, recipe=CPU).variant.name

    assert name(guided) == DEV.name
    assert name(plain) == SCHNELL.name
    assert name(guided, KREA.name) == KREA.name
    assert load_bundle(plain, variant="krea", recipe=CPU).variant.guided is False
    with pytest.raises(UnknownName, match="no variant is called 'kreaa'; did you mean 'krea'"):
        name(guided, "kreaa")
    own = replace(DEV, name="own", shape=tiny.FLUX, steps=7)
    monkeypatch.setitem(variants.VARIANTS, "own", own)
    assert load_bundle(guided, recipe=CPU).variant.steps == 7


def test_an_index_tells_what_the_numbers_do_not(tmp_path: Path) -> None:
    """Kontext's network has Dev's numbers, but diffusers saves it as a pipeline of its own."""
    folder = tiny.folder(tmp_path / "model")
    for name, takes in (("FluxKontextPipeline", (Kind.REFERENCE,)), ("FluxFillPipeline", ()), ("FluxPipeline", ())):
        (folder / "model_index.json").write_text(json.dumps({"_class_name": name}))
        found = load_bundle(str(folder), recipe=CPU).variant
        assert found.takes == takes
        assert found.pipeline == (name if takes else DEV.pipeline)
        assert load_bundle(str(folder), variant="krea", recipe=CPU).variant.takes == ()


@pytest.mark.parametrize(("channels", "kind"), [(32, Kind.CONTROL), (32 + 4 * 4, Kind.FILL)])
def test_the_channels_tell_the_condition_whatever_row_is_named(channels: int, kind: Kind, tmp_path: Path) -> None:
    """The autoencoder has 2 px a cell: a token's mask is of 4 x 4."""
    source = with_transformer(tmp_path, replace(tiny.FLUX, in_channels=channels))
    alone = load_bundle(str(source), recipe=CPU).variant
    assert alone.takes == (kind,) and kind in VARIANTS[alone.name].takes
    for name in ("kontext", "dev", "fill", "canny"):
        named = load_bundle(str(source), variant=name, recipe=CPU).variant
        assert (named.name, named.takes) == (name, (kind,))


def test_a_row_gives_no_condition_in_channels_to_a_network_without_them(tmp_path: Path) -> None:
    source = str(tiny.split_files(tmp_path))
    takes = {name: load_bundle(source, variant=name, recipe=CPU).variant.takes for name in ("kontext", "fill", "depth")}
    assert takes == {"kontext": (Kind.REFERENCE,), "fill": (), "depth": ()}


def test_channels_of_no_known_condition_are_refused(tmp_path: Path) -> None:
    source = with_transformer(tmp_path, replace(tiny.FLUX, in_channels=20))
    with pytest.raises(BadWeights, match=r"takes 20 channels and gives 16; .*16, 32, 48 channels can be run"):
        load_bundle(str(source), recipe=CPU)


def test_parts_of_different_models_are_refused(tmp_path: Path) -> None:
    for number, change in enumerate(({"text_dim": 25}, {"vec_dim": 65}, {"out_channels": 20, "in_channels": 20})):
        source = with_transformer(tmp_path / str(number), replace(tiny.FLUX, **change))
        with pytest.raises(BadWeights, match="of different models"):
            load_bundle(str(source), recipe=CPU)


def test_the_scheduler_has_the_last_word_on_the_shift(tmp_path: Path) -> None:
    folder = tiny.folder(tmp_path / "model")
    config = {"_class_name": "FlowMatchEulerDiscreteScheduler", "use_dynamic_shifting": False, "shift": 2.5}
    (folder / "scheduler" / "scheduler_config.json").write_text(json.dumps(config))
    variant = load_bundle(str(folder), recipe=CPU).variant
    assert (variant.shifted, variant.shift) == (False, 2.5)
    (folder / "scheduler" / "scheduler_config.json").write_text(json.dumps(config | {"invert_sigmas": True}))
    with pytest.raises(BadWeights, match="invert_sigmas is True; only False can be run"):
        load_bundle(str(folder), recipe=CPU)


def test_dtypes(tmp_path: Path) -> None:
    source = str(tiny.split_files(tmp_path))

    def dtypes(bundle: Bundle) -> dict[str, set[torch.dtype]]:
        modules = {name: getattr(bundle, name) for name in tiny.networks()}
        return {name: {tensor.dtype for tensor in module.parameters()} for name, module in modules.items()}

    single, brain = {torch.float32}, {torch.bfloat16}
    assert dtypes(load_bundle(source, recipe=CPU)) == dict.fromkeys(tiny.networks(), single)
    found = dtypes(load_bundle(source, recipe=replace(CPU, dtype="bfloat16")))
    assert found == {"transformer": brain, "autoencoder": single, "t5": brain, "clip": brain}


WRONG: dict[str, tuple[str, type[FluxoneError], str]] = {
    "nothing": ("nonsense", UnknownName, "no model is called 'nonsense'"),
    "near": ("schnel", UnknownName, "did you mean 'schnell'"),
    "file": ("nothing.safetensors", BadFile, "does not exist"),
    "two words": ("here/nothing.safetensors", BadFile, "does not exist"),
    "path": ("./here/and/there", BadFile, "does not exist"),
}


@pytest.mark.parametrize("case", WRONG)
def test_sources_that_are_none(case: str) -> None:
    source, error, words = WRONG[case]
    with pytest.raises(error, match=words):
        resolve(source)


def test_a_hub_id_is_downloaded(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked: list[tuple[str, str | None]] = []

    def download(repo: str, *, token: str | None = None) -> Path:
        asked.append((repo, token))
        return tmp_path

    monkeypatch.setattr(load.hub, "download", download)
    assert resolve("someone/some.model-1", token="t") == (None, tmp_path)
    assert resolve("dev") == (DEV, tmp_path)
    assert asked == [("someone/some.model-1", "t"), (DEV.repo, None)]


def test_an_installation_without_its_assets_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(VARIANTS, "gone", replace(DEV, name="gone", assets="gone"))
    with pytest.raises(BadFile, match="install fluxone again"):
        resolve("gone")


def test_files_that_are_no_model_are_named(tmp_path: Path) -> None:
    tiny.split_files(tmp_path)
    with pytest.raises(BadWeights, match=r"holds the autoencoder \(ae.safetensors\), no transformer"):
        load_bundle(str(tmp_path / "ae.safetensors"), recipe=CPU)
    lora = {f"transformer.x_embedder.lora_{side}.weight": torch.ones(2, 2) for side in "AB"}
    tiny.save_file(tmp_path / "lora.safetensors", lora, metadata={})
    with pytest.raises(BadWeights, match="is a LoRA, not a model"):
        load_bundle(str(tmp_path / "lora.safetensors"), recipe=CPU)
    tiny.save_file(tmp_path / "other.safetensors", {"conv.weight": torch.ones(2)}, metadata={})
    with pytest.raises(BadWeights, match=r"no part of a FLUX.1 model; it holds conv.weight"):
        load_bundle(str(tmp_path / "other.safetensors"), recipe=CPU)
    with pytest.raises(BadFile, match=r"a folder without model_index.json; give one of its files: ae.safetensors"):
        load_bundle(str(tmp_path), recipe=CPU)
    with pytest.raises(BadWeights, match="does not hold the autoencoder"):
        load_bundle(str(tiny.folder(tmp_path / "m")), recipe=replace(CPU, vae=str(tmp_path / "clip_l.safetensors")))


def test_a_folder_for_another_architecture_is_refused(tmp_path: Path) -> None:
    folder = tiny.folder(tmp_path / "model")
    index = read_json(folder / "model_index.json")
    (folder / "model_index.json").write_text(json.dumps(index | {"_class_name": "StableDiffusionPipeline"}))
    with pytest.raises(BadWeights, match="holds a StableDiffusionPipeline"):
        load_bundle(str(folder), recipe=CPU)


def test_pickled_and_ambiguous_weights_are_refused(tmp_path: Path) -> None:
    folder = tiny.folder(tmp_path / "model")
    weights = folder / "vae" / "diffusion_pytorch_model.safetensors"
    shutil.copy(weights, folder / "vae" / "other.safetensors")
    with pytest.raises(BadFile, match="several sets of weights"):
        load_bundle(str(folder), recipe=CPU)
    (folder / "vae" / "other.safetensors").unlink()
    weights.rename(weights.with_suffix(".bin"))
    with pytest.raises(BadFile, match="only pickled weights"):
        load_bundle(str(folder), recipe=CPU)
    weights.with_suffix(".bin").rename(folder / "vae" / "diffusion_pytorch_model-00001-of-00002.safetensors")
    with pytest.raises(BadFile, match="without their index"):
        load_bundle(str(folder), recipe=CPU)


def test_a_config_beside_a_single_file_goes_before_guesses(tmp_path: Path) -> None:
    folder = tiny.folder(tmp_path / "model")
    file = folder / "transformer" / "diffusion_pytorch_model.safetensors"
    config = read_json(folder / "transformer" / "config.json") | {"axes_dims_rope": [8, 4, 4]}
    (folder / "transformer" / "config.json").write_text(json.dumps(config))
    assert file_parts(file)["transformer"].config is not None
    assert load_bundle(str(file), recipe=CPU).variant.shape.axes == (8, 4, 4)


def test_packed_files_are_named_before_their_odd_shapes_are(tmp_path: Path) -> None:
    file = tiny.split_files(tmp_path)
    state = {name: torch.zeros(8, 1, dtype=torch.uint8) for name in tiny.network("transformer").state_dict()}
    tiny.save_file(file, {**state, "img_in.weight.absmax": torch.ones(1)}, metadata={})
    with pytest.raises(BadWeights, match="is 4-bit bitsandbytes"):
        load_bundle(str(file), recipe=CPU)
