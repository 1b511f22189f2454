"""The transformer on text: kinds, scalars, notes, clipping, warmup, and the numbers of one step against a twin."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
import torch

from stepscope.examples import char_transformer as example
from stepscope.examples.transformer import CausalAttention, CharTransformer
from stepscope.store import Trial, open_group

STEPS = 3


@pytest.fixture(scope="module")
def trial(tmp_path_factory: pytest.TempPathFactory) -> Trial:
    out = tmp_path_factory.mktemp("text")
    loss = example.run(out, STEPS)
    trial = open_group(out)["transformer"]
    assert trial.scalars("validation", group="loss").values[-1] == pytest.approx(loss)
    return trial


def test_kinds_scalars_and_notes(trial: Trial) -> None:
    assert trial.state == "finished"
    assert (trial.problems, trial.messages) == ((), ())
    assert trial.step_kinds == ("train", "validation")
    assert trial.steps.tolist() == [0, STEPS]
    assert [len(note.text) for note in trial.notes] == [100]
    rates = trial.scalars("learning rate").values
    expected = [
        example.LEARNING_RATE * ((1 + step * (example.WARMUP_STEPS - 1) / example.WARMUP_STEPS) / example.WARMUP_STEPS)
        for step in range(STEPS)
    ]
    assert rates == pytest.approx(expected)


def test_every_block_is_there_and_passes_gradients(trial: Trial) -> None:
    classes = Counter(node.module_class for node in trial.nodes if node.type == "calculated")
    assert classes["Block"] == classes["CausalAttention"] == classes["MLP"] == 4
    graph = trial.step(0).graph()
    edges = {(graph.vertices[e.source].node, graph.vertices[e.sink].node, e.differentiable) for e in graph.edges}
    for block in range(3):
        assert (f"model.blocks.{block}", f"model.blocks.{block + 1}", True) in edges  # the residual stream
        assert (f"model.blocks.{block}.mlp", f"model.blocks.{block}", True) in edges
    assert ("input", "model.embed_character", False) in edges
    assert ("target", "loss", False) in edges
    parameters = [node for node in trial.nodes if node.type == "parameter"]
    assert len(parameters) == 4 * 12 + 6
    assert all("gradient" in node.quantities for node in parameters)


def test_values_and_clipped_gradients_equal_those_computed_by_hand(trial: Trial) -> None:
    torch.manual_seed(0)
    data = torch.Generator().manual_seed(0)
    text = example.Text()
    model = CharTransformer(len(text.characters), context=example.CONTEXT)
    batch = example.make_batch(text.train, data)
    outputs: list[torch.Tensor] = []
    model.blocks[1].register_forward_hook(lambda module, inputs, output: outputs.append(output))
    loss = example.loss_of(model, batch)
    loss.backward()
    gradients = {name: parameter.grad for name, parameter in model.named_parameters()}
    norms = {name: float(gradient.double().norm()) for name, gradient in gradients.items() if gradient is not None}
    total = sum(norm**2 for norm in norms.values()) ** 0.5

    step = trial.step(0)
    assert total > example.CLIP_NORM  # else nothing would be clipped, and this test would show nothing
    assert step.tensor("loss").statistics["mean"] == pytest.approx(loss.item(), rel=1e-6)
    recorded = step.tensor("model.blocks.1")
    assert recorded.shape == (example.BATCH, example.CONTEXT, 128)
    assert recorded.info.batch_dim == 0
    assert recorded.statistics["norm"] == pytest.approx(outputs[0].detach().double().norm().item(), rel=1e-6)
    name = "blocks.2.mlp.widen.weight"
    gradient = step.tensor(f"model.{name}", quantity="gradient")
    assert gradient.statistics["norm"] == pytest.approx(norms[name] * example.CLIP_NORM / total, rel=1e-5)
    assert trial.scalars("norm before clipping", group="gradient").values[0] == pytest.approx(total, rel=1e-5)


def test_attention_does_not_see_the_future() -> None:
    attention = CausalAttention(8, heads=2)
    x = torch.randn(1, 5, 8)
    changed = x.clone()
    changed[:, 3:] += 1
    before, after = attention(x), attention(changed)
    assert torch.equal(before[:, :3], after[:, :3])
    assert not torch.allclose(before[:, 3:], after[:, 3:])


def test_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert example.main(["--out", str(tmp_path), "--steps", "1"]) == 0
    assert capsys.readouterr().err.splitlines()[-1].endswith(f"stepscope view {tmp_path}")
