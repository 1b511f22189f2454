"""What is measured of attention: right numbers for every way to compute one, and training goes on unchanged."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from stepscope.recorder import Every, Recorder, RecorderWarning, attention
from stepscope.recorder.attention import measure
from stepscope.recorder.attention_scores import Scores
from stepscope.store import Trial, open_trial
from support.training import Training, open_recorder, simple, train

QUANTITIES = ("attention_entropy", "attention_logit", "attention_masked", "attention_future")
WIDTH, HEADS, LENGTH, BATCH = 16, 4, 6, 3


class Attention(nn.Module):
    """Self-attention, computed in one of several ways."""

    def __init__(self, how: str, *, causal: bool = True) -> None:
        super().__init__()
        self.how, self.causal = how, causal
        self.inner = nn.MultiheadAttention(WIDTH, HEADS, batch_first=True)
        self.soft = nn.Softmax(dim=-1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        length = x.shape[1]
        seen = torch.ones(length, length, dtype=torch.bool).tril() if self.causal else None
        if self.how == "module":
            return self.inner(x, x, x, attn_mask=None if seen is None else ~seen, need_weights=False)[0]
        q, k, v = F.linear(x, self.inner.in_proj_weight, self.inner.in_proj_bias).chunk(3, -1)
        q, k, v = (part.unflatten(-1, (HEADS, -1)).transpose(1, 2) for part in (q, k, v))
        if self.how == "fused":
            mixed = F.scaled_dot_product_attention(q, k, v, is_causal=self.causal)
        elif self.how == "fused with a mask":
            mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=seen)
        else:
            scores = q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])
            if seen is not None:
                scores = scores.masked_fill(~seen, -1e9 if self.how == "by hand, large" else -math.inf)
            mixed = (self.soft(scores) if self.how == "by a module" else scores.softmax(-1)) @ v
        return self.inner.out_proj(mixed.transpose(1, 2).flatten(2))

    def scores(self, x: torch.Tensor) -> torch.Tensor:
        """The naive twin: ``(batch, heads, queries, keys)``."""
        q, k, _ = F.linear(x, self.inner.in_proj_weight, self.inner.in_proj_bias).chunk(3, -1)
        q, k = (part.unflatten(-1, (HEADS, -1)).transpose(1, 2) for part in (q, k))
        found = (q @ k.transpose(-1, -2) / math.sqrt(WIDTH // HEADS)).double()
        return found.masked_fill(~torch.ones(x.shape[1], x.shape[1]).tril().bool(), -math.inf) if self.causal else found


HOW = ("module", "fused", "fused with a mask", "by hand", "by hand, large", "by a module")


def record(folder: Path, model: nn.Module, call: Callable[[], torch.Tensor], steps: int = 1) -> Trial:
    with Recorder(folder, trial="trial", schedule=Every(1), strict=True) as recorder:
        recorder.watch(model, torch.optim.SGD(model.parameters(), lr=0.1))
        for _ in range(steps):
            with recorder.step():
                call().sum().backward()
    return open_trial(folder / "trial")


def inputs() -> torch.Tensor:
    return torch.randn(BATCH, LENGTH, WIDTH, generator=torch.Generator().manual_seed(3))


def twin(scores: torch.Tensor) -> dict[str, tuple[float, float]]:
    """Mean and largest value of each quantity, one row at a time."""
    rows: dict[str, list[float]] = {name: [] for name in QUANTITIES}
    for number, row in enumerate(scores.reshape(-1, scores.shape[-1])):
        allowed = row[row > -math.inf]
        query = number % scores.shape[-2]
        rows["attention_masked"].append(float(len(allowed) == 0))
        if len(allowed) > 1:
            weights = [math.exp(x - max(allowed)) for x in allowed.tolist()]
            shares = [weight / sum(weights) for weight in weights]
            rows["attention_entropy"].append(-sum(p * math.log(p) for p in shares) / math.log(len(allowed)))
        if len(allowed):
            rows["attention_logit"].append(float(allowed.max()))
            rows["attention_future"].append(float(row.softmax(0)[query + 1 :].sum()))
    return {name: (sum(values) / len(values), max(values)) for name, values in rows.items()}


@pytest.mark.supports(
    "Modules and outputs",
    "attention, computed by `MultiheadAttention`, `scaled_dot_product_attention` or by hand: entropy, scores, masks",
    limit="a sample of 32 queries of 8 heads; not inside a function transform or a compiled `flex_attention`",
)
@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("how", HOW)
def test_every_way_gives_the_numbers_of_a_naive_twin(how: str, causal: bool, tmp_path: Path) -> None:
    model = Attention(how, causal=causal)
    x = inputs()[:2]  # two entries times four heads: all that is looked at
    expected = twin(model.scores(x).detach())
    trial = record(tmp_path, model, lambda: model(x))
    node = "model.inner" if how == "module" else "model"
    for quantity in QUANTITIES:
        found = trial.step(0).tensor(node, quantity=quantity).statistics
        assert (found["mean"], found["max"]) == pytest.approx(expected[quantity], abs=1e-5), quantity
    assert set(QUANTITIES) < set(trial.node(node).quantities)


@pytest.mark.supports("Training is not changed", "where attention is looked at, under autocast, too")
@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("autocast", [False, True])
def test_training_is_bitwise_the_same(how: str, autocast: bool, tmp_path: Path) -> None:
    def make() -> Training:
        model = Attention(how)

        def loss() -> torch.Tensor:
            with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
                return model(torch.randn(BATCH, LENGTH, WIDTH)).square().mean()

        return simple(model, loss)

    expected = train(make, 3, None)
    with open_recorder(tmp_path, Every(1)) as recorder:
        found = train(make, 3, recorder)
    assert found == expected
    trial = open_trial(tmp_path / "trial")
    assert "attention_entropy" in trial.quantities and trial.messages == ()


def test_without_gradients(tmp_path: Path) -> None:
    model = Attention("fused")
    with Recorder(tmp_path, trial="trial", schedule=Every(1), strict=True) as recorder:
        recorder.watch(model)
        with recorder.step(kind="validation"), torch.no_grad():
            model(inputs())
    assert "attention_future" in open_trial(tmp_path / "trial").node("model").quantities


def test_a_fault_in_looking_does_not_stop_the_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: object) -> None:
        raise RuntimeError("broken on purpose")

    monkeypatch.setattr(attention, "measure", fail)
    model = Attention("fused")
    with Recorder(tmp_path, trial="trial", schedule=Every(1)) as recorder:
        recorder.watch(model)
        with pytest.warns(RecorderWarning, match="looking at an attention"), recorder.step():
            model(inputs()).sum().backward()
    trial = open_trial(tmp_path / "trial")
    assert "attention_entropy" not in trial.quantities and trial.step(0).tensor("model").statistics["std"] > 0


class Layer(nn.Module):
    """A call of any function."""

    def __init__(self, function: Callable[..., torch.Tensor], *sizes: int) -> None:
        super().__init__()
        self.function = function
        self.layers = nn.ModuleList(nn.Linear(size, size) for size in sizes)

    def forward(self, *inputs: torch.Tensor) -> torch.Tensor:
        return self.function(*(layer(x) for layer, x in zip(self.layers, inputs, strict=True)))


def measured(folder: Path, model: nn.Module, *inputs: torch.Tensor) -> dict[str, Any]:
    trial = record(folder, model, lambda: model(*inputs))
    found = {}
    for quantity in set(trial.quantities).intersection(QUANTITIES):
        found[quantity] = trial.step(0).tensor("model", quantity=quantity).statistics
    return found


def test_what_is_no_attention_is_left_alone(tmp_path: Path) -> None:
    words = nn.Embedding(9, 8)
    over_words = Layer(lambda x: (x @ words.weight.T).softmax(-1), 8)
    over_words.words = words
    for number, model in enumerate(
        [Layer(lambda x: x.softmax(-1), 8), over_words, Layer(lambda x: (x @ x.mT).softmax(1), 8)]
    ):
        assert measured(tmp_path / str(number), model, torch.randn(2, 5, 8)) == {}


def test_more_keys_than_queries_and_shared_heads(tmp_path: Path) -> None:
    def attend(q: torch.Tensor, k: torch.Tensor) -> torch.Tensor:
        return F.scaled_dot_product_attention(q, k, k, enable_gqa=True)

    model = Layer(attend, 4, 4)
    q, k = torch.randn(2, 8, 5, 4), torch.randn(2, 2, 7, 4)
    found = measured(tmp_path, model, q, k)
    assert "attention_future" not in found
    with torch.no_grad():
        projected = model.layers[1](k).repeat_interleave(4, 1)
        scores = model.layers[0](q) @ projected.mT / 2
    assert found["attention_logit"]["max"] == pytest.approx(float(scores[0].max()), abs=1e-5)
    assert found["attention_logit"]["mean"] == pytest.approx(float(scores[0].amax(-1).mean()), abs=1e-5)


def test_rows_that_may_look_at_nothing(tmp_path: Path) -> None:
    mask = torch.ones(5, 5, dtype=torch.bool)
    mask[1] = False
    model = Layer(lambda x: F.scaled_dot_product_attention(x, x, x, attn_mask=mask), 4)
    found = measured(tmp_path, model, torch.randn(2, 5, 4))
    assert found["attention_masked"]["mean"] == pytest.approx(0.2)
    assert all(statistics["nan_count"] == statistics["inf_count"] == 0 for statistics in found.values())


def test_several_attentions_of_one_module_are_joined(tmp_path: Path) -> None:
    def twice(x: torch.Tensor) -> torch.Tensor:
        return F.scaled_dot_product_attention(x, x, x) + F.scaled_dot_product_attention(100 * x, x, x)

    found = measured(tmp_path, Layer(twice, 4), torch.randn(2, 5, 4))
    assert found["attention_entropy"]["min"] < 0.3 < 0.9 < found["attention_entropy"]["max"]


def test_a_module_that_is_called_twice_has_both(tmp_path: Path) -> None:
    model = nn.ModuleDict({"attention": Attention("fused", causal=False)})

    def call() -> torch.Tensor:
        return model["attention"](model["attention"](inputs()))

    step = record(tmp_path, model, call).step(0)
    for role in ("call 0", "call 1"):
        assert step.tensor("model.attention", role=role, quantity="attention_entropy").statistics["mean"] > 0.5


def test_a_sample_of_a_long_sequence(tmp_path: Path) -> None:
    model = Layer(lambda x: F.scaled_dot_product_attention(x, x, x, is_causal=True), 4)
    found = measured(tmp_path, model, torch.randn(2, 12, 300, 4))
    assert found["attention_future"]["max"] == 0
    trial = open_trial(tmp_path / "trial")
    assert trial.step(0).tensor("model", quantity="attention_entropy").shape == (6 * 30,)


def test_scores_that_are_not_finite_are_not_called_masked() -> None:
    found = measure(Scores(torch.full((1, 2, 2), math.nan), 1, 2))
    assert not found["attention_masked"].any() and found["attention_logit"].isnan().all()
