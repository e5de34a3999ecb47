"""A network and what is learnt beside it in rows, of which each process keeps its own: PyTorch's FSDP2 and DCP.

    rows --of all processes--> a whole block --forward, backward--> rows again        gradients: sums, in rows
    shards.json -> shards-000040a/    one file a process; any number of processes, one too, goes on from it

It refuses optimizers that look at more than single numbers: theirs would depend on how many processes there are.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.filesystem import FileSystemReader
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import save
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor, Shard, distribute_tensor

from fluxone.errors import BadFile, BadRequest, CannotWrite
from fluxone.nn.transformer import Flux
from fluxone.train.group import Group, agreed, total
from fluxone.tune.beside import Beside
from fluxone.tune.optimizers import BY_NUMBER
from fluxone.tune.settings import Settings

POINTER = "shards.json"
Groups = Mapping[str, Mapping[str, Tensor]]


class Shards:
    """The rows of one process.

    Args:
        network: with its adapters; whole, and the same in every process.

    Attributes:
        rows: parameter of `beside` -> this process' rows of it, which the optimizer works on.

    Raises:
        BadRequest: the batch or the optimizer cannot be shared so.
    """

    def __init__(self, network: Flux, beside: Beside, group: Group, settings: Settings) -> None:
        check(group, settings)
        self.group, self.network = group, network
        device = next(network.parameters()).device
        self.mesh = init_device_mesh(device.type, (group.world,))
        # What makes modulation works outside of its block's own pass, so each of them comes and goes by itself; of the
        # last layer's only the inside is called, and it stays with the network.
        modulators = [part for part in network.modulators() if not isinstance(part, nn.Sequential)]
        for part in (*modulators, *network.double_blocks, *network.single_blocks, network):
            fully_shard(part, mesh=self.mesh)
        for part in self._parts():
            part.set_gradient_divide_factor(1.0)  # each sample's loss is its share of the whole batch already
            part.set_force_sum_reduction_for_comms(True)
        self.params: dict[str, DTensor] = dict(beside.named_parameters())  # type: ignore[arg-type]
        self.rows = {name: nn.Parameter(_local(p)) for name, p in self.params.items()}

    def collect(self) -> None:
        """Move the gradients to the rows."""
        for name, p in self.params.items():
            grad = p.grad
            self.rows[name].grad = grad.to_local() if isinstance(grad, DTensor) else None
            p.grad = None

    def clip(self, most: float) -> float:
        """Shorten the whole gradient to `most`; the length that it had."""
        grads = [row.grad for row in self.rows.values() if row.grad is not None]
        square = torch.stack([grad.square().sum() for grad in grads]).sum()
        length = float(total(self.group, square).sqrt())
        for grad in grads:
            grad.mul_(min(1.0, most / (length + 1e-6)))
        return length

    @contextmanager
    def whole(self) -> Iterator[None]:
        """A context in which every process has the whole network, and may use it without the others."""
        parts = self._parts()
        self.network.set_reshard_after_forward(False)  # type: ignore[operator]
        for part in parts:
            part.unshard()
        try:
            yield
        finally:
            for part in parts:
                part.reshard()
                part.set_reshard_after_forward(True, recurse=False)
            root: nn.Module = self.network
            root.set_reshard_after_forward(False, recurse=False)  # type: ignore[operator]

    def save(self, folder: Path, groups: Groups, meta: Mapping[str, Any]) -> None:
        """Write the rows of all processes; the checkpoint before stays until all of them are on disk.

        Raises:
            CannotWrite: the disk is full or the folder is not writable.
        """
        now, pointer = pointer_of(folder), folder / POINTER
        name = f"shards-{meta['step']:06}{'b' if now and now['folder'].endswith('a') else 'a'}"
        place = folder / name
        try:
            folder.mkdir(parents=True, exist_ok=True)
            save(self._spread(groups), checkpoint_id=place)
            if self.group.first:
                part = pointer.with_suffix(".part")
                part.write_text(json.dumps({"folder": name, "meta": meta}), encoding="utf-8")
                part.replace(pointer)
                for old in folder.glob("shards-*"):
                    if old != place:
                        shutil.rmtree(old, ignore_errors=True)
        except (OSError, CheckpointException) as error:
            raise CannotWrite(f"cannot save {place}: {error}", hint="free space or choose another folder") from error
        agreed(self.group, True, self.mesh_device)

    @property
    def mesh_device(self) -> torch.device:
        """Where the rows are."""
        return next(iter(self.rows.values())).device

    def spread(self, name: str, value: Tensor) -> Tensor:
        """This process' rows of a whole tensor that belongs to the parameter `name`, or the tensor itself."""
        param = self._param(name)
        if param is None or value.shape != param.shape:
            return value
        spread = distribute_tensor(value.to(self.mesh_device), self.mesh, [Shard(0)])
        return spread.to_local()

    def load(self, folder: Path, groups: Groups) -> dict[str, Any] | None:
        """Fill the rows from a checkpoint of `save`; what stood beside them, or None if there is none."""
        told = pointer_of(folder)
        if told is None:
            return None
        load(self._spread(groups), checkpoint_id=folder / told["folder"])
        found: dict[str, Any] = told["meta"]
        return found

    def _parts(self) -> list[FSDPModule]:
        return [module for module in self.network.modules() if isinstance(module, FSDPModule)]

    def _param(self, name: str) -> DTensor | None:
        """The parameter that a tensor belongs to: `a/b/up`, or a momentum of it, `a/b/up/first`."""
        return self.params.get(name) if name in self.params else self.params.get(name.rpartition("/")[0])

    def _spread(self, groups: Groups) -> dict[str, Tensor]:
        """The rows as what they are rows of, so that the files tell it."""
        found: dict[str, Tensor] = {}
        for group, tensors in groups.items():
            for name, value in tensors.items():
                param = self._param(name)
                rows = None if param is None else param.to_local()
                if param is not None and rows is not None and rows.shape == value.shape:
                    value = DTensor.from_local(
                        value, self.mesh, [Shard(0)], run_check=False, shape=param.shape, stride=param.stride()
                    )
                found[f"{group}/{name}"] = value
        return found


