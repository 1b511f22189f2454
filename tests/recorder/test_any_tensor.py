"""Whatever a training run computes can be recorded: any dtype, layout, shape, container, and odd modules."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import PackedSequence, pack_sequence

from stepscope.recorder import Recorder, Step
from stepscope.store import Step as ReadStep
from stepscope.store import open_trial

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")  # torch has something to say about many of these


def record(program: Callable[[Step], object], folder: Path, model: nn.Module | None = None) -> ReadStep:
    with Recorder(folder, trial="trial", schedule=1, strict=True) as recorder:
        recorder.watch(model)
        with recorder.step() as step:
            program(step)
    trial = open_trial(folder / "trial")
    assert trial.messages == ()
    return trial.step(0)


def one_each(dtype: torch.dtype) -> torch.Tensor:
    return torch.tensor([[0, 1, 1], [1, 0, 1]]).to(dtype)


DTYPES = [
    torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.float8_e4m3fn, torch.float8_e5m2,
    torch.int8, torch.uint8, torch.int16, torch.uint16, torch.int32, torch.uint32, torch.int64, torch.uint64,
    torch.bool, torch.complex64, torch.complex128, torch.complex32,
]  # fmt: skip


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.supports(
    "Tensors",
    "floats of 8 to 64 bits, bfloat16, whole numbers, bool, complex",
    limit="complex ones are measured by their magnitude",
)
def test_dtypes(dtype: torch.dtype, tmp_path: Path) -> None:
    tensor = record(lambda step: step.record("x", one_each(dtype)), tmp_path).tensor("x")
    assert tensor.info.dtype == str(dtype).removeprefix("torch.")
    assert tensor.shape == (2, 3)
    assert tensor.statistics["mean"] == pytest.approx(4 / 6)
    assert tensor.statistics["zero_fraction"] == pytest.approx(2 / 6)
    assert tensor.statistics["norm"] == pytest.approx(2.0)
    assert tensor.aggregates["mean"]["batch_mean"] == pytest.approx(4 / 6)


SHAPES = [(), (0,), (1,), (3, 0), (0, 3), (2, 0, 4), (1, 1, 1, 1, 1, 1), (5,), (2, 3, 4, 5, 6)]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("batch_dim", [None, False])
@pytest.mark.supports("Tensors", "any rank: 0-d, without elements, with and without a batch dimension")
def test_shapes(shape: tuple[int, ...], batch_dim: Any, tmp_path: Path) -> None:
    tensor = record(lambda step: step.record("x", torch.ones(shape), batch_dim=batch_dim), tmp_path).tensor("x")
    assert tensor.shape == shape
    mean = tensor.statistics["mean"]
    assert math.isnan(mean) if 0 in shape else mean == 1.0
    assert tensor.histogram.counts.sum() == math.prod(shape)


LAYOUTS: dict[str, Callable[[], torch.Tensor]] = {
    "sparse": lambda: torch.eye(4).to_sparse(),
    "uncoalesced": lambda: torch.sparse_coo_tensor(
        torch.tensor([[0, 0, 1, 2], [0, 0, 1, 2]]), torch.full((4,), 0.5), (4, 4)
    ),
    "sparse rows": lambda: torch.eye(4).to_sparse_csr(),
    "quantised": lambda: torch.quantize_per_tensor(torch.eye(4), 0.5, 0, torch.qint8),
    "quantised by channel": lambda: torch.quantize_per_channel(
        torch.eye(4), torch.full((4,), 0.5), torch.zeros(4), 0, torch.quint8
    ),
    "transposed": lambda: torch.eye(4).T,
    "expanded": lambda: torch.eye(4)[:1].expand(4, 4),
    "strided": lambda: torch.eye(8)[::2, ::2],
    "conjugated": lambda: torch.eye(4, dtype=torch.complex64).conj(),
    "negated view": lambda: torch.eye(4, dtype=torch.complex64).conj().imag,
    "mkldnn": lambda: torch.eye(4).to_mkldnn(),
    "subclass": lambda: torch.eye(4).as_subclass(Subclass),
    "parameter": lambda: nn.Parameter(torch.eye(4)),
}


class Subclass(torch.Tensor):
    pass


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.supports("Tensors", "sparse (all layouts), quantised, strided, expanded, subclasses")
def test_layouts(layout: str, tmp_path: Path) -> None:
    made = LAYOUTS[layout]()
    tensor = record(lambda step: step.record("x", made), tmp_path).tensor("x")
    assert tensor.shape == (4, 4)
    total = {"negated view": 0.0, "uncoalesced": 2.0}.get(layout, 4.0)
    assert tensor.statistics["mean"] == pytest.approx(total / 16)


@pytest.mark.supports("Tensors", "nested tensors", limit="measured as all their elements")
def test_nested_tensors(tmp_path: Path) -> None:
    ragged = torch.nested.nested_tensor([torch.ones(2, 3), torch.zeros(4, 3)], layout=torch.jagged)
    tensor = record(lambda step: step.record("x", ragged), tmp_path).tensor("x")
    assert tensor.statistics["mean"] == pytest.approx(6 / 18)


@pytest.mark.supports("Tensors", "`meta` tensors", limit="no values; the recording says so")
def test_tensors_without_data_are_told_of(tmp_path: Path) -> None:
    with Recorder(tmp_path, trial="trial", schedule=1, strict=True) as recorder, recorder.step() as step:
        step.record("shape only", torch.ones(3, 2, device="meta"))
        step.record("x", torch.ones(3, 2))
    trial = open_trial(tmp_path / "trial")
    assert [row.info.node for row in trial.step(0).rows()] == ["x"]
    assert "'shape only'" in trial.messages[0][1]


class Packed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.rnn = nn.GRU(2, 3)

    def forward(self, x: PackedSequence) -> PackedSequence:
        return self.rnn(x)[0]


@pytest.mark.supports("Tensors", "packed sequences")
def test_packed_sequences(tmp_path: Path) -> None:
    model = Packed()
    packed = pack_sequence([torch.ones(3, 2), torch.ones(1, 2)])
    step = record(lambda _: model(packed).data.sum().backward(), tmp_path, model)
    assert step.tensor("model", role="output.data").shape == (4, 3)
    assert step.tensor("model", role="output.data", quantity="gradient").shape == (4, 3)


@pytest.mark.supports("Changing models", "lazy modules")
def test_lazy_modules(tmp_path: Path) -> None:
    model = nn.Sequential(nn.LazyLinear(3), nn.ReLU())
    with Recorder(tmp_path, trial="trial", schedule=1, strict=True) as recorder:
        recorder.watch(model)
        for _ in range(2):
            with recorder.step():
                model(torch.ones(4, 2)).sum().backward()
    trial = open_trial(tmp_path / "trial")
    assert trial.step(1).tensor("model.0.weight").shape == (3, 2)
    assert trial.step(0).tensor("model.0").shape == (4, 3)
    assert [parameter.shape for parameter in trial.network[1].parameters] == [(3, 2), (3,)]


@pytest.mark.supports("Parameters", "parameters and buffers without elements, None, not persistent")
def test_empty_parameters_and_buffers(tmp_path: Path) -> None:
    model = nn.Module()
    model.register_parameter("nothing", nn.Parameter(torch.empty(0, 3)))
    model.register_parameter("none", None)
    model.register_buffer("scalar", torch.tensor(3))
    model.register_buffer("hidden", torch.ones(2), persistent=False)
    step = record(lambda _: None, tmp_path, model)
    assert step.tensor("model.nothing").shape == (0, 3)
    assert step.tensor("model.scalar").statistics["mean"] == 3.0
    assert step.tensor("model.hidden").shape == (2,)


def test_modules_that_are_replaced(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(2, 3), nn.ReLU())
    with Recorder(tmp_path, trial="trial", schedule=1, strict=True) as recorder:
        recorder.watch(model)
        with recorder.step():
            model(torch.ones(4, 2))
        model[1] = nn.Linear(3, 1)
        with recorder.step():
            model(torch.ones(4, 2))
    trial = open_trial(tmp_path / "trial")
    assert trial.step(0).tensor("model.1").shape == (4, 3)
    assert trial.step(1).tensor("model.1.weight").shape == (1, 3)


@pytest.mark.supports("Tensors", "batch and sequence sizes that change from step to step")
def test_sizes_may_change_from_step_to_step(tmp_path: Path) -> None:
    model = nn.Linear(2, 2)
    with Recorder(tmp_path, trial="trial", schedule=1, strict=True) as recorder:
        recorder.watch(model)
        for size in (4, 1, 7):
            with recorder.step():
                model(torch.ones(size, 3, 2))
    trial = open_trial(tmp_path / "trial")
    assert [trial.step(number).tensor("model").shape for number in range(3)] == [(4, 3, 2), (1, 3, 2), (7, 3, 2)]


def test_a_model_of_many_modules(tmp_path: Path) -> None:
    model = nn.Sequential(*(nn.Linear(2, 2) for _ in range(1000)))
    step = record(lambda _: model(torch.ones(1, 2)).sum().backward(), tmp_path, model)
    assert len(step.rows()) > 6000


@pytest.mark.supports(
    "Tensors",
    "tensors that are written to behind torch's back (numpy)",
    limit="where the value is lost, the recording says so",
)
def test_changes_that_torch_calls_do_not_show(tmp_path: Path) -> None:
    """What is written through numpy is not seen; the values are those of before, or it is said that they are lost."""
    x = torch.ones(3, 2)
    with Recorder(tmp_path, trial="trial", schedule=1, strict=True) as recorder:
        with recorder.step() as step:
            step.record("x", x)
        recorder.flush()
        x.numpy()[:] = 5
    assert open_trial(tmp_path / "trial").step(0).tensor("x").statistics["mean"] == 1.0


@pytest.mark.supports(
    "Tensors", "flattened tokens (batch x time)", limit="measured as one tensor, unless `batch_dim=0` says otherwise"
)
def test_flattened_tokens(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Flatten(0, 1), nn.Linear(6, 5))

    def program(step: Step) -> None:
        tokens = model(torch.ones(4, 3, 6))
        step.record("tokens", tokens * 1, batch_dim=0)

    step = record(program, tmp_path, model)
    assert step.tensor("input").info.batch_dim == 0
    assert step.tensor("model.1").info.batch_dim is None and step.tensor("model.1").shape == (12, 5)
    assert step.tensor("tokens").info.batch_dim == 0
