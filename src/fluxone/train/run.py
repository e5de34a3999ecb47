"""`fluxone train CONFIG.toml`: read the recipe, make the objective, run the loop."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from fluxone.parallel import leave
from fluxone.train import config as configs
from fluxone.train import loop, objectives
from fluxone.train.config import TrainConfig
from fluxone.train.export import PARTS, export, export_adapters, export_redux
from fluxone.train.group import join


def train(path: Path, *, overrides: Mapping[str, Any] | None = None, report: Callable[[str], None]) -> Path:
    """Train what the TOML file describes, continuing from its last checkpoint; returns the run's folder.

    Raises:
        UserError: the file or one of its values is not usable.
        BrokenModel: the loss became NaN or infinite.
    """
    config = configs.read(path, overrides)
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # spinning threads starve the other process of its core
    torch.set_num_threads(config.threads)
    folder = loop.run(config, objectives.make(config), report=report)
    first = join(config.device).first
    leave()
    if config.export and first:
        write(config, Path(config.export))
        report(f"wrote {config.export}")
    return folder


def write(config: TrainConfig, out: Path) -> Path:
    """A finished run's weights in the layout in which they are used."""
    if config.model.rank:
        return export_adapters(config, out)
    if config.objective == "image":
        return export_redux(config, out)
    return export(config, finished(config), out)


def finished(config: TrainConfig) -> list[str]:
    """What a finished run's model is made of: frozen parts from where it started, the others from the run."""
    frozen = config.model.frozen
    whole = [run for run in config.model.start if run.rpartition(":")[2] not in PARTS]
    single = [run for run in config.model.start if run.rpartition(":")[2] in frozen]
    return [*(f"{run}:{part}" for run in whole for part in frozen), *single, config.out]
