"""The mini's objectives on tiny shapes: they learn, resume exactly, and their model folder is what was trained."""

from __future__ import annotations

from dataclasses import replace
from itertools import groupby, pairwise
from pathlib import Path

import pytest
import torch

from fluxone import storybook
from fluxone.assembly import assemble
from fluxone.conditions.redux import taken_in
from fluxone.conditions.reference import offset, positions
from fluxone.errors import BadFile, BadRequest, BadWeights
from fluxone.lora.adapters import Strength
from fluxone.lora.load import load_lora
from fluxone.nn import tokens
from fluxone.recipe import Recipe
from fluxone.storybook.pairs import pair
from fluxone.train import checkpoint, loop, lowrank, objectives
from fluxone.train import export as export_module
from fluxone.train import tokenizer as words
from fluxone.train.config import Data, Model, TrainConfig
from fluxone.train.data.answers import LETTERS, survey
from fluxone.train.data.batch import Batch
from fluxone.train.data.scenes import draw, nth, pixels, world_of
from fluxone.train.data.tasks import TASKS, Rows, referring
from fluxone.train.data.views import edited
from fluxone.train.export import export, export_adapters, load_average
from fluxone.train.objectives.autoencoder import compare
from fluxone.train.objectives.flow import FLAT, VALIDATION_SIGMAS, FlowObjective, changed, drawn_error, stratified
from fluxone.train.objectives.guidance import GuidanceObjective
from fluxone.train.objectives.guided import GuidedObjective
from fluxone.train.objectives.image import ImageObjective
from fluxone.train.objectives.steps import TOLD, StepObjective
from fluxone.train.optim import Rates
from fluxone.train.parts import transformer
from fluxone.train.run import finished, write
from fluxone.weights.load import load_bundle
from fluxone.weights.redux import load_redux

pytest.importorskip("resvg_py")


def quiet(_line: str) -> None:
    """Reports nothing."""


DATA = Data(
    stages=("snow", "beach"), kinds={"one": 1.0}, size=32, crop=32, scenes=64, first_scenes=32,
)  # fmt: skip
MODEL = Model(
    channels=(8, 8, 8, 8), groups=4, hidden=32, heads=2, axes=(4, 6, 6), double_blocks=1, single_blocks=1,
    text_hidden=24, text_layers=1, text_heads=2, text_mlp=32, clip_hidden=16, clip_layers=1, clip_heads=2,
    clip_mlp=16, text_tokens=16,
)  # fmt: skip


WIDE = 256  # no layer's change has a rank above it


def config(objective: str, out: Path, steps: int, **changes: object) -> TrainConfig:
    made = TrainConfig(
        objective=objective, out=str(out), steps=steps, batch=8, autocast=False, save_every=2, sheet_every=10**6,
        validate_every=10**6, data=DATA, model=MODEL, rates=Rates(warmup=2),
    )  # fmt: skip
    return replace(made, **changes)  # type: ignore[arg-type]


def train(made: TrainConfig) -> Path:
    return loop.run(made, objectives.make(made), report=quiet)


def numbers(objective: FlowObjective, prompt: str) -> torch.Tensor:
    """A prompt as the encoders take it."""
    return torch.tensor(words.encode(objective.tokenizer, [prompt], MODEL.text_tokens))


@pytest.fixture(scope="module")
def autoencoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(config("autoencoder", tmp_path_factory.mktemp("runs") / "autoencoder", 2))


def test_an_autoencoder_that_goes_on_may_be_held_near_where_it_was(autoencoder: Path, tmp_path: Path) -> None:
    def moved(factor: float) -> tuple[float, float]:
        made = config("autoencoder", tmp_path / str(factor), 6)
        made = replace(made, model=replace(MODEL, start=(str(autoencoder),)), weights={"moved": factor, "kl": 0.0})
        trainer = loop.Trainer(made, objectives.make(made), quiet)
        first = float(trainer.objective.loss(0, slice(0, 8))["moved"].detach())
        while not trainer.finished:
            trainer.advance()
        return first, float(trainer.objective.loss(0, slice(0, 8))["moved"].detach())

    began, loose = moved(1e-6)
    assert began == 0
    assert loose > 2 * moved(10.0)[1] > 0


