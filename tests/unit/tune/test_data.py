"""Folders, buckets, order and caches: every caption stays with its picture, whatever is shuffled, cut or kept."""

from __future__ import annotations

import json
import random
from collections import Counter
from pathlib import Path

import pytest
import torch
from PIL import Image

from fluxone.errors import BadFile
from fluxone.geometry import Resolution
from fluxone.tune import folder as folders
from fluxone.tune.buckets import WIDEST, Order, grid_for, held_out
from fluxone.tune.cache import Cache
from fluxone.tune.material import Material
from fluxone.tune.views import CLOSEST, WHOLE, views
from unit.tiny import pipeline
from unit.tune import made


def test_a_folder_with_captions_beside(tmp_path: Path) -> None:
    made.pictures(tmp_path / "a", 3)
    made.pictures(tmp_path / "a" / "below", 1)
    (tmp_path / "a" / "1.txt").unlink()
    found = folders.read(tmp_path / "a")
    assert [(e.path.name, e.text) for e in found] == [
        ("0.png", "red car"), ("1.png", ""), ("2.png", "house in snow"), ("0.png", "red car"),
    ]  # fmt: skip


def test_metadata_counts_for_its_folder(tmp_path: Path) -> None:
    made.pictures(tmp_path, 3)
    rows = [{"file_name": "0.png", "text": " a  fox ", "reference": "1.png", "mask": "2.png"}]
    (tmp_path / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n\n", encoding="utf-8")
    (only,) = folders.read(tmp_path)
    assert (only.text, only.mask, only.references) == ("a fox", tmp_path / "2.png", (tmp_path / "1.png",))


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("{", "line 1"),
        ('{"text": "a"}', "names no file"),
        ('{"file_name": "no.png"}', "there is no 'no.png'"),
        ('{"file_name": "0.png", "prompt": "a"}', "the key 'prompt'"),
    ],
)
def test_metadata_that_says_nothing_usable(tmp_path: Path, line: str, said: str) -> None:
    made.pictures(tmp_path, 1)
    (tmp_path / "metadata.jsonl").write_text(line, encoding="utf-8")
    with pytest.raises(BadFile, match=said):
        folders.read(tmp_path)


