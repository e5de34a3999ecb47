"""OpenAI's dialect, through OpenAI's own client."""

from __future__ import annotations

import base64
import io
import threading
import time
from collections.abc import Callable
from dataclasses import replace

import openai
import pytest
from PIL import Image
from starlette.testclient import TestClient

from fluxone.errors import BrokenModel
from fluxone.serve.policy import words
from fluxone.variants import KONTEXT, MINI, Kind
from unit.serve.conftest import BASE
from unit.serve.fake import Fake, colour

Server = Callable[..., TestClient]


def client_of(http: TestClient) -> openai.OpenAI:
    return openai.OpenAI(api_key="anything", base_url=f"{BASE}/v1", http_client=http, max_retries=0)


def file(name: str = "image.png", mode: str = "RGB", colour_: object = 90) -> io.BytesIO:
    data = io.BytesIO()
    Image.new(mode, (64, 48), colour_).save(data, "PNG")
    data.seek(0)
    data.name = name
    return data


def image_of(text: str) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(text)))


def test_generations(server: Server) -> None:
    http = server()
    client = client_of(http)
    made = client.images.generate(prompt="a fox", model="gpt-image-1", n=2, size="96x64", extra_body={"seed": 7})
    assert [image_of(datum.b64_json).getpixel((0, 0)) for datum in made.data] == [colour(7), colour(8)]
    assert image_of(made.data[0].b64_json).size == (96, 64)
    assert (made.size, made.output_format) == ("96x64", "png")
    assert made.usage.output_tokens == 2 * 24
    made = client.images.generate(prompt="a fox", response_format="url", output_format="webp")
    assert http.get(made.data[0].url).headers["content-type"] == "image/webp"


def test_what_is_asked_for_reaches_the_engine(server: Server) -> None:
    engine = Fake()
    client = client_of(server(engine, finetunes={"tok": "tok.safetensors"}))
    extra = {
        "negative_prompt": "blur", "true_cfg_scale": 2, "guidance_scale": 1.5, "num_inference_steps": 6,
        "lora": {"name": "tok", "scale": 0.5},
    }  # fmt: skip
    client.images.generate(prompt="a fox", extra_body=extra)
    client.images.generate(prompt="a fox", quality="low")
    first, second = (task.wanted for task in engine.tasks)
    request = first.request
    assert (request.negative, request.cfg, request.guidance, request.steps) == ("blur", 2, 1.5, 6)
    assert first.loras == (("tok.safetensors", 0.5),)
    assert second.request.steps == MINI.steps // 2