def test_structure_is_seen_in_the_dark() -> None:
    dark = torch.full((1, 3, 16, 16), -0.9)
    eye = dark.clone()
    eye[..., 6:9, 6:9] = -0.98
    bright = torch.ones(1, 3, 16, 16)
    blot = bright.clone()
    blot[..., 6:9, 6:9] = 0.0
    lost_eye, lost_blot = (compare(*pair) for pair in ((dark, eye), (bright, blot)))
    share = {name: float(lost_eye[name] / lost_blot[name]) for name in ("l1", "structure")}
    assert share["structure"] > 2 * share["l1"]
    assert float(compare(eye, eye)["structure"]) == pytest.approx(0, abs=1e-5)


def test_a_decoder_learns_from_drawn_latents_and_nothing_else_moves(autoencoder: Path, tmp_path: Path) -> None:
    drew = train(flow(autoencoder, "drew", 2))
    made = config("decoder", tmp_path / "decoder", 6)
    rests = ("transformer", "t5", "clip")
    made = replace(made, model=replace(MODEL, autoencoder=str(autoencoder), start=(str(drew),), frozen=rests))
    trainer = loop.Trainer(made, objectives.make(made), quiet)
    assert all(name.startswith("autoencoder.decoder.") for name in trainer.params)
    first = float(trainer.objective.loss(0, slice(0, 8))["loss"].detach())
    while not trainer.finished:
        trainer.advance()
    assert float(trainer.objective.loss(0, slice(0, 8))["loss"].detach()) < first
    with torch.no_grad():
        assert trainer.objective.validate().keys() == {"encoded", "drawn"}
    before, after = (
        export_module.autoencoder(replace(MODEL, autoencoder=str(place))) for place in (autoencoder, trainer.folder)
    )
    assert before.shape == after.shape
    for name, value in before.state_dict().items():
        assert torch.equal(value, after.state_dict()[name]) is name.startswith("encoder"), name


def test_an_autoencoder_whose_encoder_rests_has_it_still(autoencoder: Path, tmp_path: Path) -> None:
    made = config("autoencoder", tmp_path / "decoder", 3)
    run = train(replace(made, model=replace(MODEL, start=(str(autoencoder),), frozen=("encoder",))))
    before, after = (export_module.autoencoder(replace(MODEL, autoencoder=str(place))) for place in (autoencoder, run))
    for name, value in before.state_dict().items():
        assert torch.equal(value, after.state_dict()[name]) is name.startswith("encoder"), name


def flow(autoencoder: Path, name: str, steps: int) -> TrainConfig:
    made = config("flow", autoencoder.parent / name, steps)
    return replace(made, model=replace(MODEL, autoencoder=str(autoencoder)))


@pytest.fixture(scope="module")
def trained(autoencoder: Path) -> Path:
    return train(flow(autoencoder, "flow", 4))


def test_reading_learns(tmp_path: Path) -> None:
    made = config("reading", tmp_path, 30, batch=32)
    objective = objectives.make(made)
    trainer = loop.Trainer(replace(made, save_every=10**6), objective, quiet)
    with torch.no_grad():
        before = objective.validate()["loss"]
    for _ in range(29):
        trainer.advance()
    with torch.no_grad():
        assert objective.validate()["loss"] < 0.7 * before


