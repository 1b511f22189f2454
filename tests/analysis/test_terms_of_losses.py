"""Rules about what a loss is made of: terms without gradient, entropies, masks, mixtures, sums; and look-alikes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from stepscope.analysis import diagnose
from stepscope.recorder import Recorder
from stepscope.store import open_trial
from support.short_runs import Batch, blobs, findings, mlp, record


def told(folder: Path, model: nn.Module, loss_of: Any, data: Any, rule: str, steps: int = 8) -> list[str]:
    """The levels of what a rule finds in a short run."""
    torch.manual_seed(0)
    return [finding.level for finding in findings(record(folder, model, loss_of, data, steps=steps), rule)]


def classified(number: int) -> Batch:
    return blobs(seed=number)


def played(model: nn.Module, x: torch.Tensor, way: str) -> torch.Tensor:
    """A policy gradient with a bonus for its entropy."""
    with torch.no_grad():
        old = model(x).log_softmax(1)
    chances = model(x).log_softmax(1)
    action = torch.randint(4, (len(x), 1))
    gain = (action[:, 0] == 1).float() - 0.5
    taken = (old if "kept" in way else chances).gather(1, action)[:, 0]
    if "ratio" in way:
        taken = (taken - old.gather(1, action)[:, 0]).exp()
    policy = -(taken * gain).mean()
    if "distribution" in way:
        entropy = torch.distributions.Categorical(logits=chances).entropy().mean()
    elif "softmax" in way:
        scores = model(x)
        entropy = -(F.softmax(scores, 1) * F.log_softmax(scores, 1)).sum(1).mean()
    else:
        entropy = -(chances.exp() * chances).sum(1).mean()
    return policy + (0.1 if "added" in way else -0.1) * entropy


@pytest.mark.parametrize("way", ["kept", "kept, ratio", "", "ratio"])
def test_a_policy_whose_log_probabilities_were_kept_without_gradient(way: str, tmp_path: Path) -> None:
    model = mlp(8, 16, 4)
    levels = told(tmp_path, model, lambda x, y: played(model, x, way), classified, "terms-without-gradient")
    assert levels == (["warning"] if "kept" in way else [])


@pytest.mark.parametrize("way", ["added", "added, distribution", "added, softmax", "", "distribution", "softmax"])
def test_an_entropy_that_is_made_small(way: str, tmp_path: Path) -> None:
    model = mlp(8, 16, 4)
    levels = told(tmp_path, model, lambda x, y: played(model, x, way), classified, "entropy-sign")
    assert levels == (["warning"] if "added" in way else [])


def test_an_entropy_may_be_made_small_to_learn_without_labels(tmp_path: Path) -> None:
    model = mlp(8, 16, 4)

    def loss_of(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        chances = model(x).log_softmax(1)
        return F.nll_loss(chances[:8], y[:8]) - 0.1 * (chances.exp() * chances).sum(1).mean()

    assert told(tmp_path, model, loss_of, classified, "entropy-sign") == []


def lines(number: int) -> Batch:
    return torch.rand(32, 1, generator=torch.Generator().manual_seed(number)), torch.zeros(32)


@pytest.mark.parametrize("way", ["equation", "penalty", "read", "right", "attack", "balanced"])
def test_derivatives_without_a_graph(way: str, tmp_path: Path) -> None:
    model = mlp(1, 16, 1)

    def loss_of(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        x = x.clone().requires_grad_()
        height = model(x)
        if way == "read":
            height.sum().backward(retain_graph=True)
            return (x.grad - height).square().mean()  # type: ignore[operator]
        if way == "attack":
            (slope,) = torch.autograd.grad(height.square().sum(), x)
            return model(x + 0.1 * slope.sign()).square().mean()
        if way == "balanced":
            terms = height.square().mean(), (height - 1).abs().mean()
            sizes = [torch.autograd.grad(term, model[0].weight, retain_graph=True)[0].norm() for term in terms]
            return terms[0] + (sizes[0] / sizes[1]) * terms[1]
        (slope,) = torch.autograd.grad(height.sum(), x, retain_graph=True, create_graph=way == "right")
        if way == "penalty":
            return height.mean() + 10 * (slope.norm(dim=1) - 1).square().mean()
        return (slope - height).square().mean() + model(torch.zeros(1, 1)).square().mean()

    levels = told(tmp_path, model, loss_of, lines, "terms-without-gradient")
    assert levels == (["warning"] if way in ("equation", "penalty", "read") else [])


@pytest.mark.parametrize("way", ["detached", "number", "teacher", "frozen critic"])
def test_terms_that_may_be_constants(way: str, tmp_path: Path) -> None:
    model, other = mlp(8, 16, 4), mlp(8, 16, 4)
    if way == "frozen critic":
        other.requires_grad_(False)

    def loss_of(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        loss = F.cross_entropy(model(x), y)
        if way == "detached":
            return loss + model(x).mean().detach()
        if way == "number":
            return loss + 0.1 * torch.ones(())
        if way == "frozen critic":
            return other(x).mean() - other(x + model(x).repeat(1, 2)).mean() + loss
        with torch.no_grad():
            share = other(x).softmax(1)
        return loss + (share * share.log()).sum(1).mean() - (share * model(x).log_softmax(1)).sum(1).mean()

    assert told(tmp_path, model, loss_of, classified, "terms-without-gradient") == []


@pytest.mark.parametrize("way", ["amax", "max", "gather", "instances"])
def test_the_value_of_the_best_action(way: str, tmp_path: Path) -> None:
    model, later = mlp(8, 16, 4), mlp(8, 16, 4)

    def loss_of(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            wanted = y / 4 + 0.9 * later(x.roll(1, 0)).max(1).values
        found = model(x)
        if way == "gather":
            return F.mse_loss(found.gather(1, y[:, None])[:, 0], wanted)
        if way == "instances":
            return F.mse_loss(found.amax(1), y / 4)
        return F.smooth_l1_loss(found.amax(1), wanted) if way == "amax" else (found.max(1)[0] - wanted).square().mean()

    levels = told(tmp_path, model, loss_of, classified, "greatest-answer")
    assert levels == (["warning"] if way in ("amax", "max") else [])


class Pooling(nn.Module):
    """Weighs the moments ``(32, 6, 4)`` of a sequence by scores, some of which are to be hidden."""

    def __init__(self, way: str) -> None:
        super().__init__()
        self.score, self.head, self.way = nn.Linear(4, 1), nn.Linear(4, 3), way

    def forward(self, x: torch.Tensor, real: torch.Tensor) -> torch.Tensor:
        scores = self.score(x)[:, :, 0]
        if self.way == "product":
            weights = (scores * real).softmax(1)
        elif self.way == "product of floats":
            weights = F.softmax(scores * real.float() / 2, dim=1)
        elif self.way == "after":
            weights = scores.softmax(1) * real
        elif self.way == "gate":
            weights = (scores * x[:, :, 0]).softmax(1)
        else:
            weights = scores.masked_fill(~real, -torch.inf).softmax(1)
        return self.head((weights[:, :, None] * x).sum(1))


@pytest.mark.parametrize("way", ["product", "product of floats", "after", "gate", "filled"])
def test_scores_that_are_multiplied_with_a_mask(way: str, tmp_path: Path) -> None:
    model = Pooling(way)

    def sequences(number: int) -> tuple[torch.Tensor, ...]:
        x = torch.randn(32, 6, 4, generator=torch.Generator().manual_seed(number))
        return x, torch.arange(6) < 2 + torch.arange(32)[:, None] % 5, x[:, 0, :3].argmax(1)

    levels = told(tmp_path, model, lambda x, r, y: F.cross_entropy(model(x, r), y), sequences, "masked-attention")
    assert levels == (["warning"] if "product" in way else [])


@pytest.mark.parametrize(("over", "name"), [(1, "heads"), (2, "queries"), (3, ""), (-1, "")])
def test_a_softmax_over_the_heads(over: int, name: str, tmp_path: Path) -> None:
    project, head = nn.Linear(8, 24), nn.Linear(8, 4)
    model = nn.ModuleDict({"project": project, "head": head})

    def loss_of(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        query, key, value = (part.unflatten(2, (2, 4)).transpose(1, 2) for part in project(x).chunk(3, dim=2))
        weights = (query @ key.transpose(2, 3)).softmax(over)
        return F.cross_entropy(head((weights @ value).transpose(1, 2).flatten(2))[:, 0], y)

    def sequences(number: int) -> Batch:
        x = torch.randn(16, 5, 8, generator=torch.Generator().manual_seed(number))
        return x, x[:, 0].argmax(1) % 4

    assert told(tmp_path, model, loss_of, sequences, "softmax-over-batch") == (["error"] if name else [])


@pytest.mark.parametrize("way", ["bytes", "shorts", "masks"])
def test_bytes_that_wrap_around(way: str, tmp_path: Path) -> None:
    model = mlp(8, 16, 1)

    def frames(number: int) -> Batch:
        highest = 2 if way == "masks" else 250
        x = torch.randint(highest, (32, 2, 8), generator=torch.Generator().manual_seed(number), dtype=torch.uint8)
        return x, x[:, 0, 0].float() - x[:, 1, 0]

    def loss_of(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        x = x.short() if way == "shorts" else x
        return F.mse_loss(model((x[:, 0] - x[:, 1]) / 50)[:, 0], y / 50)

    whole = Watching(model, loss_of)
    assert told(tmp_path, whole, whole, frames, "wrapped-bytes") == (["error"] if way == "bytes" else [])


class Watching(nn.Module):
    """A model whose own input is what it is given, before anything is done to it."""

    def __init__(self, model: nn.Module, loss_of: Any) -> None:
        super().__init__()
        self.model, self.loss_of = model, loss_of

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        loss: torch.Tensor = self.loss_of(x, y)
        return loss


@pytest.mark.parametrize("way", ["real", "abs", "both", "back", "mixing"])
def test_the_real_part_of_a_spectrum(way: str, tmp_path: Path) -> None:
    enter, head = nn.Linear(16, 16), nn.Linear(18 if way == "both" else 16 if way in ("back", "mixing") else 9, 4)
    model = nn.ModuleDict({"enter": enter, "head": head})

    def loss_of(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        if way == "mixing":
            return F.cross_entropy(head(torch.fft.fft(enter(x)).real), y)
        if way == "back":
            return F.cross_entropy(head(torch.fft.ifft(torch.fft.fft(x) * torch.arange(16).lt(8)).real), y)
        heard = torch.fft.rfft(x)
        seen = {"real": heard.real, "abs": heard.abs()}.get(way)
        return F.cross_entropy(head(torch.cat([heard.real, heard.imag], 1) if seen is None else seen), y)

    def waves(number: int) -> Batch:
        x = torch.randn(32, 16, generator=torch.Generator().manual_seed(number))
        return x, x[:, :4].argmax(1)

    whole = Watching(model, loss_of)
    assert told(tmp_path, whole, whole, waves, "lost-phase") == (["warning"] if way == "real" else [])


@pytest.mark.parametrize("way", ["noise", "mask", "clean", "plain", "made in the step"])
def test_a_denoiser_that_is_asked_for_the_noise_again(way: str, tmp_path: Path) -> None:
    model = mlp(8, 16, 8)

    def loss_of(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        if way == "plain":
            return F.mse_loss(model(x), x)
        if way == "made in the step":
            made = torch.eye(8)[y] + 0.5 * torch.randn(len(y), 8)
            return F.mse_loss(model(made), made)
        noisy = F.dropout(x, 0.3) if way == "mask" else x + 0.5 * torch.randn_like(x)
        return F.mse_loss(model(noisy), x if way == "clean" else noisy)

    expected = ["warning"] if way in ("noise", "mask") else []
    assert told(tmp_path, model, loss_of, classified, "targets-equal-inputs") == expected


@pytest.mark.parametrize("way", ["swapped", "swapped, flipped", "right", "right, flipped", "without samples"])
def test_shares_of_a_mixture(way: str, tmp_path: Path) -> None:
    model = mlp(8, 16, 4)

    def loss_of(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        share = float(torch.rand(())) if "flipped" in way else torch.rand(())
        order = torch.randperm(len(x))
        other, wanted = (x.flip(0), y.flip(0)) if "flipped" in way else (x[order], y[order])
        scores = model(x if way == "without samples" else share * x + (1 - share) * other)
        first, second = (share, 1 - share) if "right" in way else (1 - share, share)
        return first * F.cross_entropy(scores, y) + second * F.cross_entropy(scores, wanted)

    levels = told(tmp_path, model, loss_of, classified, "swapped-shares")
    assert levels == (["error"] if "swapped" in way else [])


@pytest.mark.parametrize("way", ["by hand", "buffer", "stopped", "short", "constant"])
def test_a_weight_that_grows_on_and_on(way: str, tmp_path: Path) -> None:
    model, step = mlp(8, 16, 4), 0

    def loss_of(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        nonlocal step
        step += 1
        weight = {"stopped": min(1.0, step / 8), "short": step / 30, "constant": 4.0}.get(way, step / 4)
        factor = torch.tensor(weight) if way == "buffer" else weight
        return F.cross_entropy(model(x), y) + factor * model(x).square().mean()

    levels = told(tmp_path, model, loss_of, classified, "loss-balance", steps=24)
    assert levels == (["warning"] if way in ("by hand", "buffer") else [])


@pytest.mark.parametrize("way", ["sum", "mean", "divided", "even"])
def test_sums_over_texts_of_other_lengths(way: str, tmp_path: Path) -> None:
    model = mlp(8, 16, 4)

    def texts(number: int) -> Batch:
        return blobs(320 if number == 15 and way != "even" else 32, seed=number)

    def loss_of(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        reduction = "mean" if way == "mean" else "sum"
        return F.cross_entropy(model(x), y, reduction=reduction) / (len(y) if way == "divided" else 32)

    expected = ["warning"] if way == "sum" else []
    assert told(tmp_path, model, loss_of, texts, "extreme-batch", steps=24) == expected


def test_what_weighs_the_terms_is_kept_as_facts(tmp_path: Path) -> None:
    model = mlp(8, 16, 4)
    with Recorder(tmp_path, trial="t", schedule=1, strict=True) as recorder:
        recorder.watch(model)
        with recorder.step():
            x, y = blobs()
            (2.5 * F.cross_entropy(model(x), y) + torch.tensor(0.5) * model(x).square().mean()).backward()
    assert open_trial(tmp_path / "t").step(0).facts["loss_factors"] == [2.5, 0.5]
    assert isinstance(diagnose(open_trial(tmp_path / "t")), tuple)


def test_numbers_within_vmap_are_left_alone(tmp_path: Path) -> None:
    model = mlp(8, 16, 4)

    def loss_of(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        scores = torch.vmap(lambda row, share, keep: row * share + (row[None] * keep).sum(0))(
            model(x), torch.rand(len(x)), (torch.rand(len(x), 2, 4) < 0.5).float()
        )
        return F.cross_entropy(scores, y)

    assert told(tmp_path, model, loss_of, classified, "loss-balance") == []


@pytest.mark.parametrize("way", ["detached", "whole", "only looked at", "a teacher's"])
def test_a_term_of_a_detached_prediction_trains_nothing(way: str, tmp_path: Path) -> None:
    model = nn.ModuleDict({"make": nn.Linear(8, 4), "judge": nn.Linear(4, 1)})

    def loss_of(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        made = model["make"](x)
        judged = model["judge"](made)
        error = F.mse_loss(made, F.one_hot(y, 4).float())
        if way == "detached":
            judged = judged.detach()
        if way == "a teacher's":
            return error + F.mse_loss(judged, 2 * judged.detach())
        term = F.binary_cross_entropy_with_logits(
            judged.detach() if way == "only looked at" else judged, (y[:, None] > 1).float()
        )
        return error if way == "only looked at" else error + term

    levels = told(tmp_path, model, loss_of, classified, "terms-without-gradient")
    assert levels == (["warning"] if way == "detached" else [])