def test_a_picture_is_turned_and_put_on_white(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by a quarter
    Image.new("RGB", (40, 20), "red").save(tmp_path / "a.jpg", exif=exif)
    assert folders.open_picture(tmp_path / "a.jpg").size == (20, 40)
    Image.new("RGBA", (8, 8), (255, 0, 0, 0)).save(tmp_path / "b.png")
    assert folders.open_picture(tmp_path / "b.png").getpixel((0, 0)) == (255, 255, 255)
    (tmp_path / "c.png").write_bytes(b"\x89PNG nothing")
    with pytest.raises(BadFile, match=r"c\.png cannot be read"):
        folders.open_picture(tmp_path / "c.png")


@pytest.mark.parametrize("size", [(1024, 1024), (1600, 900), (900, 1600), (512, 2048), (5000, 100), (700, 650)])
def test_buckets_keep_area_and_aspect(size: tuple[int, int]) -> None:
    width, height = size
    rows, columns = grid_for(Resolution(height=height, width=width), 1024, 16, enlarge=True)
    aspect = min(max(width / height, 1 / WIDEST), WIDEST)
    assert 0.9 < (columns / rows) / aspect < 1.1
    assert 0.93 < rows * columns / 64**2 < 1.02
    small = grid_for(Resolution(height=height, width=width), 1024, 16)
    assert small[0] * small[1] * 256 <= max(width * height, 1024**2)


def test_no_example_is_dropped_and_none_comes_twice_before_all() -> None:
    keys = ["wide"] * 7 + ["tall"] * 5 + ["square"]
    order = Order.of(keys, 4, seed=3)
    seen: Counter[int] = Counter()
    steps = 13  # of 4: four times all 13
    for step in range(steps):
        numbers = order.at(step)
        assert len({keys[i] for i in numbers}) == 1
        seen.update(numbers)
    assert set(seen) == set(range(13)) and set(seen.values()) == {4}


def test_the_order_depends_on_seed_and_step_alone() -> None:
    keys = [i % 3 for i in range(20)]
    rows = [Order.of(keys, 3, seed=1).at(step) for step in range(60)]
    again = list(range(60))
    random.Random(0).shuffle(again)
    fresh = Order.of(keys, 3, seed=1)
    assert all(fresh.at(step) == rows[step] for step in again)
    assert rows != [Order.of(keys, 3, seed=2).at(step) for step in range(60)]


def test_what_is_held_out_depends_on_content(tmp_path: Path) -> None:
    digests = [f"{i:064x}" for i in range(20)]
    chosen = {digests[i] for i in held_out(digests, 0.15, 0)}
    assert len(chosen) == 3
    turned = digests[::-1]
    assert {turned[i] for i in held_out(turned, 0.15, 0)} == chosen
    assert held_out(digests[:4], 0.15, 0) == [] and len(held_out(digests[:5], 0.15, 0)) == 1


def test_bare_captions_have_the_names_alone(tmp_path: Path) -> None:
    place = made.pictures(tmp_path / "pictures", 4)
    texts = ["Zuri in the snow", "a cat beside zuri", "milo and zuri", "a tree"]
    for n, text in enumerate(texts):
        (place / f"{n}.txt").write_text(text)
    tiny = pipeline(tmp_path / "words")
    examples = folders.read(place)
    wanted = dict(zip(texts, ["zuri", "zuri", "zuri, milo", "a tree"], strict=True))
    cache = Cache(tiny, tmp_path / "cache")
    for bare, drop in ((1.0, 0.0), (0.4, 0.3), (0.0, 0.0)):
        material = Material(tiny, cache, made.settings(bare=bare, drop=drop), examples, "zuri, milo")
        material.prepare()
        said = [pair for step in range(50) for pair in _said(material, step)]
        told = [("nothing" if not prompt else "name" if prompt == wanted[text] else "all") for text, prompt in said
                if text != "a tree"]  # fmt: skip
        shares = [told.count(word) / len(told) for word in ("nothing", "name", "all")]
        assert shares == pytest.approx([drop, bare, 1 - drop - bare], abs=0.12 if drop else 0)
        assert all(prompt in ("", text, wanted[text]) for text, prompt in said)


def _said(material: Material, step: int) -> list[tuple[str, str]]:
    """Captions, and what was told of them."""
    batch = material.batch(step, slice(0, material.settings.batch))
    texts = {item.example.path.name: item.example.text for item in material.items}
    return [(texts[name], prompt) for name, prompt in zip(batch.names, batch.prompts, strict=True)]


def test_captions_and_pictures_are_never_mispaired(tmp_path: Path) -> None:
    """Under shuffling, cutting into parts, a cache of another order, and a change of files on the way."""
    place = made.pictures(tmp_path / "pictures", 6, sizes=((32, 32), (48, 24), (24, 48)))
    tiny = pipeline(tmp_path / "words")
    chosen = made.settings(drop=0.0)
    examples = folders.read(place)
    truth = Material(tiny, Cache(tiny, tmp_path / "fresh"), chosen, examples)
    known = {i.example.text: (truth._x(i), tiny.encode([i.example.text], [None], None)) for i in truth.items}
    shared = Cache(tiny, tmp_path / "shared")
    shuffled = examples[::-1]
    Material(tiny, shared, chosen, shuffled).prepare()  # encoded in another order
    material = Material(tiny, Cache(tiny, tmp_path / "shared"), chosen, examples)
    for step in range(12):
        for places in (slice(0, 4), slice(0, 1), slice(2, 4)):
            batch = material.batch(step, places)
            for i, prompt in enumerate(batch.prompts):
                x, text = known[prompt]
                assert torch.equal(batch.x[i], x)
                assert torch.equal(batch.txt[i], text.txt[0]) and torch.equal(batch.pooled[i], text.pooled[0])
    assert material.cache.made == 0
    Image.new("RGB", (32, 32), "pink").save(place / "0.png")  # the same name, another picture
    after = Material(tiny, Cache(tiny, tmp_path / "shared"), chosen, folders.read(place))
    after.prepare()
    assert after.cache.made == 1
    assert not torch.equal(after._x(after.items[0]), known["red car"][0])


def test_parts_of_pictures_are_seen_besides_the_whole(tmp_path: Path) -> None:
    """Each sample is one of its own picture's views; with references none but the whole; masks move along."""
    place = made.pictures(tmp_path / "pictures", 4)
    tiny = pipeline(tmp_path / "words")
    examples = folders.read(place)
    material = Material(tiny, Cache(tiny, tmp_path / "cache"), made.settings(drop=0.0, crops=5), examples)
    material.prepare()
    assert material.cache.made == 4 * 6 + len({"", *(example.text for example in examples)})
    known = {item.example.text: [material._x(item, view) for view in material.views] for item in material.items}
    seen: Counter[int] = Counter()
    for step in range(40):
        batch = material.batch(step, slice(0, 4))
        for x, prompt in zip(batch.x, batch.prompts, strict=True):
            (number,) = (n for n, one in enumerate(known[prompt]) if torch.equal(one, x))
            seen[number] += 1
    assert set(seen) == set(range(6)) and min(seen.values()) > 10
    assert material.cache.made == 4 * 6 + len({"", *(example.text for example in examples)}), "all was prepared"
    row = [{"file_name": "0.png", "text": "red car", "references": ["1.png"]}]
    (place / "metadata.jsonl").write_text(json.dumps(row[0]), encoding="utf-8")
    referring = Material(tiny, Cache(tiny, tmp_path / "cache"), made.settings(drop=0.0, crops=5), folders.read(place))
    whole = referring._x(referring.items[0])
    assert all(torch.equal(x, whole) for step in range(9) for x in referring.batch(step, slice(0, 4)).x)


def test_a_view_is_a_part_of_the_picture() -> None:
    picture = Image.linear_gradient("L").resize((64, 64))
    assert views(3) == views(8)[:4] and views(0) == (WHOLE,)
    for view in views(20)[1:]:
        assert 1 < view.zoom <= CLOSEST
        part = view.of(picture)
        assert part.size == picture.size
        middle = round(view.down * 64 * (1 - 1 / view.zoom) + 32 / view.zoom)  # the row half way down the part
        assert part.getpixel((32, 32)) == pytest.approx(picture.getpixel((32, middle)), abs=6)


def test_a_cache_file_that_a_crash_left_broken_is_made_again(tmp_path: Path) -> None:
    place = made.pictures(tmp_path / "pictures", 1)
    tiny = pipeline(tmp_path / "words")
    first = Cache(tiny, tmp_path / "cache")
    x = first.tokens(place / "0.png", (2, 2))
    (file,) = (tmp_path / "cache").glob("*.safetensors")
    file.write_bytes(file.read_bytes()[:50])
    second = Cache(tiny, tmp_path / "cache")
    assert torch.equal(second.tokens(place / "0.png", (2, 2)), x) and second.made == 1


def test_parts_of_a_batch_are_the_batch(tmp_path: Path) -> None:
    place = made.pictures(tmp_path / "pictures", 5)
    tiny = pipeline(tmp_path / "words")
    material = Material(tiny, Cache(tiny, tmp_path / "cache"), made.settings(), folders.read(place))
    for step in range(5):
        whole = material.batch(step, slice(0, 4))
        for i in range(4):
            one = material.batch(step, slice(i, i + 1))
            assert one.prompts == whole.prompts[i : i + 1]
            for name in ("x", "noise", "sigma", "txt", "pooled"):
                assert torch.equal(getattr(one, name)[0], getattr(whole, name)[i]), name


def test_masks_weigh_one_on_average(tmp_path: Path) -> None:
    made.pictures(tmp_path, 1)
    mask = Image.new("L", (32, 32), 0)
    mask.paste(255, (0, 0, 16, 32))
    mask.save(tmp_path / "m.png")
    row = json.dumps({"file_name": "0.png", "text": "fox", "mask": "m.png"})
    (tmp_path / "metadata.jsonl").write_text(row, encoding="utf-8")
    tiny = pipeline(tmp_path / "words")
    material = Material(tiny, Cache(tiny, tmp_path / "cache"), made.settings(batch=1), folders.read(tmp_path))
    weight = material.batch(0, slice(0, 1)).weight
    assert weight is not None and weight.mean() == pytest.approx(1)
    left, right = weight[0].reshape(2, 2, 1)[:, 0], weight[0].reshape(2, 2, 1)[:, 1]
    assert (left > 1.9).all() and (right < 0.1).all()