def test_flow_resumes_exactly_from_the_shared_pool(autoencoder: Path, trained: Path) -> None:
    half = flow(autoencoder, "half", 4)
    trainer = loop.Trainer(half, objectives.make(half), quiet)
    for _ in range(3):  # its checkpoint is at 2
        trainer.advance()
    train(half)
    one, other = checkpoint.load(trained), checkpoint.load(Path(half.out))
    assert one is not None
    assert other is not None
    assert one[1]["step"] == other[1]["step"] == 4
    for group, rows in one[0].items():
        assert all(torch.equal(value, other[0][group][name]) for name, value in rows.items()), group
    assert len(list((autoencoder.parent / "latents").iterdir())) == 1


def test_what_is_frozen_must_have_been_learnt_before(autoencoder: Path, trained: Path) -> None:
    made = flow(autoencoder, "resting", 1)
    frozen = replace(made, model=replace(made.model, start=(str(trained),), frozen=("t5", "clip")))
    resting = train(frozen)
    train(replace(frozen, out=f"{resting}-on", model=replace(frozen.model, start=(str(trained), str(resting)))))
    with pytest.raises(BadRequest, match="t5 is frozen, and nothing that the run starts from has it"):
        objectives.make(replace(frozen, model=replace(frozen.model, start=(str(resting),))))


def test_guidance_starts_as_the_teacher_and_moves_only_the_transformer(autoencoder: Path, trained: Path) -> None:
    made = flow(autoencoder, "guidance", 4)
    made = replace(made, objective="guidance", model=replace(made.model, start=(str(trained),), frozen=("t5", "clip")))
    objective = objectives.make(made)
    assert isinstance(objective, GuidanceObjective)
    assert set(objective.modules()) == {"transformer"}
    text = objective.read(numbers(objective, "a red cat in the snow"))
    x, sigma = torch.randn(1, 4, 64), torch.tensor([0.5])
    same = [objective.velocity(x, sigma, *text, torch.ones(1), flux=f) for f in (objective.flux, objective.teacher)]
    assert torch.equal(*same)
    assert float(objective.loss(0, slice(0, 8))["loss"].detach()) > 0
    with torch.no_grad():
        assert list(objective.validate()) == [f"flow@{level}" for level in VALIDATION_SIGMAS]
        assert objective.sheet().width > 8 * DATA.size


@pytest.mark.parametrize(("task", "channels"), [("edit", 64), ("depth", 128)])
def test_guidance_on_the_way_leads_from_silence_to_what_is_said(
    autoencoder: Path, trained: Path, task: str, channels: int
) -> None:
    made = flow(autoencoder, f"guided-{task}", 4)
    model = replace(made.model, start=(str(trained),), frozen=("t5", "clip"), in_channels=channels, rank=4)
    data = replace(DATA, task=task, scenes=32)
    objective = objectives.make(replace(made, objective="guided", data=data, model=model))
    assert isinstance(objective, GuidedObjective)
    with torch.no_grad():
        for part in (*objective.flux.parameters(), *objective.modules()["lora"].parameters()):
            part.add_(0.1 * torch.randn_like(part))  # other than the network that it starts from
    batch = objective._validation(4)
    x, sigma, told = torch.randn(4, 4, 64), torch.full((4,), 0.5), torch.tensor([1.0, 1.0, 2.0, 3.0])
    text, empty = objective.read(batch.ids), objective.read(objective.empty.expand(4, -1))
    with torch.no_grad():
        own = objective.velocity(x, sigma, *text, torch.ones(4), given=batch)
        silent = objective.velocity(x, sigma, *empty, torch.ones(4), given=batch)
        added = objective._urged(batch, text, x, sigma, told, slice(2, None))
    assert torch.allclose(added, (told - 1)[2:, None, None] * (own - silent)[2:], atol=1e-5)
    assert added.abs().max() > 1e-3
    terms = objective.loss(1, slice(0, 8))
    terms["loss"].backward()
    assert any(p.grad is not None and p.grad.any() for p in objective.modules()["lora"].parameters())


