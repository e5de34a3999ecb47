"""Adapter files as they come: scales of PEFT's configuration, folders, downloads, and all that can be wrong."""

from __future__ import annotations

import hashlib
import json
import random
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import pytest
import torch
from safetensors.torch import save, save_file

from fluxone.errors import BadFile, BadWeights, FluxoneError, HubError, UserError
from fluxone.lora.fetch import fetch
from fluxone.lora.load import load_lora, read_lora
from unit.lora.by_hand import STYLED, H

KEY = "transformer.transformer_blocks.0.attn.to_q"
PAIR = {f"{KEY}.lora_A.weight": torch.ones(4, H), f"{KEY}.lora_B.weight": torch.ones(H, 4)}


@pytest.mark.parametrize(
    ("fields", "scale"),
    [
        ({}, 1.0),
        ({"transformer.r": 4, "transformer.lora_alpha": 8}, 2.0),
        ({"transformer.lora_alpha": 8, "transformer.use_rslora": True}, 4.0),
        ({"transformer.lora_alpha": 8, "transformer.alpha_pattern": {"transformer_blocks.0.attn.to_q": 2}}, 0.5),
        ({"transformer.lora_alpha": 8, "transformer.alpha_pattern": {"^transformer_blocks.0.attn.to_q": 2}}, 0.5),
        ({"transformer.lora_alpha": 8, "transformer.alpha_pattern": {"blocks.0.attn.to_q": 2}}, 2.0),
        ({"text_encoder.lora_alpha": 8}, 1.0),
    ],
)
def test_scale_is_that_of_the_header(fields: dict[str, object], scale: float) -> None:
    lora = read_lora(PAIR, metadata={"lora_adapter_metadata": json.dumps(fields)})
    assert lora.deltas[0].factor.scale == scale
    own = read_lora(PAIR | {f"{KEY}.alpha": torch.tensor(12.0)}, metadata={"lora_adapter_metadata": json.dumps(fields)})
    rooted = bool(fields.get("transformer.use_rslora"))
    assert own.deltas[0].factor.scale == (6.0 if rooted else 3.0)


def test_a_folder_of_peft_has_its_scale_beside(tmp_path: Path) -> None:
    save_file({key.replace("transformer.", "base_model.model.", 1): t for key, t in PAIR.items()},
              tmp_path / "adapter_model.safetensors")  # fmt: skip
    (tmp_path / "adapter_config.json").write_text(json.dumps({"r": 4, "lora_alpha": 2, "alpha_pattern": {}}))
    lora = load_lora(tmp_path)
    assert (lora.format, lora.deltas[0].factor.scale) == ("diffusers", 0.5)
    assert lora.hash.startswith("sha256:")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({f"{KEY}.lora_B.weight": torch.ones(H, 3)}, r"up is \[24, 3\], down \[4, 24\]"),
        ({f"{KEY}.lora_B.weight": torch.full((H, 4), torch.nan)}, "holds NaN or infinity"),
        ({f"{KEY}.alpha": torch.ones(2)}, "one number is needed"),
        ({f"{KEY}.lora_A.default.weight": torch.ones(4, H)}, "are the same"),
        ({f"{KEY}.lora_A.weight": torch.ones(4, H, 3, 3)}, r"a factor has shape \[4, 24, 3, 3\]"),
        ({f"{KEY}.lora_A.weight": torch.ones(0, H), f"{KEY}.lora_B.weight": torch.ones(H, 0)}, "has rank 0"),
        ({f"{KEY}.weight": torch.ones(H, H)}, "mean nothing here"),
        ({"transformer.transformer_blocks.0.attn.to_k.alpha": torch.ones(())}, "mean nothing here"),
        ({"transformer.transformer_blocks.0.attn.to_k.dora_scale": torch.ones(H, 1)}, "mean nothing here"),
        ({"diffusion_model.double_blocks.0.img_attn.proj.diff": torch.ones(H, H)}, "mixes the styles"),
    ],
)
def test_broken_tensors_are_refused(tmp_path: Path, change: dict[str, torch.Tensor], message: str) -> None:
    path = tmp_path / "x.safetensors"
    save_file(PAIR | change, path)
    with pytest.raises(BadWeights, match=message):
        load_lora(path)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        (["lora_unet_input_blocks_1_1_proj_in.lora_down.weight"], "is no LoRA of FLUX.1"),
        (["transformer_blocks.0.attn.to_q.oft_blocks"], "is OFT, which cannot be read"),
        (["img_in.weight"], "is a model, not an adapter"),
    ],
)
def test_strangers_are_named(tmp_path: Path, keys: list[str], message: str) -> None:
    path = tmp_path / "x.safetensors"
    save_file({key: torch.ones(4, 4) for key in keys}, path)
    with pytest.raises(BadWeights, match=message):
        load_lora(path)


def test_an_empty_file_and_a_pickle_are_refused(tmp_path: Path) -> None:
    save_file({}, tmp_path / "empty.safetensors")
    with pytest.raises(BadWeights, match="holds no tensors"):
        load_lora(tmp_path / "empty.safetensors")
    (tmp_path / "x.pt").write_bytes(b"PK\x03\x04")
    with pytest.raises(BadFile, match="pickle"):
        load_lora(tmp_path / "x.pt")


def test_metadata_that_is_no_table_is_refused() -> None:
    for text in ("{", "[]", "3"):
        with pytest.raises(BadWeights, match="lora_adapter_metadata"):
            read_lora(PAIR, metadata={"lora_adapter_metadata": text})


