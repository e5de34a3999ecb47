"""A stand-in hub is pulled from: only what is needed, whole, once; each way of failing has its own sentence."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
from huggingface_hub import HfApi, constants, errors, file_download
from safetensors.torch import load

from fluxone.cli.main import run
from fluxone.errors import BadFile, CannotWrite, FluxoneError, HubError
from fluxone.lora.fetch import fetch
from fluxone.variants import DEV, VARIANTS
from fluxone.weights import cache, hub, locate
from unit.weights import tiny
from unit.weights.stand_in import COMMIT, Hub, serving

REPO = DEV.repo
UNWANTED = {
    "README.md": b"read me",
    "flux1-dev.safetensors": bytes(900),
    "text_encoder/pytorch_model.bin": b"\x80\x02",
    "text_encoder/model.fp16.safetensors": bytes(700),
    "text_encoder/flax_model.msgpack": bytes(10),
    "safety_checker/config.json": b"{}",
    "transformer/../../../outside.json": b"{}",
}


class Answer:
    """As much of a response as the errors look at."""

    def __init__(self, status: int) -> None:
        self.status_code = status
        self.headers: dict[str, str] = {}
        self.request = None
        self.text = ""


def http(kind: type[errors.HfHubHTTPError], status: int) -> Exception:
    return kind("the server's own words", response=Answer(status))  # type: ignore[arg-type]


FAULTS: dict[str, tuple[Callable[[], Exception], str | None, type[FluxoneError], str]] = {
    "gated, no token": (
        lambda: http(errors.GatedRepoError, 401), None, HubError,
        f"{REPO} is gated.*accept its licence at https://huggingface.co/{REPO}, then log in with `hf auth login`",
    ),
    "gated, token": (
        lambda: http(errors.GatedRepoError, 403), "hf_x", HubError, f"{REPO} is gated.*with the account of your token",
    ),
    "absent, no token": (
        lambda: http(errors.RepositoryNotFoundError, 401), None, HubError,
        f"{REPO} does not exist on the hub, or is private; check its name; if it is private, log in",
    ),
    "absent, token": (
        lambda: http(errors.RepositoryNotFoundError, 404), "hf_x", HubError,
        f"{REPO} does not exist on the hub, or is private; check its name$",
    ),
    "no network": (
        lambda: errors.LocalEntryNotFoundError("no way"), None, HubError,
        "not in the cache, or not all of it, and there is no way to the hub",
    ),
    "connection": (lambda: ConnectionError("refused"), None, HubError, "there is no way to the hub; check the network"),
    "broken off": (lambda: OSError("size 3, not 4"), None, HubError, "size 3, not 4; pull it again: it goes on"),
    "bad token": (lambda: http(errors.HfHubHTTPError, 401), "hf_x", HubError, "answered 401.*token is not accepted"),
    "busy": (lambda: http(errors.HfHubHTTPError, 503), None, HubError, "answered 503.*try again"),
    "no id": (lambda: errors.HFValidationError("two dots"), None, HubError, "is no hub id: two dots"),
    "full": (lambda: OSError(errno.ENOSPC, "No space left"), None, CannotWrite, "cannot be kept: No space left"),
}  # fmt: skip


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The files of a small model, one part in shards, as a repository has them."""
    folder = tiny.folder(tmp_path_factory.mktemp("hub") / "model")
    files = {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}
    whole = files.pop("transformer/diffusion_pytorch_model.safetensors")
    shard = "diffusion_pytorch_model-00001-of-00001.safetensors"
    index = {"metadata": {}, "weight_map": dict.fromkeys(load(whole), shard)}
    files[f"transformer/{shard}"] = whole
    files["transformer/diffusion_pytorch_model.safetensors.index.json"] = json.dumps(index).encode()
    return files


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model: dict[str, bytes]) -> Iterator[Hub]:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(huggingface_hub, "get_token", lambda: None)
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "cache"))
    with serving() as stand_in:
        monkeypatch.setattr(constants, "ENDPOINT", stand_in.url)
        monkeypatch.setattr(
            constants, "HUGGINGFACE_CO_URL_TEMPLATE", stand_in.url + "/{repo_id}/resolve/{revision}/{filename}"
        )
        stand_in.files[REPO] = {**model, **UNWANTED}
        yield stand_in


