"""Training objectives: name -> where it is. A row's class takes the `TrainConfig`."""

from __future__ import annotations

from importlib import import_module

from fluxone.errors import pick
from fluxone.train.config import TrainConfig
from fluxone.train.loop import Objective

OBJECTIVES = {
    "autoencoder": "fluxone.train.objectives.autoencoder:AutoEncoderObjective",
    "flow": "fluxone.train.objectives.flow:FlowObjective",
    "guidance": "fluxone.train.objectives.guidance:GuidanceObjective",
    "reading": "fluxone.train.objectives.reading:ReadingObjective",
    "steps": "fluxone.train.objectives.steps:StepObjective",
}


def make(config: TrainConfig) -> Objective:
    """The objective of a run.

    Raises:
        UnknownName: no objective has that name.
    """
    module, _, name = pick(OBJECTIVES, config.objective, "objective").partition(":")
    made: Objective = getattr(import_module(module), name)(config)
    return made
