"""Training on several processes: one of them records, or each; nothing changes, and nobody is waited for."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

from stepscope.store import Step, Trial, open_trial
from support.parallel_training import WAYS

SCRIPT = Path(__file__).resolve().parents[1] / "support" / "parallel_training.py"
PROCESSES = 2
pytestmark = pytest.mark.slow


class Trained(NamedTuple):
    """The digests of each process without and with recording, and the recordings: by the first one, and by each."""

    way: str
    digests: list[dict[str, str]]
    by_first: Trial
    by_each: list[Trial]

    @property
    def step(self) -> Step:
        return self.by_first.step(2)


@pytest.fixture(scope="module")
def folder_and_outputs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """Where the processes recorded, and what they printed. If one waited for another in vain, it would never end."""
    folder = tmp_path_factory.mktemp("processes")
    running = [
        subprocess.Popen(
            [sys.executable, str(SCRIPT), str(rank), str(PROCESSES), str(folder)], stdout=subprocess.PIPE, text=True
        )
        for rank in range(PROCESSES)
    ]
    try:
        outputs = [process.communicate(timeout=240)[0] for process in running]
    finally:
        for process in running:
            process.kill()
    assert [process.returncode for process in running] == [0] * PROCESSES
    return folder, outputs


@pytest.fixture(params=WAYS)
def trained(request: pytest.FixtureRequest, folder_and_outputs: tuple[Path, list[str]]) -> Trained:
    folder, outputs = folder_and_outputs
    way = request.param
    lines = [json.loads(line) for output in outputs for line in output.splitlines() if line.startswith("{")]
    by_each = [open_trial(folder / way / "all" / f"process {rank}") for rank in range(PROCESSES)]
    by_first = open_trial(folder / way / "first" / "process 0")
    return Trained(way, [line["digests"] for line in lines if line["way"] == way], by_first, by_each)


@pytest.mark.supports(
    "Several processes",
    "`DistributedDataParallel`, `fully_shard`, FSDP 1, `DTensor`: recorded by one process or by each, training is not "
    "changed, bit for bit, and no other process is waited for",
    limit="the part of the recording process; the recording says so",
)
def test_training_is_not_changed(trained: Trained) -> None:
    assert len(trained.digests) == PROCESSES
    for digests in trained.digests:
        assert digests["nobody"] == digests["first"] == digests["all"]
    for trial in (trained.by_first, *trained.by_each):
        assert trial.steps.tolist() == [0, 1, 2]
        assert (trial.state, trial.problems) == ("finished", ())


@pytest.mark.supports("Several processes", "each process can record into a trial of its own")
def test_each_process_records_what_it_sees(trained: Trained) -> None:
    first, second = (trial.step(0).tensor("input").statistics["mean"] for trial in trained.by_each)
    assert (first == second) == (trained.way == "tensors"), "each process has its own data"


def weight_of(way: str) -> str:
    return "model._flat_param" if way == "FSDP, flat" else "model.0.weight"


def test_the_part_of_the_process_is_recorded(trained: Trained) -> None:
    weight = trained.step.tensor(weight_of(trained.way))
    shape = {"DistributedDataParallel": (6, 4), "FSDP": (23,), "FSDP, flat": (22,)}
    assert weight.shape == shape.get(trained.way, (3, 4)), "half of the rows, or of the elements"
    found = {row.info.quantity for row in trained.step.rows() if row.info.node == weight_of(trained.way)}
    assert {"value", "gradient", "gradient before clipping", "update", "exp_avg", "exp_avg_sq"} <= found
    before, after = (
        trained.step.tensor(weight_of(trained.way), quantity=quantity).statistics["norm"]
        for quantity in ("gradient before clipping", "gradient")
    )
    assert before > after > 0


def test_the_recording_says_what_it_lacks(trained: Trained) -> None:
    texts = [text for _, text in trained.by_first.messages]
    assert texts == (
        []
        if trained.way == "DistributedDataParallel"
        else [
            "of parameters that are spread over processes, backward calls are not recorded apart",
            "of tensors that are spread over processes, the part of this process is recorded",
        ]
    )


def test_micro_batches_of_one_process(trained: Trained) -> None:
    quantities = {row.info.quantity for row in trained.step.rows()}
    assert ("gradient:backward 1" in quantities) == (trained.way == "DistributedDataParallel")


def test_the_graph_is_that_of_one_process(trained: Trained) -> None:
    graph = trained.step.graph()
    edges = {
        (graph.vertices[edge.source].node, graph.vertices[edge.sink].node): edge.differentiable for edge in graph.edges
    }
    assert edges["model.0", "model.1"] and edges["model.1", "model.2"]
    assert edges[weight_of(trained.way), "model.0"]
    if trained.way != "FSDP, flat":
        assert edges["model.0.bias", "model.0"] and edges["model.2.weight", "model.2"]


@pytest.mark.supports("Several processes", "wrappers (DDP, FSDP 1, their checkpoints) do not show in names")
def test_wrappers_do_not_show(trained: Trained) -> None:
    names = {node.name for node in trained.by_first.nodes}
    assert {"input", "model", "model.0", "model.1", "model.2", "loss", "target"} <= names
    assert not [name for name in names if "module" in name]
    assert [module.path for module in trained.by_first.network] == ["model", "model.0", "model.1", "model.2"]