@pytest.mark.parametrize("task", TASKS)
def test_every_task_hears_what_it_is_given(autoencoder: Path, task: str) -> None:
    made = flow(autoencoder, task, 1)
    channels = {"fill": 384, "depth": 128, "canny": 128, "pose": 128, "control": 128}.get(task, 64)
    data = replace(DATA, task=task, scenes=32)
    objective = FlowObjective(replace(made, data=data, model=replace(made.model, in_channels=channels)))
    terms = objective.loss(1, slice(0, 8))
    terms["loss"].backward()
    assert torch.isfinite(terms["loss"])
    rows = objective._validation(2)
    assert (rows.reference is not None) == (task in ("edit", "kontext"))
    assert (rows.channels is not None) == (channels > 64)
    if rows.channels is not None:
        assert rows.channels.shape[-1] == channels - 64
    x, sigma, told = torch.randn(2, 4, 64), torch.full((2,), 0.5), torch.ones(2)
    for part in objective.flux.modules():  # a fresh network says zero whatever it hears
        if isinstance(part, torch.nn.Linear) and not part.weight.any():
            torch.nn.init.normal_(part.weight, std=0.1)
    with torch.no_grad():
        text = objective.read(rows.ids)
        heard = objective.velocity(x, sigma, *text, told, given=rows)
        assert heard.shape == x.shape
        if rows.reference is not None or rows.channels is not None:
            reference, given = (None if p is None else p + 1 for p in (rows.reference, rows.channels))
            other = replace(rows, reference=reference, channels=given)
            assert not torch.allclose(heard, objective.velocity(x, sigma, *text, told, given=other))


@pytest.mark.parametrize(("kind", "count"), [("character", 1), ("both", 2), ("pose", 1)])
def test_pairs_give_their_references_as_the_pipeline_places_them(autoencoder: Path, kind: str, count: int) -> None:
    made = flow(autoencoder, f"pairs-{kind}", 1)
    data = replace(DATA, scenes=32, first_scenes=32)
    material = FlowObjective(replace(made, data=data)).material
    batch = referring(kind)(material, Rows(numbers=[3, 5]))
    pairs = [pair(number, material.world, kinds={kind: 1.0}) for number in (3, 5)]
    assert batch.reference is not None and batch.places is not None
    assert batch.reference.shape == (2, 4 * count, 64)
    assert torch.equal(batch.places, torch.cat([positions((2, 2), place) for place in offset([(2, 2)] * count)]))
    assert [view.mode for view in pairs[0].references] == ["pose" if kind == "pose" else "rgb"] * count
    for row, found in enumerate(pairs):
        first = storybook.render(found.references[0].scene, DATA.size, mode=found.references[0].mode)
        latent = material.encoder.encode(pixels(first)[None])
        assert torch.allclose(batch.reference[row, :4], tokens.pack(latent)[0], atol=2e-2)
        assert batch.prompts[row] == found.text or kind == "character"


def test_photographs_show_the_same_scenes_and_plain_captions_stay(autoencoder: Path) -> None:
    objective = FlowObjective(flow(autoencoder, "tasks", 1))

    def of(task: str, step: int) -> Batch:
        return TASKS[task](objective.material, Rows(numbers=[0, 1, 2, 3], step=step))

    text, photo = of("text", 0), of("photo", 0)
    assert text.prompts == photo.prompts and torch.equal(text.shown, photo.shown)
    assert not torch.allclose(text.x, photo.x)
    assert of("plain", 0).prompts == of("plain", 1).prompts and torch.equal(of("plain", 0).x, text.x)
    assert of("text", 1).prompts != text.prompts


def test_a_wider_transformer_starts_deaf_to_what_it_is_given(autoencoder: Path, trained: Path) -> None:
    made = flow(autoencoder, "wide", 1)
    model = replace(made.model, in_channels=128, start=(str(trained),))
    objective = FlowObjective(replace(made, data=replace(DATA, task="depth"), model=model))
    base = FlowObjective(replace(made, model=replace(made.model, start=(str(trained),))))
    rows = objective._validation(2)
    text = base.read(rows.ids)
    x, sigma, told = torch.randn(2, 4, 64), torch.full((2,), 0.5), torch.ones(2)
    given = objective.velocity(x, sigma, *text, told, given=rows)
    torch.testing.assert_close(given, base.velocity(x, sigma, *text, told), rtol=1e-5, atol=1e-5)


