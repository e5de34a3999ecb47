"""The clients that others publish, unchanged, against `fluxone serve` on the mini: their drawing, edit and fill calls.

`python tools/official_clients.py` fetches them; FLUXONE_CLIENTS names another folder.
"""

from __future__ import annotations

import base64
import io
import json
import os
import re
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image, ImageDraw

from e2e.server import Server
from fluxone import Client

CLIENTS = Path(os.environ.get("FLUXONE_CLIENTS", Path(__file__).parents[2] / "runs" / "clients"))
PYTHON, NODE = CLIENTS / "python" / "bin" / "python", shutil.which("node")
SDK = CLIENTS / "node_modules" / "@ai-sdk" / "black-forest-labs"
FETCH = "it is not there: python tools/official_clients.py"

BLACKFOREST = """
import json, sys, requests
from blackforest import BFLClient
from blackforest.client import BFLError
from blackforest.types.general.client_config import ClientConfig
told = json.load(sys.stdin)
client = BFLClient(api_key="none", base_url=told["url"])
config = ClientConfig(sync=True, polling_interval=0.1, max_retries=1500)
found = {}
for model, inputs in told["calls"].items():
    try:
        result = client.generate(model, inputs, config).result
        picture = requests.get(result["sample"], timeout=60)
        picture.raise_for_status()
        found[model] = {"bytes": len(picture.content), "seed": result["seed"], "kind": picture.headers["content-type"]}
    except BFLError as error:
        found[model] = {"error": str(error)}
print("FOUND", json.dumps(found))
"""

VERCEL = """
import { readFileSync } from "node:fs";
import { generateImage } from "ai";
import { createBlackForestLabs } from "@ai-sdk/black-forest-labs";
const told = JSON.parse(readFileSync(0, "utf8"));
const bfl = createBlackForestLabs({ apiKey: "none", baseURL: told.url + "/v1", pollIntervalMillis: 100 });
const image = Buffer.from(told.image, "base64"), mask = Buffer.from(told.mask, "base64");
const calls = {
  "flux-pro-1.1": { prompt: "a fox in the snow", size: "512x256", seed: 5 },
  "flux-pro-1.1-ultra": { prompt: "a fox", aspectRatio: "1:1", providerOptions: { blackForestLabs: { raw: true } } },
  "flux-kontext-pro": { prompt: { text: "make the sky pink", images: [image] } },
  "flux-pro-1.0-fill": { prompt: { text: "a house", images: [image], mask },
    providerOptions: { blackForestLabs: { steps: 15 } } },
};
const found = {};
for (const [model, call] of Object.entries(calls)) {
  try {
    const { image: made, providerMetadata } = await generateImage({ model: bfl.image(model), maxRetries: 0, ...call });
    const meta = providerMetadata.blackForestLabs.images[0];
    found[model] = { bytes: made.uint8Array.length, kind: made.mediaType, seed: meta.seed };
  } catch (error) { found[model] = { error: String(error) }; }
}
console.log("FOUND " + JSON.stringify(found));
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, environment: dict[str, str]) -> Iterator[Server]:
    server = Server(tmp_path_factory.mktemp("serve"), environment)
    server.start()
    yield server
    server.end(signal.SIGKILL)
    server.log.close()


@pytest.fixture(scope="module")
def scene() -> tuple[str, str]:
    """A picture, and a mask of its middle, in base64; no side is below what BFL's client sends."""
    picture, mask = Image.new("RGB", (256, 256), "#8fc7e8"), Image.new("L", (256, 256), 0)
    ImageDraw.Draw(picture).rectangle((0, 180, 256, 256), fill="#5f9a48")
    ImageDraw.Draw(mask).rectangle((80, 80, 180, 220), fill=255)
    return tuple(encoded(image) for image in (picture, mask))  # type: ignore[return-value]


def encoded(image: Image.Image) -> str:
    file = io.BytesIO()
    image.save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()


def found(command: list[str | Path], told: dict[str, object], cwd: Path | None = None) -> dict[str, dict]:
    clean = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "BFL_ENV")}
    done = subprocess.run(
        command, input=json.dumps(told), capture_output=True, text=True, cwd=cwd, env=clean, timeout=600, check=False
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.rpartition("FOUND ")[2])


def served(server: Server, endpoint: str, kind: str) -> bool:
    """Whether the mini's family has what an endpoint needs."""
    return any(name.endswith(kind) for name in server.models) or not kind


