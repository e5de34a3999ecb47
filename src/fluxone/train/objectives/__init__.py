"""Training objectives: name -> where it is. A row's class takes the `TrainConfig`."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from fluxone.errors import pick
from fluxone.train.config import TrainConfig
from fluxone.train.loop import Objective

if TYPE_CHECKING:
    from fluxone.train.data.bank import Bank

OBJECTIVES = {
    "autoencoder": "fluxone.train.objectives.autoencoder:AutoEncoderObjective",
    "decoder": "fluxone.train.objectives.decoder:DecoderObjective",
    "flow": "fluxone.train.objectives.flow:FlowObjective",
    "guidance": "fluxone.train.objectives.guidance:GuidanceObjective",
    "guided": "fluxone.train.objectives.guided:GuidedObjective",
    "image": "fluxone.train.objectives.image:ImageObjective",
    "matching": "fluxone.train.objectives.matching:MatchingObjective",
    "reading": "fluxone.train.objectives.reading:ReadingObjective",
    "steps": "fluxone.train.objectives.steps:StepObjective",
}


def make(config: TrainConfig, bank: Bank | None = None) -> Objective:
    """The objective of a run. `bank`: samples that several runs share, for objectives that take one.

    Raises:
        UnknownName: no objective has that name.
    """
    module, _, name = pick(OBJECTIVES, config.objective, "objective").partition(":")
    made: Objective = getattr(import_module(module), name)(config, **({} if bank is None else {"bank": bank}))
    return made