def test_an_edit_changes_the_scene_and_keeps_to_its_side_of_the_hold_out() -> None:
    world = world_of(replace(DATA, kinds={"one": 0.5, "sign": 0.5}))
    for number in range(30):
        before, after, instruction = edited(world, number)
        assert instruction
        assert (before.items, before.stage) != (after.items, after.stage)
        assert not storybook.held_out(before)
        assert not storybook.held_out(after)
        assert edited(world, number)[2] == instruction


def test_guidance_of_another_teacher_is_learnt_on_from_what_was_learnt(autoencoder: Path, trained: Path) -> None:
    made = flow(autoencoder, "guidance", 4)
    fresh = replace(made.model, start=(str(trained),), frozen=("t5", "clip"))
    student = GuidanceObjective(replace(made, objective="guidance", model=fresh))
    with torch.no_grad():
        student.flux.img_in.weight.mul_(2)
    folder = checkpoint.save(
        trained.parent / "learnt", {"average": {f"transformer.{k}": p for k, p in student.flux.named_parameters()}}, {}
    ).parent
    taught = replace(fresh, start=(str(trained), str(folder)), teacher=(str(trained),))
    objective = GuidanceObjective(replace(made, objective="guidance", model=taught))
    torch.testing.assert_close(objective.flux.img_in.weight, 2 * objective.teacher.img_in.weight)


def test_steps_start_as_the_teacher_told_its_guidance(autoencoder: Path, trained: Path) -> None:
    made = flow(autoencoder, "steps", 2)
    model = replace(made.model, start=(str(trained),), frozen=("t5", "clip"), guided=False)
    made = replace(made, objective="steps", model=model)
    objective = objectives.make(made)
    assert isinstance(objective, StepObjective)
    assert set(objective.modules()) == {"transformer"}
    assert objective.flux.guidance_in is None
    text = objective.read(numbers(objective, "a red cat in the snow"))
    x, sigma, told = torch.randn(1, 4, 64), torch.tensor([0.5]), torch.tensor([TOLD])
    ours, teachers = (objective.velocity(x, sigma, *text, told, flux=f) for f in (objective.flux, objective.teacher))
    torch.testing.assert_close(ours, teachers, rtol=1e-5, atol=1e-6)
    folder = train(made)
    assert finished(made) == [f"{trained}:t5", f"{trained}:clip", str(folder)]
    bundle = load_bundle(str(export(made, finished(made), folder / "model")), recipe=Recipe())
    assert not bundle.variant.guided


def test_adapters_reach_both_kinds_of_blocks() -> None:
    reached = set(lowrank.layers(transformer(MODEL)))
    assert {"single_blocks.0.linear1", "single_blocks.0.linear2", "double_blocks.0.txt_mlp.2", "img_in"} <= reached
    assert not any("mod" in name for name in reached)