@pytest.mark.skipif(not PYTHON.exists(), reason=FETCH)
def test_blackforest(server: Server, scene: tuple[str, str]) -> None:
    picture, mask = scene
    few = {"steps": 15}
    calls = {
        "flux-dev": ({"prompt": "a fox", "seed": 3, "width": 256, "height": 256, "steps": 4}, ""),
        "flux-pro": ({"prompt": "a fox", "seed": 3, **few}, ""),
        "flux-pro-1.1": ({"prompt": "a fox", "seed": 3, "output_format": "png"}, ""),
        "flux-pro-1.1-ultra": ({"prompt": "a fox", "seed": 3, "aspect_ratio": "16:9", "raw": True}, ""),
        "flux-pro-1.0-fill": ({"prompt": "a house", "image": picture, "mask": mask, "seed": 3, **few}, ""),
        "flux-pro-1.0-expand": ({"prompt": "a house", "image": picture, "left": 64, "seed": 3, **few}, ""),
        "flux-kontext-pro": ({"prompt": "make the sky pink", "input_image": picture, "seed": 3}, "kontext"),
        "flux-pro-1.0-canny": ({"prompt": "a house", "control_image": picture, "seed": 3, **few}, "canny"),
        "flux-pro-1.0-depth": ({"prompt": "a house", "preprocessed_image": picture, "seed": 3, **few}, "depth"),
    }
    told = {"url": server.url, "calls": {model: inputs for model, (inputs, _) in calls.items()}}
    came = found([PYTHON, "-c", BLACKFOREST], told)
    for model, (_, kind) in calls.items():
        if served(server, model, kind):
            assert came[model].get("seed") == 3, (model, came[model])
            assert came[model]["bytes"] > 500
        else:
            assert "no loaded model takes" in came[model]["error"]
    assert came["flux-dev"]["kind"] == "image/jpeg"
    assert came["flux-pro-1.1"]["kind"] == "image/png"


@pytest.mark.skipif(NODE is None or not SDK.exists(), reason=FETCH)
def test_vercels_provider(server: Server, scene: tuple[str, str]) -> None:
    script = CLIENTS / "vercel.mjs"  # Node looks for packages beside the script
    script.write_text(VERCEL)
    told = {"url": server.url, "image": scene[0], "mask": scene[1]}
    came = found([str(NODE), script], told)
    assert came["flux-pro-1.1"].get("seed") == 5, came
    for model, kind in {"flux-pro-1.1-ultra": "", "flux-kontext-pro": "kontext", "flux-pro-1.0-fill": ""}.items():
        if served(server, model, kind):
            assert came[model].get("bytes", 0) > 500, (model, came[model])
        else:
            assert "no loaded model takes" in came[model]["error"]


def test_our_own(server: Server, scene: tuple[str, str]) -> None:
    client = Client(server.url)
    seen: list[float] = []
    picture = client.generate(
        "a fox", size=(256, 256), seed=3, steps=6, on_progress=lambda share, preview: seen.append(share)
    )
    assert picture.image.size == (256, 256)
    assert seen == sorted(seen)
    again = client.generate("a fox", size=(256, 256), seed=3, steps=6)
    assert again.image.convert("RGB").tobytes() == picture.image.convert("RGB").tobytes()
    filled = client.fill(picture.image, base64.b64decode(scene[1]), "a house", fields={"steps": 15})
    assert filled.image.size == (256, 256)
    assert set(client.models()) == set(server.models)


@pytest.mark.skipif(shutil.which("curl") is None, reason="there is no curl")
def test_the_documents_commands(server: Server, scene: tuple[str, str], tmp_path: Path) -> None:
    text = (Path(__file__).parents[2] / "docs" / "http.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    lines = [line for block in blocks for line in block.replace("\\\n", " ").splitlines() if line.startswith("curl")]
    for name, data in zip(("picture.png", "mask.png"), scene, strict=True):
        (tmp_path / name).write_bytes(base64.b64decode(data))
    with Image.open(tmp_path / "mask.png") as mask:  # OpenAI's masks repaint where they are clear
        clear = mask.convert("RGBA")
        clear.putalpha(mask.point(lambda value: 255 - value))
    clear.save(tmp_path / "mask.png")
    task = ""
    assert len(lines) == 5
    for line in lines:
        command = line.replace("localhost:8080", f"localhost:{server.port}").replace("=ID", f"={task}")
        done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, cwd=tmp_path, timeout=300)
        told = json.loads(done.stdout)
        assert not {"error", "detail"} & set(told), (line, told)
        task = told.get("id", task)
