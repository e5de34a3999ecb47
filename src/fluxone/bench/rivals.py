"""Contestants that are not ours, on the same weights and inputs: diffusers, and on a CPU OpenVINO and ONNX Runtime.

    ours --torch.export, at the case's shape--> a program --their compiler--> a step

What is exported is the network in its plain form, with the modulation of a noise level as an input, as ours has it.
"""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fluxone.bench.measure import Way
from fluxone.bench.nets import Case, Given, ours, theirs
from fluxone.errors import MissingExtra
from fluxone.nn.rope import Rotation
from fluxone.nn.transformer import Flux, Modulation

State = dict[str, Tensor]
Build = Callable[[Case, State, torch.dtype, torch.device], Way]
EXTRA = "rivals"


class Fixed(nn.Module):
    """The network at one shape of picture: states, text and the modulation's tensors one by one, to the velocity."""

    def __init__(self, model: Flux, pe: Rotation) -> None:
        super().__init__()
        self.model = model
        self.register_buffer("turns", pe.turns)

    def forward(self, img: Tensor, txt: Tensor, rows: list[Tensor]) -> Tensor:
        pairs, singles = 2 * len(self.model.double_blocks), len(self.model.single_blocks)
        double = tuple((rows[i], rows[i + 1]) for i in range(0, pairs, 2))
        modulation = Modulation(double=double, single=tuple(rows[pairs : pairs + singles]), final=rows[-1])
        return self.model.predict(img, txt, Rotation(turns=self.get_buffer("turns")), modulation)


def diffusers(case: Case, state: State, dtype: torch.dtype, device: torch.device) -> Way:
    """diffusers as it comes."""
    model, given = theirs(case, state).to(dtype), Given.of(case, device, dtype)
    size = sum(tensor.numel() * tensor.itemsize for tensor in model.parameters())
    return Way(name=named("diffusers eager", dtype), step=partial(given.their_step, model), weights=size)


def openvino(case: Case, state: State, dtype: torch.dtype, device: torch.device) -> Way:
    """OpenVINO's CPU plugin; bfloat16 is its own hint on a network in float32.

    Raises:
        MissingExtra: it is not installed.
    """
    try:
        import openvino as ov
    except ImportError:
        raise MissingExtra(EXTRA, "openvino is not installed") from None
    inputs, program = exported(case, state)
    precision = {torch.float32: "f32", torch.bfloat16: "bf16"}[dtype]
    settings = {"INFERENCE_PRECISION_HINT": precision, "INFERENCE_NUM_THREADS": str(torch.get_num_threads())}
    with quiet():
        compiled = ov.compile_model(ov.convert_model(program), "CPU", settings)
    request = compiled.create_infer_request()

    def step(level: int) -> Tensor:
        found = request.infer([tensor.numpy() for tensor in inputs[level]], share_inputs=True)
        return torch.from_numpy(found[compiled.output(0)].copy())

    return Way(name=named("OpenVINO", dtype), step=step, limit=LIMITS[dtype])


def onnxruntime(case: Case, state: State, dtype: torch.dtype, device: torch.device) -> Way:
    """ONNX Runtime on the CPU, in float32.

    Raises:
        MissingExtra: it is not installed.
    """
    try:
        import onnxruntime as ort
        import onnxscript  # noqa: F401  # torch writes ONNX with it
    except ImportError:
        raise MissingExtra(EXTRA, "onnxruntime or onnxscript is not installed") from None
    inputs, program = exported(case, state)
    options = ort.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # it would spin in the others' turns
    with quiet(), tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "step.onnx"
        written: Any = torch.onnx.export(program, dynamo=True, verbose=False)
        written.save(str(path), external_data=True)
        session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    names = [one.name for one in session.get_inputs()]

    def step(level: int) -> Tensor:
        given = dict(zip(names, (tensor.numpy() for tensor in inputs[level]), strict=True))
        return torch.from_numpy(session.run(None, given)[0])

    return Way(name=named("ONNX Runtime", dtype), step=step, limit=LIMITS[dtype])


def exported(case: Case, state: State) -> tuple[list[list[Tensor]], Any]:
    """The inputs of every noise level, and the program for their shapes, in float32."""
    cpu = torch.device("cpu")
    model, given = ours(case, state).float(), Given.of(case, cpu, torch.float32)
    modulation = given.modulation(model)
    inputs = []
    for level in range(len(given.img)):
        rows = modulation.rows(level)
        flat = [tensor for pair in rows.double for tensor in pair] + [*rows.single, rows.final]
        inputs.append([given.img[level : level + 1], given.txt, *flat])
    plain = [[tensor.clone() for tensor in each] for each in inputs]  # not inference's, which nobody can export
    with torch.inference_mode(False), torch.no_grad(), quiet():
        copies = [tensor.clone() for tensor in plain[0]]
        fixed = Fixed(ours(case, {name: tensor.clone().float() for name, tensor in state.items()}), given.pe)
        program = torch.export.export(fixed, (copies[0], copies[1], copies[2:]))
    return plain, program


@contextmanager
def quiet() -> Iterator[None]:
    """What other packages say of themselves while they compile is nobody's matter here."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def named(name: str, dtype: torch.dtype) -> str:
    """A contestant's name with its type."""
    return f"{name}, {str(dtype).removeprefix('torch.')}"


LIMITS = {torch.float32: 1e-4, torch.bfloat16: 0.03}  # errors up to which their times count
WIDE, NARROW = torch.float32, torch.bfloat16
RIVALS: dict[str, tuple[Build, tuple[torch.dtype, ...]]] = {  # and the types that they run in on a CPU
    "diffusers": (diffusers, (WIDE, NARROW)),
    "openvino": (openvino, (WIDE, NARROW)),
    "onnxruntime": (onnxruntime, (WIDE,)),
}
EVERYWHERE = ("diffusers",)  # the others are for CPUs