@pytest.mark.parametrize(
    ("objective", "task", "channels", "whole"), [("flow", "depth", 128, False), ("steps", "text", 64, True)]
)
def test_adapters_are_a_file_that_does_the_same(
    autoencoder: Path, trained: Path, tmp_path: Path, objective: str, task: str, channels: int, whole: bool
) -> None:
    """Beside the base, loaded from the file they were written to, they give the velocity that training saw."""
    base = flow(autoencoder, "flow", 4)
    pipeline = assemble(str(export(base, [str(trained)], tmp_path / "base")), Recipe(device="cpu", dtype="float32"))
    made = flow(autoencoder, f"{objective}-{task}", 3)
    model = replace(made.model, start=(str(tmp_path / "base"),), frozen=("t5", "clip"), in_channels=channels)
    model = replace(model, rank=WIDE if whole else 4, whole=whole)
    data = replace(DATA, task=task, scenes=32)
    made = replace(made, objective=objective, model=model, data=data, export=str(tmp_path / "made.safetensors"), ema=0)
    trainer = loop.Trainer(made, objectives.make(made), quiet)
    for _ in range(made.steps):
        trainer.advance()
    assert {name.split(".")[0] for name in trainer.params} <= {"lora", "answer"}
    file = export_adapters(made, tmp_path / "made.safetensors")
    rows = trainer.objective._validation(2)  # type: ignore[attr-defined]
    pipeline.adapters.load(load_lora(file), "made")
    pipeline.adapters.use({"made": Strength()})
    x, sigma, told = torch.randn(2, 4, 64), torch.full((2,), 0.5), torch.ones(2)
    with torch.no_grad():
        txt, pooled = trainer.objective.read(rows.ids)  # type: ignore[attr-defined]
        expected = trainer.objective.velocity(x, sigma, txt, pooled, told, given=rows)  # type: ignore[attr-defined]
        heard = x if rows.channels is None else torch.cat((x, rows.channels), dim=-1)
        ids = tokens.image_ids(2, 2), tokens.text_ids(txt.shape[1])
        found = pipeline.transformer(heard, ids[0], txt, ids[1], sigma, pooled, told)
    torch.testing.assert_close(found, expected, rtol=0.02, atol=0.02)  # the file is bfloat16
    further = objectives.make(replace(made, model=replace(made.model, start=(*made.model.start, made.out))))
    average, _ = checkpoint.load(Path(made.out)) or ({}, {})
    for name, learnt in further.modules()["lora"].named_parameters():
        torch.testing.assert_close(learnt, average["average"][f"lora.{name}"], msg=f"{name} does not go on")
    again = objectives.make(replace(made, model=replace(made.model, adapters=str(file))))
    assert isinstance(again, FlowObjective) and again.adapters is not None
    lowrank.write(again.adapters, tmp_path / "again.safetensors", {}, torch.float32)
    for was, now in zip(load_lora(file).deltas, load_lora(tmp_path / "again.safetensors").deltas, strict=True):
        before, after = (delta.factor.matrix(torch.float32) for delta in (was, now))
        assert was.target == now.target
        torch.testing.assert_close(after, before, rtol=1e-3, atol=1e-3 * float(before.abs().max()))
    with pytest.raises(BadWeights, match="made for a network 192 wide"):
        objectives.make(replace(made, model=replace(made.model, adapters="mini-schnell")))


@pytest.mark.parametrize(("task", "drop", "weights"), [("text", 0.8, {}), ("plain", 0.0, {"words": 1.0, "flow": 0.0})])
def test_an_eye_learns_to_say_pictures_and_is_a_redux_folder(
    autoencoder: Path,
    trained: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    task: str,
    drop: float,
    weights: dict[str, float],
) -> None:
    made = flow(autoencoder, "image", 3)
    model = replace(made.model, start=(str(trained),), frozen=("t5", "clip"))
    data = replace(DATA, task=task, drop=drop, scenes=32)
    made = replace(made, objective="image", model=model, data=data, weights=weights, ema=0)
    trainer = loop.Trainer(made, objectives.make(made), quiet)
    while not trainer.finished:
        trainer.advance()
    objective = trainer.objective
    assert isinstance(objective, ImageObjective)
    assert {name.split(".")[0] for name in trainer.params} == {"eye", "embedder"}
    with monkeypatch.context() as patch:
        patch.setattr("fluxone.train.objectives.image.KEPT", 1)  # forgotten pictures are decoded again
        known, more = objective._validation(2).x, objective._validation(4).x
        torch.testing.assert_close(objective.looked_at(known), objective.looked_at(more)[:2])
    further = ImageObjective(replace(made, model=replace(model, start=(str(trained), made.out))))
    for name, learnt in further.eye.named_parameters():
        average = trainer.ema.average[f"eye.{name}"]
        torch.testing.assert_close(learnt, average, msg=f"{name} does not go on")
    loaded = load_redux(write(made, tmp_path / "redux"), objective.flux.shape, torch.float32)
    rows = objective._validation(2)
    expected, _ = objective.said(rows)
    pictures = [taken_in(picture, loaded.intake) for picture in objective._pictures(rows.x)]
    found = loaded.embedder(loaded.encoder(torch.cat(pictures)))
    torch.testing.assert_close(found, expected[:, MODEL.text_tokens :], rtol=0.05, atol=0.05)  # the folder is bfloat16


