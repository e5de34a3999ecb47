"""Captions: pictures that have none get one with the name in it, and those that have one keep it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import pytest
from PIL import Image

from fluxone.errors import BadFile, BadRequest
from fluxone.evaluate.judge import Seen
from fluxone.evaluate.labels import TABLES
from fluxone.evaluate.truth import Spot
from fluxone.tune.captions import Subject, described, named, plain, put, wanting
from fluxone.tune.folder import read
from fluxone.tune.reader import asked, reader
from fluxone.tune.telling import teller
from unit.tune import made

ZURI = Subject(name="zuri")


def spot(name: str, colour: str = "", x: float = 0.5, y: float = 0.5, size: float = 0.3, **more: str) -> Spot:
    return Spot(name=name, colour=colour, x=x, y=y, width=size, height=size, details=tuple(more.items()))


class Sees:
    """A judge that sees what it is told to, one picture after the other."""

    tables = TABLES

    def __init__(self, *rows: Seen) -> None:
        self.rows = iter(rows)

    def look(self, pictures: Sequence[object]) -> list[Seen]:
        return [next(self.rows) for _ in pictures]


def seen(*spots: Spot, stage: str = "snow", style: str = "", text: str = "") -> Seen:
    return Seen(spots=spots, stage=stage, style=style, text=text)


def told(subject: Subject, *rows: Seen) -> list[str]:
    return list(teller(subject, Sees(*rows))([Image.new("RGB", (8, 8))] * len(rows)))  # type: ignore[arg-type]


def test_the_judge_names_the_subject_and_says_the_rest() -> None:
    owl = spot("owl", "purple", x=0.3)
    rows = (
        seen(owl, spot("car", "red", x=0.8)),
        seen(owl, spot("star", "yellow", x=0.3, y=0.1), stage="night"),
        seen(owl, spot("balloon", "blue", x=0.6, size=0.1), spot("balloon", "blue", x=0.9, size=0.1), stage="beach"),
        seen(spot("house", "white"), stage="nowhere"),
        seen(owl, spot("banner", "red", x=0.4), text="Stop! now", style="comic"),
    )
    assert told(ZURI, *rows) == [
        "zuri to the left of a red car in the snow",
        "zuri under a yellow star at night",
        "zuri to the left of two blue balloons on a sandy beach",
        "zuri with a white house",
        'zuri next to a red banner that says "Stop! now" in the snow, in comic style',
    ]
    assert told(Subject(), *rows[:1]) == ["a purple owl to the left of a red car in the snow"]
    assert told(Subject(name="lumo", style=True), rows[3], seen(stage="city", text="hi")) == [
        "a white house", 'with the words "hi" in the city',
    ]  # fmt: skip


def test_the_class_says_who_it_is_and_people_do_something() -> None:
    girl, boy = spot("girl", "blue", x=0.2, pose="waving"), spot("boy", "red", x=0.8, size=0.6)
    rows = (seen(girl, boy), seen(girl, boy), seen(boy))
    assert told(Subject(name="zuri", class_word="girl"), *rows)[0] == (
        "zuri waving to the left of a boy in a red shirt in the snow"
    )
    assert told(Subject(name="milo", class_word=""), *rows)[0] == (
        "milo to the right of a girl in a blue shirt in the snow"
    )


@pytest.mark.parametrize(
    ("said", "caption"),
    [
        ("The image shows a young smiling girl on a bench. She is happy.", "zuri on a bench"),
        ("a house and a girl, at night", "a house and zuri, at night"),
        ("Girl with a dog", "zuri with a dog"),
        ("**Zuri reads a book**", "Zuri reads a book"),
        ("a dog in the park", "zuri, a dog in the park"),
        ("", "zuri"),
    ],
)
def test_the_name_comes_into_what_a_model_said(said: str, caption: str) -> None:
    assert named(plain(said), Subject(name="zuri", class_word="girl")) == caption
    assert named(plain(said), Subject()) == plain(said)


def test_a_style_stands_at_the_end() -> None:
    assert named("a car at night", Subject(name="lumo style", style=True)) == "a car at night, lumo style"
    with pytest.raises(BadRequest, match="cannot be told"):
        Subject(name="zuri, milo")


def says(words: str) -> Callable[[Iterable[Image.Image]], Iterator[str]]:
    return lambda pictures: (f"{words} {n}" for n, _ in enumerate(pictures))


def test_captions_that_are_there_stay(tmp_path: Path) -> None:
    made.pictures(tmp_path, 3)
    (tmp_path / "1.txt").unlink()
    (tmp_path / "2.txt").write_text(" \n", encoding="utf-8")
    rows = list(described(wanting(tmp_path, force=False), says("a place"), ZURI))
    assert [(row.state, row.text) for row in rows] == [
        ("kept", "red car"), ("new", "zuri, a place 0"), ("new", "zuri, a place 1"),
    ]  # fmt: skip
    for row in rows[1:]:
        put(row)
    assert [example.text for example in read(tmp_path)] == [row.text for row in rows]
    assert [row.state for row in wanting(tmp_path, force=True)] == ["other"] * 3
    assert not list(tmp_path.glob("*.part"))


def test_what_cannot_be_captioned_is_said(tmp_path: Path) -> None:
    made.pictures(tmp_path, 2)
    Image.new("RGB", (8, 8)).save(tmp_path / "0.jpg")
    (tmp_path / "0.txt").unlink()
    with pytest.raises(BadRequest, match=r"0\.jpg and 0\.png would share 0\.txt"):
        wanting(tmp_path, force=False)
    (tmp_path / "metadata.jsonl").write_text('{"file_name": "0.png"}\n', encoding="utf-8")
    with pytest.raises(BadRequest, match=r"0\.png has no caption in metadata\.jsonl"):
        wanting(tmp_path, force=True)


@pytest.fixture(scope="module")
def talker(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny LLaVA of random weights, as transformers saves it."""
    transformers = pytest.importorskip("transformers")
    from tokenizers import Tokenizer, models, pre_tokenizers

    words = ["<pad>", "</s>", "<unk>", "<image>", "zuri", *"abcdefghijklmnopqrstuvwxyz"]
    backend = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    backend.add_special_tokens(["<image>"])
    tokens = transformers.PreTrainedTokenizerFast(
        tokenizer_object=backend, pad_token="<pad>", eos_token="</s>", unk_token="<unk>",
        additional_special_tokens=["<image>"],
    )  # fmt: skip
    size = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    vision = transformers.CLIPVisionConfig(**size, image_size=16, patch_size=8, projection_dim=16)
    text = transformers.LlamaConfig(**size, num_key_value_heads=2, vocab_size=len(words), max_position_embeddings=512)
    config = transformers.LlavaConfig(vision_config=vision, text_config=text, image_token_index=3, image_seq_length=4)
    folder = tmp_path_factory.mktemp("talker")
    transformers.LlavaForConditionalGeneration(config).save_pretrained(folder)
    template = (
        "{% for m in messages %}{% for c in m['content'] %}"
        "{% if c['type'] == 'image' %}<image> {% else %}{{ c['text'] }} {% endif %}{% endfor %}{% endfor %}"
    )
    eye = transformers.CLIPImageProcessor(size={"shortest_edge": 16}, crop_size={"height": 16, "width": 16})
    transformers.LlavaProcessor(
        image_processor=eye, tokenizer=tokens, patch_size=8, vision_feature_select_strategy="default",
        chat_template=template, num_additional_image_tokens=1,
    ).save_pretrained(folder)  # fmt: skip
    return folder


def test_a_model_of_ones_own_describes_pictures(talker: Path) -> None:
    describe = reader(talker, ZURI, "cpu")
    texts = list(describe([Image.new("RGB", (40, 30), colour) for colour in ("red", "blue")]))
    assert len(texts) == 2 and all(isinstance(text, str) and "zuri is called" not in text for text in texts)
    assert list(describe([Image.new("RGB", (40, 30), "red")])) == texts[:1]


def test_folders_that_hold_none_are_said(tmp_path: Path) -> None:
    with pytest.raises(BadFile, match="there is no folder"):
        reader(tmp_path / "none", ZURI, "cpu")
    with pytest.raises(BadFile, match="holds no vision-language model"):
        reader(tmp_path, ZURI, "cpu")


def test_a_model_is_asked_for_what_may_change() -> None:
    assert "The girl is called zuri" in asked(Subject(name="zuri", class_word="girl"))
    assert "how it is drawn" in asked(Subject(name="lumo", style=True)) and "called" not in asked(Subject())
