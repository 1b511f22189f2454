"""What is written is read back, bit for bit."""

from __future__ import annotations

import tempfile
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stepscope.store import Series, TrialWriter, codec, open_trial
from stepscope.store.frames import pack_array, unpack_array
from stepscope.store.records import Graph, ModuleInfo, Note, ParameterInfo, Scalar, StepRecord, TrialEnd, TrialInfo
from support.records import INFO, assert_step_is, graphs, names, plain, step_records
from support.synthetic import Synthetic, SyntheticTrial

relaxed = settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))


@relaxed
@given(step_records())
def test_a_step(record: StepRecord) -> None:
    with tempfile.TemporaryDirectory() as folder:
        with TrialWriter(folder, INFO) as writer:
            before = sum(file.stat().st_size for file in writer.path.iterdir() if file.suffix == ".stepscope")
            written = writer.write_step(record)
            after = sum(file.stat().st_size for file in writer.path.iterdir() if file.suffix == ".stepscope")
            assert written == after - before
        trial = open_trial(writer.path)
        assert trial.steps.tolist() == [record.number]
        assert_step_is(trial.step(record.number), record)
        assert trial.problems == ()


def test_many_steps_of_a_realistic_trial(tmp_path) -> None:  # type: ignore[no-untyped-def]
    synthetic = Synthetic(blocks=1, nan_from=40)
    live = SyntheticTrial(tmp_path, synthetic)
    live.write(8)
    live.close()
    trial = open_trial(live.path)
    for index in range(8):
        assert_step_is(trial.step(10 * index), synthetic.record(index))
    assert trial.network == tuple(synthetic.model.modules)


@pytest.mark.parametrize(
    "values",
    [
        np.zeros(()),
        np.array(np.nan, np.float32),
        np.zeros((0, 3), np.float32),
        np.zeros((3, 0), np.int64),
        np.array([[np.inf, -np.inf], [np.nan, -0.0]]),
        np.arange(6, dtype=np.uint8),
        np.array([True, False]),
        np.arange(24, dtype=">f4").reshape(2, 3, 4),
        np.arange(24, dtype=np.float32).reshape(4, 6)[::2, ::-3],
        np.array([5e-324, 1.7e308]),
    ],
    ids=lambda values: f"{values.dtype}{list(values.shape)}",
)
def test_an_array(values: np.ndarray) -> None:
    frame, shuffled = pack_array(values)
    read = unpack_array(frame, values.dtype.newbyteorder("<").str, values.shape, shuffled)
    assert read.shape == values.shape
    assert read.astype(values.dtype).tobytes() == values.tobytes()


@relaxed
@given(graphs())
def test_a_graph(graph: Graph) -> None:
    assert codec.graph_from_plain(codec.unpack(codec.pack(codec.graph_to_plain(graph)))) == graph


@relaxed
@given(st.dictionaries(names, plain, max_size=4), st.dictionaries(names, plain, max_size=4), st.integers(0, 9))
def test_the_facts_of_a_trial(config: dict[str, object], environment: dict[str, object], samples: int) -> None:
    info = TrialInfo("trial", 12.5, config, environment, samples, 7)
    with tempfile.TemporaryDirectory() as folder, TrialWriter(folder, info) as writer:
        assert open_trial(writer.path).info == info


def test_the_journal(tmp_path) -> None:  # type: ignore[no-untyped-def]
    parameter = ParameterInfo("weight", (3, 0), "float32", False, ("a.weight", "b.weight"), True, False, ("adam",))
    modules = (
        ModuleInfo("a", "Linear", (parameter,), False),
        ModuleInfo("b", "Linear", (), recorded=False),
        ModuleInfo("c", "Linear", (), ignored=("trainable",)),
        ModuleInfo("d", "Linear", (), drawn=("keys (3, 4)",)),
        ModuleInfo("e", "Conv1d", (), settings="1, 24, kernel_size=(2,), stride=(8,)"),
    )
    writer = TrialWriter(tmp_path, INFO)
    points = [Scalar("loss", "g", 3, 0.5, "train", 1.0), Scalar("loss", "g", 4, float("nan"), "test", 2.0)]
    assert writer.write_scalars(points) > 0
    assert writer.write_scalars([]) == 0
    writer.write_note(Note("a note\nof two lines", 3, 1.5))
    writer.write_network(())
    writer.write_network(modules)
    writer.write_message("the neurons were too many", 3)
    end = TrialEnd("failed", 9.0, "ValueError: x", "Traceback ...")
    writer.close(end)
    trial = open_trial(writer.path)
    assert trial.network == modules
    assert trial.notes == (Note("a note\nof two lines", 3, 1.5),)
    assert trial.messages == ((3, "the neurons were too many"),)
    assert (trial.end, trial.state, trial.exception) == (end, "failed", "ValueError: x")
    assert trial.scalar_names == (("g", "loss"),)
    curve = trial.scalars("loss", group="g")
    assert isinstance(curve, Series) and curve.steps.tolist() == [3, 4]
    assert trial.scalars("loss", group="g", kind="test").steps.tolist() == [4]


def test_a_network_of_an_earlier_version_has_defaults() -> None:
    plain = [["a", "Linear", [["weight", [3], "float32", True, ["a.weight"], False]], True]]
    (module,) = codec.network_from_plain(plain)
    assert (module.recorded, module.parameters[0].recorded, module.parameters[0].optimizers) == (True, True, ())


def test_neurons_of_other_types_become_wide_floats(tmp_path) -> None:  # type: ignore[no-untyped-def]
    record = Synthetic(blocks=1).record(0)
    assert record.neurons[0] is not None
    whole = replace(record.neurons[0], samples=np.array([[1, 2**40]]))
    with TrialWriter(tmp_path, INFO) as writer:
        writer.write_step(replace(record, neurons=(whole, *record.neurons[1:])))
    info = record.tensors[0]
    read = open_trial(writer.path).step(0).tensor(info.node, role=info.role).neurons
    assert read is not None and read.samples.tolist() == [[1.0, 2.0**40]]