def test_the_model_folder_is_what_was_trained(autoencoder: Path, trained: Path, tmp_path: Path) -> None:
    from fluxone.weights.load import load_bundle

    made = flow(autoencoder, "flow", 4)
    folder = export(made, [str(trained)], tmp_path / "model")
    bundle = load_bundle(str(folder), recipe=Recipe(dtype="float32"))
    objective = FlowObjective(replace(made, model=replace(made.model, start=(str(trained),))))
    assert bundle.variant.guided
    prompt = "a blue car on the beach"
    txt, pooled = objective.read(numbers(objective, prompt))
    x, sigma, told = torch.randn(1, 4, 64), torch.tensor([0.7]), torch.ones(1)
    expected = objective.velocity(x, sigma, txt, pooled, told)
    found = bundle.transformer(x, tokens.image_ids(2, 2), txt, tokens.text_ids(txt.shape[1]), sigma, pooled, told)
    torch.testing.assert_close(found, expected, rtol=0.05, atol=0.02)  # the folder is bfloat16


def test_sheet_has_a_picture_for_each_held_out_caption(autoencoder: Path, trained: Path) -> None:
    made = flow(autoencoder, "flow", 4)
    objective = FlowObjective(made)
    with torch.no_grad():
        page = objective.sheet()
        figures = objective.validate()
    assert page.width > 8 * DATA.size
    assert all(value > 0 for value in figures.values())


def test_how_a_scene_is_edited_does_not_depend_on_its_kind() -> None:
    """A scene's number draws its kind, and its edit: were both drawn alike, things alone would hardly change colour."""
    world = replace(storybook.WORLDS["mini"], edits=("colour", "stage"))
    changed: dict[str, list[bool]] = {"one": [], "side": []}
    for number in range(1200):
        before, after, _ = edited(world, number)
        if before.kind in changed and any(t.colour for t in before.facts.things):
            changed[before.kind].append(before.stage == after.stage)
    shares = [sum(rows) / len(rows) for rows in changed.values()]
    assert shares[0] == pytest.approx(shares[1], abs=0.15)


def test_what_is_coloured_or_inked_counts_more() -> None:
    shown = torch.tensor([[[1, 1, 1], [0, 2, 0], [0, 0, 3]]])  # names, colours, letters of three tokens
    v, target = torch.zeros(1, 3, 4), torch.tensor([1.0, 2.0, 3.0]).sqrt()[None, :, None].expand(1, 3, 4)
    even = drawn_error(v, target, shown, {"coloured": 1.0, "inked": 1.0})
    heavy = drawn_error(v, target, shown, {"coloured": 3.0, "inked": 2.0})
    new = torch.tensor([[False, False, True]])
    edited = drawn_error(v, target, shown, {"coloured": 1.0, "inked": 1.0, "changed": 5.0}, new)
    assert float(even) == pytest.approx(2)
    assert float(edited) == pytest.approx((1 + 2 + 3 * 5) / 7)
    assert float(heavy) == pytest.approx((1 * 1 + 3 * 2 + 2 * 3) / 6)