def _local(param: DTensor) -> Tensor:
    """The rows themselves, not a copy."""
    rows: Tensor = param.to_local()
    return rows.detach()


def read(folder: Path) -> tuple[dict[str, dict[str, Tensor]], dict[str, Any]] | None:
    """A checkpoint of several processes as one has it; None if there is none.

    Raises:
        BadFile: it is not whole.
    """
    told = pointer_of(folder)
    if told is None:
        return None
    place = folder / told["folder"]
    try:
        rows = FileSystemReader(place).read_metadata().state_dict_metadata
        flat = {key: torch.empty(row.size, dtype=row.properties.dtype) for key, row in rows.items()}  # type: ignore[union-attr]
        load(flat, checkpoint_id=place, no_dist=True)
    except (OSError, AttributeError, CheckpointException) as error:
        raise BadFile(f"{place} is not a whole checkpoint: {error}", hint="delete it to start anew") from error
    groups: dict[str, dict[str, Tensor]] = {}
    for key, value in flat.items():
        group, _, name = key.partition("/")
        groups.setdefault(group, {})[name] = value
    return groups, told["meta"]


def pointer_of(folder: Path) -> dict[str, Any] | None:
    """What says where the rows lie."""
    path = folder / POINTER
    if not path.exists():
        return None
    try:
        told: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise BadFile(f"{path} is not ours: {error}", hint="delete it to start anew") from error
    return told


def forget(folder: Path) -> None:
    """Delete the checkpoint of several processes, after one has written its own."""
    (folder / POINTER).unlink(missing_ok=True)
    for old in folder.glob("shards-*"):
        shutil.rmtree(old, ignore_errors=True)


def check(group: Group, settings: Settings) -> None:
    """Refuse what would not be the same as in one process, and blocks that come and go: each has some rows."""
    if settings.swap:
        raise BadRequest(
            f"swap is {settings.swap}, and the processes share the weights",
            hint="use one or the other: shared weights take less memory the more processes there are",
        )
    if settings.optimizer not in BY_NUMBER:
        raise BadRequest(
            f"{settings.optimizer} looks at more than single numbers, and each process has rows only",
            hint=f"use {' or '.join(BY_NUMBER)}",
        )
    shares = group.shares
    if settings.batch % shares or (settings.micro and settings.batch // shares % settings.micro):
        raise BadRequest(
            f"a batch of {settings.batch}, at most {settings.micro or 'all'} at once, is not as much for each of "
            f"{shares} shares",
            hint=f"use a batch that is a multiple of {shares * (settings.micro or 1)}",
        )
