"""What scripts written for diffusers ask of a pipeline besides pictures: encoded prompts, tiles, where a call is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NoReturn

import torch
from torch import Tensor

from fluxone import arguments
from fluxone.arguments import Prompts
from fluxone.call import Call
from fluxone.errors import BadRequest
from fluxone.job import repeat
from fluxone.nn.autoencoder import TILE
from fluxone.pipeline import Pipeline
from fluxone.spoken import encoded

ELSEWHERE = "say sampler= and schedule= in the call; a model's folder brings its own schedule"


class Scripted:
    """Names that scripts use.

    Attributes:
        pipeline: whose they are.
    """

    pipeline: Pipeline
    _interrupt: bool
    _call: Call | None
    _sigmas: Sequence[float]
    _sigma: float | None

    @torch.no_grad()
    def encode_prompt(
        self,
        prompt: Prompts = None,
        prompt_2: Prompts = None,
        device: torch.device | str | None = None,
        num_images_per_prompt: int = 1,
        prompt_embeds: Tensor | None = None,
        pooled_prompt_embeds: Tensor | None = None,
        max_sequence_length: int | None = None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """What the network reads of prompts, to be given as `prompt_embeds` and `pooled_prompt_embeds`.

        Args:
            device: where to put it; None is the pipeline's.
            max_sequence_length: T5 tokens; None is the variant's own.

        Returns:
            T5's rows (B, T, width), CLIP's vectors (B, width), and the rows' positions (T, 3), which are all 0.

        Raises:
            BadRequest: see the call.
        """
        arguments.whole("num_images_per_prompt", num_images_per_prompt)
        arguments.tensors({"prompt_embeds": prompt_embeds, "pooled_prompt_embeds": pooled_prompt_embeds})
        tokens = max_sequence_length
        if tokens is not None:
            arguments.whole("max_sequence_length", tokens, arguments.MOST_TOKENS)
        embeds = prompt_embeds, pooled_prompt_embeds
        text = encoded(self.pipeline, "prompt", (prompt, prompt_2), (tokens, "off"), embeds)
        text = repeat(text, num_images_per_prompt)
        place = self.pipeline.on_device.device if device is None else device
        txt, pooled = (part.to(place, self.pipeline.dtype) for part in (text.txt, text.pooled))
        return txt, pooled, torch.zeros(txt.shape[1], 3, device=place, dtype=txt.dtype)

    @property
    def interrupt(self) -> bool:
        """Whether the walk ends after the present step; set `_interrupt` in a callback."""
        return self._interrupt

    @property
    def guidance_scale(self) -> float | None:
        """Of the latest call; None is the variant's own."""
        return None if self._call is None else self._call.guidance_scale

    @property
    def joint_attention_kwargs(self) -> dict[str, Any] | None:
        """Of the latest call."""
        said = None if self._call is None else self._call.joint_attention_kwargs
        return None if said is None else dict(said)

    @property
    def num_timesteps(self) -> int:
        """Steps of the present or latest walk."""
        return max(len(self._sigmas) - 1, 0)

    @property
    def current_timestep(self) -> Tensor | None:
        """The noise level at which the present or latest step began, times 1000."""
        return None if self._sigma is None else torch.tensor(self._sigma) * 1000

    @property
    def scheduler(self) -> NoReturn:
        """There is none: a schedule is a list of numbers here, and a sampler a function."""
        raise AttributeError(f"there is no scheduler; {ELSEWHERE}")

    @scheduler.setter
    def scheduler(self, value: object) -> None:
        raise BadRequest(f"the scheduler cannot be replaced by a {type(value).__name__}", hint=ELSEWHERE)

    def enable_vae_tiling(self) -> None:
        """Encode and decode in overlapping tiles."""
        self.pipeline.tile = TILE

    def disable_vae_tiling(self) -> None:
        """Encode and decode in one piece."""
        self.pipeline.tile = None
        self.pipeline.autoencoder.disable_tiling()

    def enable_vae_slicing(self) -> None:
        """Decode the pictures of a batch one by one, which is always done."""
        self.pipeline.autoencoder.enable_slicing()

    def disable_vae_slicing(self) -> None:
        """Decoding stays one by one; encoding takes all pictures at once."""
        self.pipeline.autoencoder.disable_slicing()

    def set_progress_bar_config(
        self, *, disable: bool | None = None, leave: bool | None = None, desc: str | None = None
    ) -> None:
        """Take the call that scripts make: this door shows no bar; `callback_on_step_end` tells of each step."""