def test_two_hundred_damaged_files_make_clear_errors(tmp_path: Path) -> None:
    """Bytes changed, cut, doubled and swapped, by a fixed seed: an error of ours, or a file that is still whole."""
    source = random.Random(0)
    whole = [save(STYLED[name]().tensors) for name in ("xlabs", "kohya split in pieces", "rest")]
    path = tmp_path / "x.safetensors"
    refused = 0
    for n in range(200):
        data = bytearray(whole[n % 3])
        head = 8 + int.from_bytes(data[:8], "little")
        for _ in range(source.randint(1, 4)):
            at = source.randrange(head if source.random() < 0.8 else len(data))
            match source.randrange(4):
                case 0:
                    data[at] = source.randrange(256)
                case 1:
                    del data[at : at + source.randint(1, 40)]
                case 2:
                    data[at:at] = data[at : at + source.randint(1, 40)]
                case _:
                    data[at : at + 8] = source.randbytes(8)
        path.write_bytes(data)
        try:
            load_lora(path)
        except FluxoneError as error:
            assert isinstance(error, UserError)
            refused += 1
    assert refused > 150


class Site(BaseHTTPRequestHandler):
    """A stand-in of Civitai's two addresses, and of the store that it sends downloads on to."""

    data = save(PAIR)
    sha256 = hashlib.sha256(save(PAIR)).hexdigest().upper()
    seen: ClassVar[list[tuple[str, str | None, str | None]]] = []
    store = ""
    token = "secret"

    def do_GET(self) -> None:
        self.seen.append((self.path, self.headers.get("Authorization"), self.headers.get("Range")))
        if self.path.startswith("/store"):
            start = int((self.headers.get("Range") or "bytes=0-").split("=")[1].rstrip("-"))
            return self.answer(206 if start else 200, self.data[start:])
        if self.headers.get("Authorization") != f"Bearer {self.token}":
            return self.answer(401, b"{}")
        if self.path == "/api/v1/model-versions/42":
            fox = {"name": "../fox.safetensors", "primary": True, "hashes": {"SHA256": self.sha256}}
            return self.answer(200, json.dumps({"files": [{"name": "x.txt"}, fox]}).encode())
        if self.path == "/api/download/models/42":
            self.send_response(307)
            self.send_header("Location", f"{self.store}/store/fox")
            self.end_headers()
            return None
        return self.answer(404, b"{}")

    def answer(self, code: int, body: bytes) -> None:
        self.send_response(code)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Site]]:
    servers = [ThreadingHTTPServer(("127.0.0.1", 0), Site) for _ in range(2)]
    for server in servers:
        threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("FLUXONE_CIVITAI", f"http://127.0.0.1:{servers[0].server_port}")
    monkeypatch.setenv("FLUXONE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("CIVITAI_TOKEN", Site.token)
    monkeypatch.setattr(Site, "store", f"http://127.0.0.1:{servers[1].server_port}")
    monkeypatch.setattr(Site, "seen", [])
    yield Site
    for server in servers:
        server.shutdown()
        server.server_close()


def test_civitai_by_the_id_of_a_version(site: type[Site], tmp_path: Path) -> None:
    lora = load_lora("civitai:42")
    assert len(lora.deltas) == 1
    assert Path(lora.path) == tmp_path / "cache" / "civitai" / "42" / "fox.safetensors"
    paths = [path for path, _, _ in site.seen]
    assert paths == ["/api/v1/model-versions/42", "/api/download/models/42", "/store/fox"]
    assert site.seen[-1][1] is None, "the token is for the site, not for the store"
    assert fetch("urn:air:flux1:lora:civitai:7@42").name == "fox.safetensors"
    assert len(site.seen) == 3, "what is here is not asked for again"


def test_a_broken_download_is_taken_up(site: type[Site], tmp_path: Path) -> None:
    folder = tmp_path / "cache" / "civitai" / "42"
    folder.mkdir(parents=True)
    (folder / "fox.safetensors.part").write_bytes(site.data[:50])
    assert fetch("civitai:42").read_bytes() == site.data
    assert site.seen[-1][2] == "bytes=50-"


def test_a_wrong_download_is_not_kept(site: type[Site], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(site, "sha256", "0" * 64)
    with pytest.raises(BadFile, match="gave a file of SHA-256"):
        fetch("civitai:42")
    assert not [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]


def test_what_the_site_refuses_is_told(site: type[Site], monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(HubError, match="answered 404; check the version's id"):
        fetch("civitai:43")
    monkeypatch.setenv("CIVITAI_TOKEN", "")
    with pytest.raises(HubError, match="answered 401; set CIVITAI_TOKEN"):
        fetch("civitai:42")
    monkeypatch.setenv("FLUXONE_CIVITAI", "file:///etc")
    with pytest.raises(HubError, match="is no web address"):
        fetch("civitai:42")


def test_places_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(BadFile, match=r"there is no adapter nowhere\.safetensors"):
        fetch("nowhere.safetensors")
    with pytest.raises(BadFile, match="and holds none"):
        fetch(str(tmp_path))
    for name in "ab":
        (tmp_path / f"{name}.safetensors").write_bytes(b"")
    with pytest.raises(BadFile, match=r"holds 2: a\.safetensors, b\.safetensors"):
        fetch(str(tmp_path))
    with pytest.raises(HubError, match="HF_HUB_OFFLINE forbids the network"):
        fetch("some/repository/file.safetensors")
