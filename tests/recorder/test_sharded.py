"""Parameters that are spread over processes: one process records its part, and the others are not waited for."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from stepscope.store import Trial, open_trial

SCRIPT = Path(__file__).resolve().parents[1] / "support" / "sharded_training.py"
PROCESSES = 2
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module", params=["fully_shard", "tensors"])
def trained(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[list[str], Trial]:
    """What each process printed (the digests of the weights without and with recording), and the recording."""
    folder = tmp_path_factory.mktemp(request.param)
    running = [
        subprocess.Popen(
            [sys.executable, "-W", "error", str(SCRIPT), str(rank), str(PROCESSES), str(folder), request.param],
            stdout=subprocess.PIPE,
            text=True,
        )
        for rank in range(PROCESSES)
    ]
    try:
        outputs = [process.communicate(timeout=240)[0] for process in running]
    finally:
        for process in running:
            process.kill()
    assert [process.returncode for process in running] == [0] * PROCESSES
    return outputs, open_trial(folder / "trial")


@pytest.mark.supports(
    "Parameters",
    "parameters spread over processes (`fully_shard`, `DTensor`): training is not changed, nobody waits",
    limit="the part of the recording process; the recording says so",
)
def test_one_of_two_processes_records(trained: tuple[list[str], Trial]) -> None:
    outputs, trial = trained
    digests = [line for output in outputs for line in output.split()]
    assert len(digests) == 2 * PROCESSES and len(set(digests)) == 1
    assert trial.steps.tolist() == [0, 1, 2]


def test_the_part_of_the_process_is_recorded(trained: tuple[list[str], Trial]) -> None:
    _, trial = trained
    weight = trial.step(2).tensor("model.0.weight")
    assert weight.shape == (3, 4), "half of the rows"
    assert weight.statistics["spectral_norm"] > 0
    found = {row.info.quantity for row in trial.step(2).rows() if row.info.node == "model.0.weight"}
    assert found == {"value", "gradient", "update", "exp_avg", "exp_avg_sq"}
    assert [text for _, text in trial.messages] == [
        "of tensors that are spread over processes, the part of this process is recorded"
    ]


def test_the_graph_is_that_of_one_process(trained: tuple[list[str], Trial]) -> None:
    graph = trained[1].step(1).graph()
    edges = {
        (graph.vertices[edge.source].node, graph.vertices[edge.sink].node): edge.differentiable for edge in graph.edges
    }
    assert edges["model.0.weight", "model.0"] and edges["model.2.bias", "model.2"] and edges["model.0", "model.1"]
