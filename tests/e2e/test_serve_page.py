"""The page in a real browser, on the mini: everything that it can do, by mouse and keyboard.

With FLUXONE_SHOTS=FOLDER it leaves pictures of itself there.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image, ImageDraw

from e2e.chromium import PATH, Chromium
from e2e.server import Server

pytestmark = pytest.mark.skipif(PATH is None, reason="there is no Chromium")
SHOTS = os.environ.get("FLUXONE_SHOTS")
DONE = "document.getElementById('cancel').disabled && !document.querySelector('#frame img.rough')"
MESSAGE = "document.getElementById('message').textContent"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, environment: dict[str, str]) -> Iterator[Server]:
    server = Server(tmp_path_factory.mktemp("serve"), environment)
    server.start()
    yield server
    server.end(signal.SIGKILL)
    server.log.close()


@pytest.fixture
def page(server: Server, tmp_path: Path) -> Iterator[Chromium]:
    browser = Chromium(tmp_path / "browser")
    browser.open(server.url)
    browser.until("document.getElementById('server').textContent.includes('mini')")
    browser.until("document.body.dataset.ready === 'yes'")
    yield browser
    elsewhere = [url for url in browser.asked if not url.startswith((server.url, "data:", "about:", "blob:"))]
    browser.close()
    assert elsewhere == [], "it asks nobody else"


def shot(page: Chromium, name: str) -> None:
    if SHOTS:
        page.picture(Path(SHOTS) / f"{name}.png")


def put(page: Chromium, name: str, value: object) -> None:
    page.run(f"(e => {{ e.value = '{value}'; e.dispatchEvent(new Event('input')) }})(document.forms[0].{name})")


def drawn(page: Chromium, count: int = 1) -> None:
    page.press("Enter", control=True)
    page.until("!document.getElementById('cancel').disabled")
    page.until(DONE, 240)
    assert page.run(MESSAGE) == ""
    assert page.run("document.querySelectorAll('#frame img:not([hidden])').length") == count


def mode(page: Chromium, name: str) -> None:
    page.click(f"#modes [data-mode={name}]")
    assert page.run(f"document.querySelector('#modes [data-mode={name}]').getAttribute('aria-selected')") == "true"


def test_drawing_history_and_settings(server: Server, page: Chromium) -> None:
    assert page.run("document.activeElement.id") == "prompt"
    put(page, "steps", 4)
    page.press("Enter", control=True)
    assert "Say what is to be seen" in page.run(MESSAGE)
    page.type("a fox in the snow")
    drawn(page)
    assert page.run("document.getElementById('caption').textContent").startswith("a fox in the snow")
    page.until("document.getElementById('picture').naturalWidth === 512")
    assert "4" in page.run("document.getElementById('settings').textContent")
    shot(page, "draw")
    put(page, "count", 4)
    drawn(page, 4)
    shot(page, "grid")
    page.until("document.querySelectorAll('#gallery img').length === 5")
    seed = page.run("JSON.parse(localStorage['fluxone.gallery'])[4].seed")
    page.open(server.url)
    page.until("document.body.dataset.ready === 'yes'")
    page.until("document.querySelectorAll('#gallery img').length === 5")
    page.run("document.querySelector('#gallery li:last-child button').click()")
    page.until("!document.getElementById('actions').hidden")
    page.click("#again")
    page.until("document.forms[0].prompt.value === 'a fox in the snow'")
    assert page.run("document.forms[0].seed.value") == seed
    assert page.run("document.forms[0].steps.value") == "4"
    page.run("document.getElementById('clear').click()")
    page.until("document.querySelectorAll('#gallery img').length === 0")


def test_previews_and_stopping(page: Chromium) -> None:
    page.type("a house")
    put(page, "steps", 50)
    put(page, "count", 2)
    page.press("Enter", control=True)
    page.until("document.querySelector('#frame img.rough') !== null", 60)
    page.press("Escape")
    page.until(f"{MESSAGE}.includes('cancelled')", 60)


def test_live(page: Chromium) -> None:
    page.click("#live")
    page.click("#prompt")
    for words in ("a red ", "car in ", "the snow"):
        page.type(words)
    page.until("document.getElementById('caption').textContent.startsWith('a red car in the snow')", 60)
    first = page.run("document.querySelector('#frame img').src")
    page.type(" at night")
    page.until("document.getElementById('caption').textContent.startsWith('a red car in the snow at night')", 60)
    assert page.run("document.querySelector('#frame img').src") != first
    assert page.run("(localStorage['fluxone.gallery'] || '[]')") == "[]", "what one types is not kept"
    shot(page, "live")


def test_editing_filling_growing(server: Server, page: Chromium, tmp_path: Path) -> None:
    scene = Image.new("RGB", (256, 192), "#9fd0ee")
    ImageDraw.Draw(scene).rectangle((0, 130, 256, 192), fill="#6aa84f")
    ImageDraw.Draw(scene).ellipse((90, 80, 150, 140), fill="#c0392b")
    file = tmp_path / "scene.png"
    scene.save(file)
    mode(page, "fill")
    page.run("document.getElementById('prompt').focus()")
    page.type("a small house")
    page.press("Enter", control=True)
    assert "First give a picture" in page.run(MESSAGE)
    page.choose("#file", file)
    page.until("!document.getElementById('canvas').hidden")
    page.press("Enter", control=True)
    assert "Paint over" in page.run(MESSAGE)
    page.drag("#canvas", (0.4, 0.5), (0.5, 0.6), (0.55, 0.65))
    put(page, "steps", 15)
    shot(page, "fill")
    drawn(page)
    page.until("document.getElementById('picture').naturalWidth === 256")
    shot(page, "filled")
    page.click("[data-use=expand]")
    page.until("document.querySelector('#modes [data-mode=expand]').getAttribute('aria-selected') === 'true'")
    page.until("document.getElementById('canvas').width === 256 + 128")
    put(page, "steps", 15)
    drawn(page)
    page.until("document.getElementById('picture').naturalWidth === 256 + 128")
    shot(page, "expanded")
    if "mini-kontext" in server.models:
        page.click("[data-use=edit]")
        page.until("document.querySelector('#modes [data-mode=edit]').getAttribute('aria-selected') === 'true'")
        page.until("document.activeElement.id === 'prompt'")
        page.type("make it night")
        drawn(page)
        shot(page, "edited")
    if "mini-canny" in server.models:
        mode(page, "follow")
        page.run("document.getElementById('prompt').value = 'a house'")
        drawn(page)
        shot(page, "followed")


def test_ultra_themes_and_a_phone(server: Server, page: Chromium) -> None:
    mode(page, "ultra")
    page.run("document.getElementById('prompt').focus()")
    page.type("a market on a harbour")
    put(page, "aspect", "1:1")
    drawn(page)
    page.until("document.getElementById('picture').naturalWidth === 2048")
    background = "getComputedStyle(document.body).backgroundColor"
    light = page.run(background)
    page.click("#theme")
    assert page.run(background) != light
    shot(page, "dark")
    page.open(server.url)
    assert page.run(background) != light, "the choice is kept"
    page.resize(390, 844)
    for name in ("draw", "edit", "fill", "expand", "follow", "ultra"):
        page.run(f"document.querySelector('#modes [data-mode={name}]').click()")
        assert page.run("document.documentElement.scrollWidth") <= 390, f"nothing of {name} sticks out on a phone"
    page.run("document.querySelector('#modes [data-mode=fill]').click()")
    shot(page, "phone")
    page.open(f"{server.url}/docs")
    page.until("document.body.innerText.includes('POST /v1/flux-dev')")
