"""What the judge is taught: the answers are those of the pictures, and learning lowers the loss."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

pytest.importorskip("resvg_py", reason="the storybook extra is not installed")

from fluxone.errors import BadWeights
from fluxone.evaluate import judge, learn, scenes
from fluxone.evaluate.network import GRID, HIGH, WIDE, Looker, Reader, cut
from fluxone.evaluate.truth import COLOURS, NAMES, STAGES
from fluxone.storybook.canvas import SPAN


def silent(*numbers: float) -> None:
    """Tell nobody."""


def adam(model: nn.Module) -> learn.Move:
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)

    def move(share: float) -> None:
        optimizer.step()

    return move


@pytest.fixture(scope="module")
def shown() -> list[scenes.Shown]:
    return scenes.drawn(10, seed=5, tell=silent)


@pytest.fixture(scope="module")
def signs() -> list[scenes.Shown]:
    return scenes.drawn(40, seed=6, kinds=("sign",), tell=silent)


def test_scenes_are_the_same_again(shown: list[scenes.Shown]) -> None:
    again = scenes.drawn(10, seed=5, tell=silent)
    assert [one.scene for one in again] == [one.scene for one in shown]
    assert all((a.picture == b.picture).all() for a, b in zip(again, shown, strict=True))


def test_the_columns_spell_the_word(signs: list[scenes.Shown]) -> None:
    for one in signs:
        sign = scenes.sign_of(one.scene)
        middle, half = torch.tensor([sign.x, sign.y]) / SPAN, torch.tensor([WIDE, HIGH]) / 2
        columns = learn.columns(scenes.letters(sign), torch.cat([middle - half, middle + half]))
        assert judge.spelt(columns.tolist()) == sign.text.lower()


@pytest.mark.parametrize(("scale", "shift"), [(1.0, (0.0, 0.0)), (0.9, (0.1, -0.02))])
def test_the_cells_are_where_things_are(
    shown: list[scenes.Shown], scale: float, shift: tuple[float, float]
) -> None:
    count = len(shown)
    heat, names, colours = learn.answers(shown, torch.full((count, 1), scale), torch.tensor([shift] * count))
    for i, one in enumerate(shown):
        for spot in one.spots:
            column, row = (int((at - by) / scale * GRID) for at, by in zip((spot.x, spot.y), shift, strict=True))
            if 0 <= column < GRID and 0 <= row < GRID:
                assert heat[i, row, column] == 1
                assert NAMES[int(names[i, row, column])] == spot.name
                assert COLOURS[int(colours[i, row, column])] == spot.colour
        assert int((heat[i] == 1).sum()) <= len(one.spots)


def test_a_cut_is_the_part_of_the_picture() -> None:
    picture = torch.zeros(1, 3, 128, 128)
    picture[..., 40:60, 64:] = 1
    part = cut(picture, torch.tensor([[0.08, 40 / 128, 0.92, 60 / 128]]))
    assert part[..., :54].max() < 0.01 and part[0, 0, 3:-3, 58:].min() > 0.99


def course(steps: int, taught: list[float]) -> learn.Course:
    def tell(step: int, loss: float) -> None:
        taught.append(loss)

    return learn.Course(steps=steps, seed=0, optimizer=adam, tell=tell)


def test_learning_lowers_the_loss(shown: list[scenes.Shown], signs: list[scenes.Shown]) -> None:
    looked: list[float] = []
    assert isinstance(learn.learn_to_look(shown, course(6, looked)), Looker)
    assert looked[-1] < 0.8 * looked[0]
    read: list[float] = []
    assert isinstance(learn.learn_to_read(signs, course(6, read)), Reader)
    assert read[-1] < 0.8 * read[0]


def test_a_judge_is_saved_and_read_again(tmp_path_factory: pytest.TempPathFactory) -> None:
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("judge") / "judge.safetensors"
    first = judge.Judge(Looker(len(NAMES), len(COLOURS), len(STAGES)), Reader())
    judge.save(first, path)
    second = judge.load(path)

    def all_weights(one: judge.Judge) -> list[Tensor]:
        return [*one.looker.state_dict().values(), *one.reader.state_dict().values()]

    for a, b in zip(all_weights(first), all_weights(second), strict=True):
        torch.testing.assert_close(a, b, atol=1e-3, rtol=1e-3)


def test_another_judge_is_refused(tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("judge") / "judge.safetensors"
    judge.save(judge.Judge(Looker(len(NAMES) + 1, len(COLOURS), len(STAGES)), Reader()), path)
    with pytest.raises(BadWeights, match="not this judge"):
        judge.load(path)
