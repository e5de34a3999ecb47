"""Train the judge of `fluxone evaluate` from nothing, on rendered scenes, and save it.

    python tools/train_judge.py src/fluxone/evaluate/assets/judge.safetensors

This is how the shipped file was made, in about three minutes of one core. Seconds in the log are of processor time.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import replace
from pathlib import Path

import torch

from fluxone.evaluate import judge, learn, scenes
from fluxone.evaluate.network import Looker
from fluxone.train.optim import MuonAdamW, Rates

RATES = Rates(muon=4e-3, adam=3e-3)
HEADS = ("cells", "letters", "stage")
HARD = ("count", "inside", "hiding", "reading")


def optimizer(model: torch.nn.Module) -> learn.Move:
    """Muon for the convolutions, AdamW for what is neither inside nor a matrix."""
    inside = {name for name, p in model.named_parameters() if p.ndim == 4 and not name.startswith(HEADS)}
    return MuonAdamW(model.named_parameters(), inside, RATES).step


def slower(model: torch.nn.Module) -> learn.Move:
    """The same at half the rates."""
    move = optimizer(model)
    return lambda share: move(0.5 * share)


def tell(step: int, loss: float = 0.0) -> None:
    """Log every twentieth step."""
    if step % 20 == 0:
        print(f"{step} {loss:.4f} {time.process_time():.0f} s", flush=True)


def looker(shown: list[scenes.Shown], signs: list[scenes.Shown]) -> Looker:
    """Three courses: on everything, on what the first found hard, and on more of that."""
    course = learn.Course(steps=500, seed=1, optimizer=optimizer, tell=tell)
    found = learn.learn_to_look(shown, course)
    small = [one for one in shown if one.scene.kind in HARD]
    large = [one for one in shown if one.scene.kind not in HARD]
    hard = [*small, *large[: len(small) // 2], *signs[: len(small) // 3]]
    found = learn.learn_to_look(hard, replace(course, steps=220, optimizer=slower), found)
    more = scenes.drawn(1500, seed=3, kinds=HARD, tell=tell)
    last = replace(course, steps=250, seed=2, optimizer=slower)
    return learn.learn_to_look([*more, *shown[:500], *signs[:150]], last, found)


def main() -> None:
    """Draw, train, save."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    out: Path = parser.parse_args().out
    torch.set_num_threads(1)
    signs = scenes.drawn(3000, seed=2, kinds=("sign",), tell=tell)
    shown = scenes.drawn(4000, seed=1, tell=tell)
    reader = learn.learn_to_read(signs, learn.Course(steps=260, seed=1, optimizer=optimizer, tell=tell))
    judge.save(judge.Judge(looker(shown, signs), reader), out)


if __name__ == "__main__":
    main()