def test_a_stream_shows_unfinished_pictures(server: Server) -> None:
    client = client_of(server())
    events = list(client.images.generate(prompt="a fox", stream=True, partial_images=2, extra_body={"seed": 4}))
    kinds = [event.type for event in events]
    assert kinds == ["image_generation.partial_image"] * 2 + ["image_generation.completed"]
    assert [event.partial_image_index for event in events[:2]] == [0, 1]
    assert image_of(events[-1].b64_json).getpixel((0, 0)) == colour(4)
    assert events[-1].usage.output_tokens == (MINI.size // 16) ** 2


def test_edits_by_mask_and_by_reference(server: Server) -> None:
    engine = Fake({"mini": MINI, "kontext": KONTEXT})
    http = server(engine)
    client = client_of(http)
    mask = file("mask.png", "RGBA", (0, 0, 0, 0))
    client.images.edit(image=file(), mask=mask, prompt="a car", model="gpt-image-1")
    client.images.edit(image=[file(), file()], prompt="make it blue")
    data = "data:image/png;base64," + base64.b64encode(file().getvalue()).decode()
    body = {"images": [{"image_url": data}], "prompt": "make it red", "size": "1024x1024"}
    assert http.post("/v1/images/edits", json=body).status_code == 200
    assert http.post("/v1/images/variations", files={"image": file()}, data={"n": "1"}).status_code == 200
    masked, referred, json_, varied = (task.wanted for task in engine.tasks)
    assert (masked.model, masked.request.mask.getpixel((0, 0)), masked.request.strength) == ("mini", 255, 1.0)
    assert (referred.model, len(referred.request.references)) == ("kontext", 2)
    assert (json_.model, str(json_.request.resolution)) == ("kontext", "1024x1024")
    assert (varied.model, varied.request.init.size, varied.request.strength) == ("mini", (64, 48), 0.7)


def test_a_mask_is_of_the_first_picture_and_the_others_are_looked_at(server: Server) -> None:
    engine = Fake({"mini": MINI, "kontext": KONTEXT})
    mask = file("mask.png", "RGBA", (0, 0, 0, 0))
    client_of(server(engine)).images.edit(image=[file(), file(), file()], mask=mask, prompt="a car")
    wanted = engine.tasks[0].wanted
    assert (wanted.model, len(wanted.request.references), wanted.request.init.size) == ("kontext", 2, (64, 48))


def test_null_is_the_default_and_prompts_may_be_as_long_as_in_the_contract(server: Server) -> None:
    engine = Fake()
    http = server(engine)
    nothing = dict.fromkeys(("n", "size", "quality", "output_format", "output_compression", "background", "stream"))
    body = {"prompt": "a" * 32_000, "user": "me", "style": "vivid", "moderation": None, **nothing}
    assert http.post("/v1/images/generations", json=body).status_code == 200
    assert len(engine.tasks[0].wanted.request.prompt) == 32_000
    longer = http.post("/v1/images/generations", json={"prompt": "a" * 32_001})
    assert longer.status_code == 400 and "prompt" in longer.json()["error"]["message"]
    told = http.post("/v1/images/edits", json={"prompt": "x", "images": [{"file_id": "file-1"}]}).json()["error"]
    assert "no files are kept here" in told["message"] and told["param"] == "images.0"


def test_forms_have_objects_and_a_key_stands_for_the_mask_too(server: Server) -> None:
    engine = Fake({"mini": MINI, "kontext": KONTEXT})
    http = server(engine, finetunes={"tok": "tok.safetensors"})
    client = client_of(http)
    client.images.edit(image=file(), prompt="x", extra_body={"lora": {"name": "tok", "scale": 0.5}})
    form = {"prompt": "x", "lora": '{"name": "tok", "scale": 0.25}'}
    assert http.post("/v1/images/edits", data=form, files={"image": file()}).status_code == 200
    assert [task.wanted.loras for task in engine.tasks] == [(("tok.safetensors", 0.5),), (("tok.safetensors", 0.25),)]
    told = http.post("/v1/images/edits", data={**form, "lora": "{"}, files={"image": file()}).json()["error"]
    assert "no JSON" in told["message"]

    def once(alpha: int) -> int:
        files = {"image": file(), "mask": file("mask.png", "RGBA", (0, 0, 0, alpha))}
        key = {"Idempotency-Key": "k"}
        return http.post("/v1/images/edits", data={"prompt": "x", "seed": 1}, files=files, headers=key).status_code

    assert (once(0), once(0), once(128)) == (200, 200, 400)


def test_models(server: Server) -> None:
    client = client_of(server(Fake({"mini": MINI, "kontext": KONTEXT})))
    assert [model.id for model in client.models.list()] == ["mini", "kontext"]
    assert client.models.retrieve("kontext").owned_by == "fluxone"
    with pytest.raises(openai.NotFoundError, match="did you mean 'mini'"):
        client.models.retrieve("mni")


@pytest.mark.parametrize(
    ("told", "words_"),
    [
        ({"size": "wide"}, "WIDTHxHEIGHT"),
        ({"size": "0x0"}, "height is 0"),
        ({"n": 11}, "n:"),
        ({"background": "transparent"}, "background"),
        ({"extra_body": {"num_inference_steps": 0}}, "num_inference_steps"),
        ({"extra_body": {"prompt": None}}, "prompt"),
    ],
)
def test_bad_requests(server: Server, told: dict, words_: str) -> None:
    client = client_of(server())
    with pytest.raises(openai.BadRequestError) as caught:
        client.images.generate(**{"prompt": "a fox", **told})
    assert words_ in caught.value.body["message"]
    assert caught.value.body["type"] == "invalid_request_error"


def test_what_cannot_be_done(server: Server) -> None:
    engine = Fake()
    http = server(engine, words({"gore": 3}))
    client = client_of(http)
    with pytest.raises(openai.NotFoundError, match="takes a reference picture"):
        client.images.edit(image=file(), prompt="make it blue")
    with pytest.raises(openai.NotFoundError, match="loaded are mini"):
        client.images.generate(prompt="x", model="stable-diffusion")
    with pytest.raises(openai.BadRequestError, match="content policy"):
        client.images.generate(prompt="gore")
    assert client.images.generate(prompt="gore", moderation="low").data
    engine.held = True
    threading.Timer(0.3, lambda: engine.go(error=BrokenModel("it broke"))).start()
    with pytest.raises(openai.InternalServerError, match="it broke"):
        client.images.generate(prompt="x")
    json_, form = "application/json", "multipart/form-data; boundary=y"
    alone = b'--y\r\nContent-Disposition: form-data; name="prompt"\r\n\r\nx\r\n--y--'
    for raw, kind in ((b"{", json_), (b"[" * 99999, json_), (b"x", form), (alone, form)):
        assert http.post("/v1/images/edits", content=raw, headers={"Content-Type": kind}).status_code == 400


def test_a_client_that_goes_takes_its_request_along(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    from fluxone.serve import openai as dialect

    monkeypatch.setattr(dialect, "PATIENCE", 0.02)
    gone = threading.Event()

    async def away(self: object) -> bool:
        return gone.is_set()

    monkeypatch.setattr("starlette.requests.Request.is_disconnected", away)
    engine = Fake(held=True)
    http = server(engine)
    told: list[int] = []
    asking = threading.Thread(
        target=lambda: told.append(http.post("/v1/images/generations", json={"prompt": "x"}).status_code)
    )
    asking.start()
    while not engine.tasks:
        time.sleep(0.01)
    gone.set()
    asking.join(10)
    assert engine.tasks[0].cancelled


def test_what_other_servers_take(server: Server) -> None:
    redux = replace(MINI, name="redux", takes=(Kind.PROMPT,))
    engine = Fake({"mini": MINI, "redux": redux}, held=False)
    client = server(engine, finetunes={"a": "a.safetensors"})
    extra = '<sd_cpp_extra_args>{"seed": 5, "steps": 7, "cfg_scale": 2.5}</sd_cpp_extra_args>'
    lora = [{"name": "a", "scale": 0.5}]
    assert client.post("/v1/images/generations", json={"prompt": f"a fox {extra}", "lora": lora}).is_success
    wanted = engine.tasks[0].wanted
    request = wanted.request
    assert (request.prompt, request.seed, request.steps, request.cfg) == ("a fox", 5, 7, 2.5)
    assert wanted.loras == (("a.safetensors", 0.5),)
    bad = client.post("/v1/images/generations", json={"prompt": "<sd_cpp_extra_args>{</sd_cpp_extra_args>"})
    assert bad.status_code == 400
    file = io.BytesIO()
    Image.new("RGB", (64, 48)).save(file, "PNG")
    assert client.post("/v1/images/variations", files={"image": ("a.png", file.getvalue())}).is_success
    assert engine.tasks[1].wanted.model == "redux"
    assert len(engine.tasks[1].wanted.request.image_prompts) == 1
