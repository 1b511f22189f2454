"""Models of the transformers library: training is unchanged, and their graphs and names make sense."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from stepscope.recorder import Every, Recorder, Schedule
from stepscope.store import Step, Trial, open_trial
from support.training import open_recorder, train

models = pytest.importorskip("support.architectures_transformers")
pytestmark = pytest.mark.slow

SCHEDULES: dict[str, Schedule] = {"every step": Every(1), "every second step": Every(2)}


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("name", ["gpt2", "gpt2_with_checkpointing", "bert", "vit", "t5"])
@pytest.mark.supports(
    "Training is not changed", "GPT-2 (with activation checkpointing, too), BERT, ViT and T5 of `transformers`"
)
def test_training_is_bitwise_the_same(name: str, schedule: str, tmp_path: Path) -> None:
    expected = train(models.MODELS[name], 3, None)
    with open_recorder(tmp_path, SCHEDULES[schedule]) as recorder:
        found = train(models.MODELS[name], 3, recorder)
    assert found == expected
    trial = open_trial(tmp_path / "trial")
    assert (trial.messages, trial.problems) == ((), ())


def recorded(name: str, folder: Path) -> Trial:
    with open_recorder(folder, Every(1)) as recorder:
        train(models.MODELS[name], 1, recorder)
    return open_trial(folder / "trial")


def edges(step: Step) -> set[tuple[str, str]]:
    graph = step.graph()
    return {(graph.vertices[edge.source].node, graph.vertices[edge.sink].node) for edge in graph.edges}


def roles(trial: Trial, node: str) -> set[str]:
    return set(trial.node(node).roles)


@pytest.mark.supports(
    "Modules and outputs", "`ModelOutput`, keyword inputs and losses inside the model (`transformers`)"
)
def test_gpt2(tmp_path: Path) -> None:
    trial = recorded("gpt2", tmp_path)
    step = trial.step(0)
    assert {node.name for node in trial.nodes if node.type == "input"} == {"input.input_ids"}, "labels are the inputs"
    assert roles(trial, "model") == {"output.loss", "output.logits"}
    assert roles(trial, "model.transformer") == {"output.last_hidden_state"}
    assert step.tensor("model", role="output.logits").shape == (3, 8, 37)
    assert step.tensor("model", role="output.logits").info.batch_dim == 0
    assert edges(step) >= {
        ("input.input_ids", "model.transformer.wte"),
        ("model.transformer.wte", "model.transformer.drop"),
        ("model.transformer.wpe", "model.transformer.drop"),
        ("model.transformer.drop", "model.transformer.h.0.ln_1"),
        ("model.transformer.drop", "model.transformer.h.0"),
        ("model.transformer.h.0.ln_1", "model.transformer.h.0.attn.c_attn"),
        ("model.transformer.h.0.attn.c_attn", "model.transformer.h.0.attn.c_proj"),
        ("model.transformer.h.1", "model.transformer.ln_f"),
        ("model.transformer", "model.lm_head"),
        ("model.lm_head", "model"),
    }
    loss = "loss" if "loss" in {node.name for node in trial.nodes} else "model"
    assert {("input.input_ids", loss), ("model.lm_head", loss)} <= edges(step), "the labels are the inputs"
    place = trial.node("model.transformer.h.0.ln_1").source
    assert place is not None and place.file.endswith("modeling_gpt2.py") and "ln_1" in place.text


@pytest.mark.supports("Parameters", "tied embeddings: one node, all names")
def test_tied_embeddings_are_one_node(tmp_path: Path) -> None:
    trial = recorded("gpt2", tmp_path)
    names = ("model.transformer.wte.weight", "model.lm_head.weight")
    owners = {module.path: info.names for module in trial.network for info in module.parameters if info.names == names}
    assert set(owners) == {"model.transformer.wte", "model.lm_head"}
    assert [node.name for node in trial.nodes if node.name in names] == [names[0]]
    assert edges(trial.step(0)) >= {(names[0], "model.transformer.wte"), (names[0], "model.lm_head")}
    weight = trial.step(0)
    assert {row.info.quantity for row in weight.rows() if row.info.node == names[0]} >= {
        "value", "gradient", "update", "exp_avg", "exp_avg_sq"
    }  # fmt: skip


def test_bert(tmp_path: Path) -> None:
    trial = recorded("bert", tmp_path)
    assert roles(trial, "model.bert") == {"output.last_hidden_state", "output.pooler_output"}
    assert roles(trial, "model.bert.encoder.layer.0.attention.self") == {"output.0"}
    assert edges(trial.step(0)) >= {
        ("model.bert.embeddings.word_embeddings", "model.bert.embeddings.LayerNorm"),
        ("model.bert.encoder.layer.0.attention.self.query", "model.bert.encoder.layer.0.attention.self"),
        ("input.attention_mask", "model.bert.encoder.layer.0.attention.self"),
        ("model.bert.encoder", "model.bert.pooler.dense"),
        ("model.bert", "model.dropout"),
        ("model.classifier", "model"),
    }


def test_vit(tmp_path: Path) -> None:
    trial = recorded("vit", tmp_path)
    assert edges(trial.step(0)) >= {
        ("input.pixel_values", "model.vit.embeddings.patch_embeddings.projection"),
        ("model.vit.embeddings.cls_token", "model.vit.embeddings.dropout"),
        ("model.vit", "model.classifier"),
    }
    assert trial.step(0).tensor("input.pixel_values").shape == (3, 3, 8, 8)


def test_t5(tmp_path: Path) -> None:
    trial = recorded("t5", tmp_path)
    assert roles(trial, "model") == {"output.loss", "output.logits", "output.encoder_last_hidden_state"}
    assert [
        node.name for node in trial.nodes if "embed_tokens.weight" in node.name or "lm_head.weight" in node.name
    ] == []
    assert edges(trial.step(0)) >= {
        ("model.shared.weight", "model.encoder.embed_tokens"),
        ("model.shared.weight", "model.decoder.embed_tokens"),
        ("model.shared.weight", "model.lm_head"),
        ("input.labels", "model.decoder.embed_tokens"),
        ("model.encoder", "model.decoder.block.0.layer.1.EncDecAttention.k"),
    }


@pytest.mark.supports("Steps", "evaluation under `inference_mode`")
def test_evaluation_without_gradients(tmp_path: Path) -> None:
    model = models.gpt2_model().eval()
    with Recorder(tmp_path, trial="trial", schedule=Every(1), strict=True) as recorder:
        recorder.watch(model, torch.optim.AdamW(model.parameters()))
        with recorder.step(kind="eval"), torch.inference_mode():
            model(models.words(), output_hidden_states=True)
    trial = open_trial(tmp_path / "trial")
    assert [name for name in trial.quantities if not name.startswith("attention_")] == ["value"]
    assert roles(trial, "model") == {"output.logits", *(f"output.hidden_states.{number}" for number in range(3))}
    assert not any(edge.differentiable for edge in trial.step(0).graph().edges)
