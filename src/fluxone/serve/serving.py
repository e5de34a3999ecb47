"""Which model serves what, and at what size: what all dialects ask of the models that are loaded.

A picture that is much larger than what a model was made for is drawn at the model's own size, in the aspect that was
asked for, and scaled: `details` say so.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass, replace

import sqlalchemy as sa

from fluxone.errors import BadRequest, FluxoneError, pick
from fluxone.geometry import Resolution
from fluxone.parallel import TENSOR
from fluxone.request import ROOM, Request
from fluxone.serve.engine import Drawing
from fluxone.serve.jobs import Jobs, Order
from fluxone.serve.keys import Keys
from fluxone.serve.metrics import Metrics
from fluxone.serve.pictures import Limits
from fluxone.serve.settings import Settings
from fluxone.serve.task import Lora
from fluxone.ultra import TIMES
from fluxone.variants import Kind, Variant

LOADING = 5  # s, after which models may be loaded
ULTRA = TIMES**2  # times a model's own area
CLIENT_SEEDS = 2**31  # seeds are chosen below: every client can say them again


class NoModel(FluxoneError):
    """No model that is loaded can do it."""


class NotReady(FluxoneError):
    """The models are still being loaded, or could not be."""

    def __init__(self, trouble: str | None) -> None:
        super().__init__(f"the models could not be loaded: {trouble}" if trouble else "the models are being loaded")
        self.retry_after = LOADING


@dataclass(frozen=True, kw_only=True)
class Want:
    """What a request needs of a model.

    Attributes:
        names: of models that are wanted, the best first.
        needs: what it must take; None draws from words.
        instead: whether a model that needs nothing besides words will do too.
        shows: what its control pictures must show: `depth`, `canny`.
        quick: whether few steps are wanted.
    """

    names: tuple[str, ...] = ()
    needs: Kind | None = None
    instead: bool = False
    shows: str = ""
    quick: bool = False

    def rank(self, variant: Variant) -> tuple[float, ...]:
        """Less is better: it is of few steps only if that is wanted, and takes little that is not asked for."""
        other = self.needs is not None and self.needs not in variant.takes  # a network beside it would do it
        return (other, variant.steps if self.quick else not variant.guided, len(variant.takes))


@dataclass(frozen=True, kw_only=True)
class Serving:
    """Everything that a dialect needs, one a server."""

    settings: Settings
    engine: Drawing
    database: sa.Engine
    jobs: Jobs
    keys: Keys
    metrics: Metrics

    @property
    def limits(self) -> Limits:
        """Of the pictures in requests."""
        return Limits(megapixels=self.settings.megapixels, reachable=self.settings.reachable)

    def choose(self, want: Want) -> str:
        """The model that serves: the first of those wanted by name that will do, else the one that suits best.

        Raises:
            NoModel: none will do.
            NotReady: none is there yet.
        """
        if not (state := self.engine.state()).ready:
            raise NotReady(state.trouble)
        table = self.engine.variants()
        for name in want.names:
            if name in table and (self._fits(name, want) or want.instead):
                return name
        for wish in (want, replace(want, needs=None)) if want.instead else (want,):
            if fitting := [name for name in table if self._fits(name, wish)]:
                return min(fitting, key=lambda name: want.rank(table[name]))
        kind = f"takes a {want.needs.value}" if want.needs else "draws from words alone"
        what = f"{kind} of {want.shows}" if want.shows else kind
        hint = f"start the server with --model {want.names[0] if want.names else 'dev'}"
        raise NoModel(f"no loaded model {what}", hint=hint)

    def _fits(self, model: str, want: Want) -> bool:
        variant, beside = self.engine.variants()[model], self.engine.beside(model)
        if want.needs is Kind.CONTROL and beside.controlnets:
            return True
        if want.needs is Kind.PROMPT and beside.looks:
            return True
        if beside.controlnets or (want.needs is None and variant.wide):
            return False  # it cannot draw without its pictures
        shown = not (want.shows and variant.maps) or want.shows in variant.maps
        return want.needs is None or (want.needs in variant.takes and shown)

    def variant(self, model: str) -> Variant:
        """The row of a loaded model."""
        return pick(self.engine.variants(), model, "model")

    def lora(self, name: str, scale: float) -> Lora:
        """A LoRA that the operator has given a name.

        Raises:
            BadRequest: it would work beside weights that are shared out.
            UnknownName: there is none.
        """
        if self.settings.parallel == TENSOR:
            found = "LoRAs cannot work here: the models' weights are shared out (parallel = \"tensor\")"
            raise BadRequest(found, hint="leave them out, or share tokens: ulysses or gather")
        return pick(self.settings.finetunes, name.rpartition("/")[2], "finetune"), scale

    def order(self, endpoint: str, model: str, request: Request, notes: Sequence[str] = ()) -> Order:
        """An order for one picture of a request, its seed chosen and its size what the model can draw.

        Raises:
            UserError: the model cannot draw it.
        """
        sized, more = fitted(request, self.variant(model))
        resolved = self.engine.resolve(model, sized)
        details = {"model": model, "drawn_at": str(resolved.resolution), "notes": [*notes, *more]}
        return Order(endpoint=endpoint, model=model, request=resolved, details=details)


def fitted(request: Request, variant: Variant) -> tuple[Request, list[str]]:
    """The request at a size that the variant can draw, and what is to be said of it."""
    wanted = request.resolution
    given = request.init or request.control or request.references
    times, room = (1, ROOM) if request.ultra is None else (ULTRA, ULTRA)
    if wanted is None or given or wanted.width * wanted.height <= room * variant.size**2:
        return request, []
    drawn = Resolution.from_aspect(f"{wanted.width}:{wanted.height}", times * variant.size**2)
    return replace(request, resolution=drawn, frame=wanted), [f"drawn at {drawn} and scaled to {wanted}"]


def seeded(seed: int | None) -> int:
    """The seed, or one that is chosen."""
    return secrets.randbelow(CLIENT_SEEDS) if seed is None else seed