def test_what_an_edit_changes_is_where_the_latents_differ(autoencoder: Path) -> None:
    made = flow(autoencoder, "changed", 1)
    objective = FlowObjective(replace(made, data=replace(DATA, task="edit", scenes=32)))
    batch = objective._validation(8)
    assert batch.reference is not None
    new = changed(batch)
    assert new is not None and new.shape == batch.x.shape[:2] and new.any()
    assert not changed(replace(batch, reference=batch.x)).any()  # type: ignore[union-attr]
    assert changed(replace(batch, reference=None)) is None
    assert changed(replace(batch, reference=torch.cat((batch.x, batch.x), dim=1))) is None


def test_stratified_covers_its_law() -> None:
    count, mean = 1000, 0.3
    sigma = stratified(count, draw(0, 1), mean).sort().values
    even = torch.linspace(0, 1, 9)
    law = FLAT * even + (1 - FLAT) * torch.distributions.Normal(mean, 1.0).cdf(torch.logit(even))
    found = torch.stack([(sigma <= edge).float().mean() for edge in even])
    assert (found - law).abs().max() < 3 / count


def test_answers_know_where_letters_are() -> None:
    world = world_of(replace(DATA, kinds={"sign": 1.0}))
    answers = survey(world)
    for index in range(20):
        scene = nth(world, index)
        (text,) = scene.facts.texts
        grid = answers.letters(scene, 64).view(64, 64)
        row = grid[int(scene.items[0].y * 0.64)]  # type: ignore[union-attr]
        met = [number for number, before in pairwise([*row[row > 0].tolist(), 0]) if number != before]
        wanted = [LETTERS[letter] for letter, _ in groupby(text)]
        assert met == wanted, text


def test_a_run_may_start_from_one_part_of_a_model() -> None:
    bundle = load_bundle("mini", recipe=Recipe(device="cpu", dtype="float32"))
    made, other = type(bundle.transformer)(bundle.transformer.shape), torch.nn.Linear(1, 1)
    meta = load_average({"transformer": made, "t5": other}, ["mini:transformer"])
    for name, value in bundle.transformer.named_parameters():
        assert torch.equal(made.get_parameter(name), value), name
    assert meta["latent"]["scale"] == bundle.autoencoder.shape.scale
    with pytest.raises(BadFile, match="neither a run with a checkpoint nor a model"):
        load_average({"transformer": made}, ["nowhere"])


def test_answers_know_where_things_are() -> None:
    world = world_of(replace(DATA, kinds={"side": 1.0}))
    answers = survey(world)
    names = {number: name for name, number in answers.names.items()}
    for index in range(40):
        scene = nth(world, index)
        relation = [r for r in scene.facts.relations if r.name == "left of"]
        if not relation:
            continue
        grid = answers.grid(scene, 8)[0].view(8, 8)
        left, right = scene.facts.things[relation[0].subject], scene.facts.things[relation[0].other]
        columns = [[c for c in range(8) for r in range(8) if names[int(grid[r, c])] == t.name] for t in (left, right)]
        if left.name != right.name:
            assert max(columns[0]) < min(columns[1])


def test_scenes_by_index_keep_to_their_side_of_the_hold_out() -> None:
    world = storybook.WORLDS["first"]
    assert not any(storybook.held_out(nth(world, i)) for i in range(100))
    assert all(storybook.held_out(nth(world, i, held_out=True)) for i in range(20))
    assert nth(world, 7) == nth(world, 7)


def test_a_world_too_small_to_hold_anything_out_says_so() -> None:
    small = replace(DATA, objects=("cat",), colours=("red",))
    with pytest.raises(BadRequest, match="held out"):
        nth(world_of(small), 0, held_out=True)


def test_draw_is_the_same_again_and_different_elsewhere() -> None:
    assert torch.equal(torch.rand(4, generator=draw(1, 2, 3)), torch.rand(4, generator=draw(1, 2, 3)))
    firsts = {float(torch.rand(1, generator=draw(seed, step))) for seed in range(4) for step in range(-2, 20)}
    assert len(firsts) == 4 * 22