@pytest.mark.parametrize("fault", FAULTS)
def test_every_fault_has_its_sentence(fault: str, site: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    make, token, error, words = FAULTS[fault]

    def fail(*_: object, **__: object) -> Any:
        raise make()

    monkeypatch.setattr(HfApi, "model_info", fail)
    with pytest.raises(error, match=words) as caught:
        hub.download(REPO, token=token)
    assert caught.value.hint
    assert "hf_x" not in str(caught.value)


def test_a_stored_token_counts_as_one(site: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    site.gated[REPO] = "hf_other"
    monkeypatch.setattr(huggingface_hub, "get_token", lambda: "hf_stored")
    with pytest.raises(HubError, match="with the account of your token"):
        hub.download(REPO)


def test_offline_by_wish_says_how_to_undo_it(site: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    words = "not in the cache, or not all of it, and HF_HUB_OFFLINE forbids the network; unset HF_HUB_OFFLINE"
    with pytest.raises(HubError, match=words):
        hub.download(REPO)
    assert site.asked == []


def test_only_what_is_needed_is_fetched_and_only_once(site: Hub, model: dict[str, bytes]) -> None:
    told: list[tuple[int, int, str]] = []
    pulled = hub.pull(REPO, token="hf_x", told=lambda *row: told.append(row))
    assert set(site.fetched()) <= model.keys()
    assert len(site.fetched()) == len(set(model.values())), "two files of the same content are one"
    assert {name: (pulled.folder / name).read_bytes() for name in model} == model
    assert (pulled.files, pulled.size, pulled.fetched) == (len(model), sum(map(len, model.values())), len(model))
    assert told[-1][:2] == (pulled.size, pulled.size)
    assert all(before[0] <= after[0] for before, after in pairwise(told))
    assert {token for _, _, _, token in site.asked} == {"Bearer hf_x"}
    assert locate.in_folder(pulled.folder).missing == []
    site.asked.clear()
    again = hub.pull(REPO)
    assert (again.folder, again.fetched, site.fetched(), len(site.asked)) == (pulled.folder, 0, [], 1)
    assert not [path for path in cache.home(REPO).rglob("*") if path.name.endswith((cache.PART, ".part"))]


def test_the_hubs_own_library_finds_what_was_pulled(site: Hub, model: dict[str, bytes], tmp_path: Path) -> None:
    folder = hub.pull(REPO).folder
    found = huggingface_hub.snapshot_download(REPO, local_files_only=True, cache_dir=tmp_path / "cache")
    assert Path(found) == folder
    info = next(iter(huggingface_hub.scan_cache_dir(tmp_path / "cache").repos))
    assert (info.repo_id, info.size_on_disk) == (REPO, sum({blob: len(blob) for blob in model.values()}.values()))


def test_without_the_hub_what_is_here_is_used(site: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = hub.download(REPO)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert hub.download(REPO) == folder
    (folder / "vae" / "config.json").unlink()
    with pytest.raises(HubError, match="not all of it"):
        hub.download(REPO)


def test_an_adapter_of_the_hub(site: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    site.files |= {
        "a/one": {"README.md": b"", "style.safetensors": bytes(600)},
        "a/two": {"x.safetensors": b"x", "y.safetensors": b"y"},
        "a/favourite": {"x.safetensors": b"x", "pytorch_lora_weights.safetensors": b"w"},
        "a/locked": {"x.safetensors": b"x"},
    }
    site.gated["a/locked"] = "hf_x"
    assert fetch("a/one").read_bytes() == bytes(600)
    assert fetch("a/favourite").read_bytes() == b"w" and fetch("a/two/y.safetensors").read_bytes() == b"y"
    assert fetch("a/locked", token="hf_x").read_bytes() == b"x"
    for source, words in (
        ("a/two", r"holds 2 adapters: x.safetensors, y.safetensors; give a/two/FILE.safetensors"),
        ("a/two/z.safetensors", "a/two has no z.safetensors; it has x.safetensors, y.safetensors"),
        ("a/none", "a/none does not exist on the hub, or is private"),
    ):
        with pytest.raises(HubError, match=words):
            fetch(source)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert fetch("a/one").read_bytes() == bytes(600), "it is here"
    with pytest.raises(HubError, match="HF_HUB_OFFLINE forbids the network"):
        fetch("a/other")


def test_a_pull_that_broke_off_goes_on_where_it_stopped(site: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    largest = max(site.files[REPO], key=lambda name: len(site.files[REPO][name]))
    content = site.files[REPO][largest]
    get = file_download.http_get

    def halves(url: str, sink: Any, **rest: Any) -> None:
        if url.endswith(largest):
            sink.write(content[:1000])
            raise KeyboardInterrupt
        get(url, sink, **rest)

    monkeypatch.setattr(file_download, "http_get", halves)
    with pytest.raises(KeyboardInterrupt):
        hub.pull(REPO)
    assert cache.state(REPO) is cache.State.PARTLY
    assert not list(cache.home(REPO).glob(f"snapshots/*/{largest}")), "half a file is in no snapshot"
    monkeypatch.setattr(file_download, "http_get", get)
    site.asked.clear()
    folder = hub.pull(REPO).folder
    ranges = {path: byte for method, path, byte, _ in site.asked if path.endswith(largest)}
    assert list(ranges.values()) == ["bytes=1000-"]
    assert (folder / largest).read_bytes() == content
    assert cache.state(REPO) is cache.State.WHOLE


def test_a_server_that_cannot_go_on_starts_again(site: Hub) -> None:
    largest = max(site.files[REPO], key=lambda name: len(site.files[REPO][name]))
    content = site.files[REPO][largest]
    site.resumes, digest = False, hashlib.sha256(content).hexdigest()
    folder = hub.pull(REPO, file="model_index.json").folder
    part = cache.home(REPO) / "blobs" / f"{digest}{cache.PART}"
    for left in (content[:700], b"\0" * (len(content) + 5), content):
        part.write_bytes(left)
        hub.pull(REPO, file=largest)
        assert (folder / largest).read_bytes() == content
        (cache.home(REPO) / "blobs" / digest).unlink()


def test_what_is_not_as_the_hub_says_is_not_kept(site: Hub) -> None:
    for name in ("vae/config.json", "vae/diffusion_pytorch_model.safetensors"):
        site.said = {name: "f" * (64 if name.endswith("safetensors") else 40)}
        with pytest.raises(BadFile, match=rf"{name} came with the checksum .* the hub says ffff.*pull it again"):
            hub.pull(REPO)
        assert not [path for path in cache.home(REPO).rglob("*") if path.name.startswith("ffff")]
        assert not list(cache.home(REPO).glob(f"snapshots/*/{name}"))


def test_files_that_were_changed_are_found_and_mended(site: Hub) -> None:
    name = "text_encoder/model.safetensors"
    path = hub.pull(REPO).folder / name
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    site.asked.clear()
    assert hub.pull(REPO).fetched == 0, "without --verify the size is enough"
    assert hub.pull(REPO, verify=True).fetched == 1
    assert site.fetched() == [name]
    assert path.read_bytes() == site.files[REPO][name]
    path.write_bytes(content[:-5])
    assert hub.pull(REPO).fetched == 1


def test_a_disk_too_small_is_told_before_anything_large_comes(site: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage("/")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=hub.SPARE + 2000))
    with pytest.raises(CannotWrite, match=r"needs 0.00 GB more, and .* has 0.06 GB free; make room, or let HF_HOME"):
        hub.pull(REPO)
    assert site.fetched() == ["model_index.json"]


def test_layouts_and_models_that_are_others_are_told(site: Hub) -> None:
    site.files["org/single"] = {"flux.safetensors": bytes(600)}
    with pytest.raises(HubError, match=r"has no model_index.json.*pull one of its files: flux.safetensors"):
        hub.pull("org/single")
    site.files["org/other"] = {"model_index.json": b'{"_class_name": "StableDiffusionPipeline"}'}
    with pytest.raises(HubError, match=r"holds a 'StableDiffusionPipeline'; only FLUX\.1"):
        hub.pull("org/other")
    site.files["org/broken"] = {"model_index.json": b"{"}
    with pytest.raises(HubError, match="not readable JSON"):
        hub.pull("org/broken")
    with pytest.raises(HubError, match=r"has no x\.safetensors; it has flux\.safetensors"):
        hub.pull("org/single", file="x.safetensors")
    with pytest.raises(HubError, match=r"has no \.\./x\.json"):
        hub.pull("org/single", file="../x.json")
    assert hub.pull("org/single", file="flux.safetensors").fetched == 1


def test_one_set_of_weights_is_chosen() -> None:
    folder = "transformer/"
    plain, half = f"{folder}m.safetensors", f"{folder}m.fp16.safetensors"
    shards = [f"{folder}m-0000{n}-of-00002.safetensors" for n in (1, 2)]
    index = f"{folder}m.safetensors.index.json"
    for names, wanted in (
        ([half, plain], [plain]),
        ([half], [half]),
        ([*shards, index, half], [*shards, index]),
        ([*shards, index, plain], [*shards, index]),
    ):
        assert hub.needed(names, ["transformer"]) == wanted


def test_the_command_line_pulls_and_lists(site: Hub, capsys: pytest.CaptureFixture[str]) -> None:
    def row() -> dict[str, Any]:
        assert run(["models", "list", "--json"]) == 0
        rows: list[dict[str, Any]] = json.loads(capsys.readouterr().out)
        return next(row for row in rows if row["name"] == "dev")

    assert (row()["here"], row()["state"]) == (False, "to download")
    assert run(["models", "pull", "dev"]) == 0
    out, err = capsys.readouterr()
    assert out.strip() == str(cache.home(REPO) / "snapshots" / COMMIT)
    assert f"{REPO}: " in err and " fetched" in err
    assert (row()["here"], row()["state"]) == (True, "downloaded")
    assert row()["bytes"] > 1000
    assert run(["models", "pull", REPO, "--json", "--quiet"]) == 0
    out, err = capsys.readouterr()
    assert (json.loads(out)["fetched"], err) == (0, "")
    (Path(json.loads(out)["path"]) / "vae" / "diffusion_pytorch_model.safetensors").unlink()
    assert row()["state"] == "downloaded in part"
    redux = VARIANTS["redux"]
    names = ("image_embedder", "image_encoder", "feature_extractor")
    index = {"_class_name": "FluxPriorReduxPipeline", "text_encoder": [None, None]} | {n: ["x", "Y"] for n in names}
    site.files[redux.repo] = {
        "model_index.json": json.dumps(index).encode(),
        **{f"{name}/config.json": b"{}" for name in names[:2]},
        **{f"{name}/model.safetensors": b"weights" for name in names[:2]},
        "feature_extractor/preprocessor_config.json": b"{}",
    }
    assert run(["models", "pull", "redux"]) == 0
    place = Path(capsys.readouterr().out.strip())
    assert cache.state(redux.repo) is cache.State.WHOLE
    (place / "image_encoder" / "model.safetensors").unlink()
    assert cache.state(redux.repo) is cache.State.PARTLY
    lora = VARIANTS["depth-lora"]  # no folder of parts: its one file, and its base by itself
    site.files[lora.repo] = {lora.file: b"a file"}
    assert run(["models", "pull", "depth-lora"]) == 0
    out, err = capsys.readouterr()
    assert Path(out.strip()).name == lora.file and Path(out.strip()).read_bytes() == b"a file"
    assert "depth-lora adds to dev, which is pulled by itself" in err and cache.state(lora.repo) is cache.State.WHOLE
    assert run(["models", "pull", "mini"]) == 2
    assert "mini comes with fluxone; there is nothing to pull" in capsys.readouterr().err
    assert run(["models", "pull", "dve"]) == 2
    assert "did you mean 'dev'?" in capsys.readouterr().err
    site.gated["black-forest-labs/FLUX.1-Fill-dev"] = "hf_good"
    site.files["black-forest-labs/FLUX.1-Fill-dev"] = site.files[REPO]
    assert run(["models", "pull", "fill"]) == 2
    assert "is gated: its owner gives access on request; accept its licence at" in capsys.readouterr().err


def test_the_environment_names_hub_and_cache(site: Hub, tmp_path: Path) -> None:
    """In a process of its own, as a user has it."""
    env = {**os.environ, "HF_ENDPOINT": site.url, "HF_HUB_CACHE": str(tmp_path / "other"), "HF_TOKEN": "hf_env"}
    env |= {"HF_HUB_OFFLINE": "0", "PYTHONPATH": str(Path(hub.__file__).parents[2])}
    site.gated[REPO] = "hf_env"
    done = subprocess.run(
        [sys.executable, "-m", "fluxone", "models", "pull", "dev"], env=env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert Path(done.stdout.strip()).is_relative_to(tmp_path / "other")
    assert "hf_env" not in done.stderr
