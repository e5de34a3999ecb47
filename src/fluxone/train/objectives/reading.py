"""Teaches the text encoders to read before there are pictures: from the words alone, say what is where.

    caption --T5--> tokens --cross attention from 16 cells--> name and colour in each cell
                           --cross attention from 8 slots--> first, second, ... letter of the sign's text
    caption --CLIP--> pooled --> which names occur

Some texts are edit instructions; they say what they ask for, as if it were in every cell.

A step costs a tenth of a transformer's step, and which colour belongs to which thing, and which thing is on
which side, is what a transformer trained on pictures alone learns last. The reader on top is thrown away.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from PIL.Image import Image
from torch import Tensor, nn

from fluxone import storybook
from fluxone.storybook import Scene
from fluxone.train import tokenizer as tokens
from fluxone.train.config import TrainConfig
from fluxone.train.data.answers import LETTERS, survey
from fluxone.train.data.scenes import draw, nth, world_of
from fluxone.train.parts import caption, pace, text_encoders

SIDE = 4  # cells each way: enough to tell left from right and above from below
SLOTS = 22  # letters of a sign's text that are asked for
WEIGHTS = {"names": 1.0, "colours": 1.0, "letters": 2.0, "bag": 2.0}
INSTRUCTED = 0.15  # share of edit instructions among the captions
VALIDATION_SCENES = 256


class Question(NamedTuple):
    """A text and what it says: numbers of name and colour a cell, of the letters, and which names occur."""

    text: str
    names: Int[Tensor, " cells"]
    colours: Int[Tensor, " cells"]
    letters: Int[Tensor, " slots"]
    bag: Float[Tensor, " names"]


class Reader(nn.Module):
    """Cells that look at the text and say what they would show, and slots that say which letter they are."""

    def __init__(self, hidden: int, heads: int, names: int, colours: int, vec: int) -> None:
        super().__init__()
        self.cells = nn.Parameter(torch.randn(SIDE * SIDE + SLOTS, hidden) * 0.5)
        self.layer = nn.TransformerDecoderLayer(hidden, heads, 2 * hidden, 0.0, batch_first=True, norm_first=True)
        self.names, self.colours = nn.Linear(hidden, names), nn.Linear(hidden, colours)
        self.letters = nn.Linear(hidden, len(LETTERS) + 1)
        self.bag = nn.Linear(vec, names)

    def forward(self, txt: Float[Tensor, "B T D"]) -> tuple[Tensor, Tensor, Tensor]:
        x = self.layer(self.cells.expand(txt.shape[0], -1, -1), txt)
        cells, slots = x[:, :-SLOTS], x[:, -SLOTS:]
        return self.names(cells), self.colours(cells), self.letters(slots)


class ReadingObjective:
    """Trains T5 and CLIP encoders of the mini's shape on captions of scenes."""

    def __init__(self, config: TrainConfig) -> None:
        torch.manual_seed(config.seed)
        self.config, self.length = config, config.model.text_tokens
        self.world = world_of(config.data)
        self.answers = survey(self.world)
        self.tokenizer = tokens.build(storybook.vocabulary(self.world))
        self.t5, self.clip = text_encoders(config.model, self.tokenizer)
        shape = config.model
        self.reader = Reader(
            shape.text_hidden,
            shape.text_heads,
            len(self.answers.names),
            len(self.answers.colours),
            shape.clip_hidden,
        )
        self.weights = WEIGHTS | config.weights
        self.device = torch.device(config.device)
        for part in self.modules().values():
            part.to(self.device)

    def modules(self) -> dict[str, nn.Module]:
        return {"t5": self.t5, "clip": self.clip, "reader": self.reader}

    def muon(self, name: str, parameter: nn.Parameter) -> bool:
        return parameter.ndim == 2 and ("block" in name or "layer" in name) and "relative" not in name

    def pace(self, name: str) -> float:
        return pace(name, self.t5.shape)

    def meta(self) -> dict[str, Any]:
        return {}

    def loss(self, step: int, share: slice) -> dict[str, Tensor]:
        rng = draw(self.config.seed, step, share.start)
        numbers = range(step * self.config.batch + share.start, step * self.config.batch + share.stop)
        instructed = torch.rand(len(numbers), generator=rng) < INSTRUCTED
        scenes = [nth(self.world, number) for number in numbers]
        return self._terms(
            [
                self._instruction(scene, number) if told else self._caption(scene, rng)
                for scene, number, told in zip(scenes, numbers, instructed, strict=True)
            ]
        )

    def _caption(self, scene: Scene, rng: torch.Generator | None = None) -> Question:
        """A caption of the scene and what it shows."""
        names, colours = self.answers.grid(scene, SIDE)
        text = scene.caption if rng is None else caption(scene, rng)
        return Question(text, names, colours, spelt("".join(scene.facts.texts)), self.answers.bag(scene))

    def _instruction(self, scene: Scene, seed: int) -> Question:
        """An instruction and what it asks for, as if it were everywhere."""
        edited, text = storybook.edit(scene, seed, world=self.world)
        changed = [new for new in edited.facts.things if new not in scene.facts.things]
        said = storybook.words(text)
        name = f"stage {edited.facts.stage}" if edited.facts.stage != scene.facts.stage else ""
        name = next((new.name for new in changed if f" {new.name}" in text), name)  # its plural, too
        colour = next((new.colour for new in changed if new.colour in said), "")
        names = torch.full((SIDE * SIDE,), self.answers.names.get(name, 0))
        colours = torch.full((SIDE * SIDE,), self.answers.colours.get(colour, 0))
        bag = F.one_hot(names[0], len(self.answers.names)).float()
        return Question(text, names, colours, spelt("".join(new.text for new in changed)), bag)

    def _terms(self, questions: list[Question]) -> dict[str, Tensor]:
        captions = [question.text for question in questions]
        names_, colours_, letters_, bag = (
            torch.stack(column).to(self.device)
            for column in zip(*(question[1:] for question in questions), strict=True)
        )
        ids = torch.tensor(tokens.encode(self.tokenizer, captions, self.length), device=self.device)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.config.autocast):
            names, colours, letters = self.reader(self.t5(ids))
            named = self.reader.bag(self.clip(ids)[1])
        terms = {
            "names": F.cross_entropy(names.float().flatten(0, 1), names_.flatten()),
            "colours": F.cross_entropy(colours.float().flatten(0, 1), colours_.flatten()),
            "letters": F.cross_entropy(letters.float().flatten(0, 1), letters_.flatten()),
            "bag": F.binary_cross_entropy_with_logits(named.float(), bag),
        }
        terms["loss"] = torch.stack([self.weights[name] * value for name, value in terms.items()]).sum()
        return terms

    def validate(self) -> dict[str, float]:
        scenes = [nth(self.world, i, held_out=True) for i in range(VALIDATION_SCENES)]
        terms = self._terms([self._caption(scene) for scene in scenes])
        return {name: float(value) for name, value in terms.items()}

    def sheet(self) -> Image:
        """The name that each cell would show, for a few held-out captions, as shades."""
        scenes = [nth(self.world, i, held_out=True) for i in range(12)]
        captions = [scene.caption for scene in scenes]
        ids = torch.tensor(tokens.encode(self.tokenizer, captions, self.length), device=self.device)
        names, _, _ = self.reader(self.t5(ids))
        shades = (names.float().argmax(-1).cpu() * (255 // len(self.answers.names))).byte().view(-1, SIDE, SIDE)
        large = shades.repeat_interleave(32, 1).repeat_interleave(32, 2)
        pictures = [shade[..., None].expand(-1, -1, 3).numpy() for shade in large]
        return storybook.sheet(pictures, captions, 6)


def spelt(text: str) -> Int[Tensor, " slots"]:
    """Numbers of the first letters of a text, 0 for none."""
    return torch.tensor([LETTERS.get(letter, 0) for letter in text[:SLOTS].ljust(SLOTS, "\0")])
