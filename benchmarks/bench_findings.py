"""How often the true cause is found in broken runs, and how often healthy ones are accused.

    python benchmarks/bench_findings.py            # a table: the run, the wanted node, what was found at which place

The broken runs were written from a list of common mistakes, without looking at the rules. The first measurement
(2026-11-21) found 17 and placed 17 of the 20 causes, and accused none of the 8 healthy runs; what it showed to be
missing was then mended, so that by now it is a test rather than an estimate. A cause counts as *found* if one of the
first three findings names one of the wanted rules; it counts as *placed* if one of them names the wanted node or one
that is directly connected to it.
"""

from __future__ import annotations

import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional as F

from stepscope.analysis import Finding, diagnose
from stepscope.recorder import Every, Recorder
from stepscope.store import Trial, open_trial

STEPS = 80
Batch = tuple[torch.Tensor, torch.Tensor]
Loss = Callable[[nn.Module, torch.Tensor, torch.Tensor], torch.Tensor]


@dataclass
class Run:
    """One training run and what is wrong with it.

    ``rules`` are the names that tell the cause (empty: the run is healthy), ``nodes`` where it lies.
    """

    name: str
    rules: tuple[str, ...] = ()
    nodes: tuple[str, ...] = ()
    model: Callable[[], nn.Module] = lambda: classifier()
    data: Callable[[int], Batch] = lambda number: classes(number)
    loss: Loss = lambda model, x, y: F.cross_entropy(model(x), y)
    lr: float = 1e-2
    zero_grad: bool = True
    optimized: Callable[[nn.Module], Iterator[nn.Parameter]] = lambda model: model.parameters()
    sign: float = 1.0


def classifier(act: Callable[[], nn.Module] = nn.ReLU, width: int = 32) -> nn.Sequential:
    return nn.Sequential(nn.Linear(10, width), act(), nn.Linear(width, width), act(), nn.Linear(width, 4))


def regressor() -> nn.Sequential:
    return nn.Sequential(nn.Linear(10, 32), nn.ReLU(), nn.Linear(32, 1))


def classes(number: int, scale: float = 1.0, shift: float = 0.0) -> Batch:
    draw = torch.Generator().manual_seed(number)
    x = torch.randn(64, 10, generator=draw)
    y = (x[:, 0] > 0).long() * 2 + (x[:, 1] + x[:, 2] > 0).long()
    return x * scale + shift, y


def numbers(number: int) -> Batch:
    x, _ = classes(number)
    return x, (x[:, :3].sum(1, keepdim=True) + x[:, 3:4] * x[:, 4:5])


def with_(model: nn.Sequential, change: Callable[[nn.Sequential], object]) -> nn.Sequential:
    with torch.no_grad():
        change(model)
    return model


def _kill(model: nn.Sequential) -> None:
    model[2].bias.fill_(-30.0)


def _same(model: nn.Sequential) -> None:
    for parameter in model.parameters():
        parameter.fill_(0.05)


def _large(model: nn.Sequential) -> None:
    model[2].weight.mul_(60)


def _deep(act: Callable[[], nn.Module], depth: int = 14) -> nn.Sequential:
    layers: list[nn.Module] = [nn.Linear(10, 24), act()]
    for _ in range(depth):
        layers += [nn.Linear(24, 24), act()]
    return nn.Sequential(*layers, nn.Linear(24, 4))


class Cut(nn.Module):
    """The gradient of its encoder is cut off."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder, self.head = nn.Linear(10, 32), nn.Linear(32, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(F.relu(self.encoder(x)).detach())


class Forgotten(nn.Module):
    """One of its layers is never called."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.extra, self.last = nn.Linear(10, 32), nn.Linear(32, 32), nn.Linear(32, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(F.relu(self.first(x)))


class LogOfZero(nn.Module):
    """Takes a logarithm that becomes minus infinity."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.gate, self.last = nn.Linear(10, 32), nn.ReLU(), nn.Linear(32, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(torch.log(self.gate(self.first(x))))


def softmaxed(model: nn.Module, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    return F.cross_entropy(F.softmax(model(x), dim=1), y)


def squared(model: nn.Module, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    return F.mse_loss(model(x), y)


def broadcast(model: nn.Module, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return F.mse_loss(model(x), y[:, 0])


BROKEN = (
    Run("softmax before cross_entropy", ("activation-before-loss", "unreachable-targets"), ("loss", "model"),
        loss=softmaxed),
    Run("ReLU on the output of a regression", ("unreachable-targets",), ("model", "model.3"),
        model=lambda: nn.Sequential(*regressor(), nn.ReLU()), data=numbers, loss=squared),
    Run("targets broadcast against predictions", ("broadcast-target",), ("loss", "target", "model"),
        model=regressor, data=numbers, loss=broadcast),
    Run("learning rate far too high", ("learning-rate", "loss-divergence", "loss-spike", "exploding-gradient"),
        ("loss", "model", "model.0.weight", "model.2.weight", "model.4.weight"), lr=30.0),
    Run("learning rate far too low", ("learning-rate",), ("model.0.weight", "model.2.weight", "model.4.weight"),
        lr=1e-9),
    Run("zero_grad is missing", ("accumulated-gradients",), ("model.0.weight", "model.2.weight", "model.4.weight"),
        zero_grad=False),
    Run("a layer is not in the optimizer", ("unchanged-parameters", "no-optimizer"), ("model.2.weight", "model.2.bias"),
        optimized=lambda model: (p for n, p in model.named_parameters() if not n.startswith("2."))),
    Run("the gradient is cut by detach", ("gradient-cut", "no-gradient"), ("model.encoder", "model.head"), model=Cut),
    Run("a module is never called", ("module-never-called", "no-gradient"), ("model.extra", "model.extra.weight"),
        model=Forgotten),
    Run("dead ReLU units", ("dead-units",), ("model.3", "model.2"), model=lambda: with_(classifier(), _kill)),
    Run("all weights are equal", ("weight-scale", "symmetric-weights", "constant-output"),
        ("model.0.weight", "model.2.weight", "model.4.weight"), model=lambda: with_(classifier(), _same)),
    Run("one layer is initialised far too large", ("weight-scale", "exploding-gradient", "loss-start"),
        ("model.2.weight", "model.2"), model=lambda: with_(classifier(), _large), lr=1e-4),
    Run("sigmoids make gradients vanish", ("vanishing-gradient",), ("model.0", "model.1", "model.2"),
        model=lambda: _deep(nn.Sigmoid)),
    Run("tanh saturated by unscaled inputs", ("saturated-activation", "input-scale"), ("input", "model.1", "model.0"),
        model=lambda: classifier(nn.Tanh), data=lambda n: classes(n, scale=300.0)),
    Run("inputs far from zero", ("input-scale",), ("input", "model.0"), data=lambda n: classes(n, shift=500.0)),
    Run("no activation between layers", ("missing-nonlinearity",), ("model.0", "model.1", "model.2"),
        model=lambda: nn.Sequential(nn.Linear(10, 32), nn.Linear(32, 32), nn.Linear(32, 4))),
    Run("the logarithm of zero", ("non-finite",), ("model.last", "model.gate"), model=LogOfZero),
    Run("the loss is maximised", ("loss-divergence",), ("loss", "model"), sign=-1.0, lr=3e-2),
    Run("every input is the same", ("constant-data",), ("input",),
        data=lambda n: (classes(0)[0][:1].repeat(64, 1), classes(n)[1])),
    Run("BatchNorm over two samples", ("small-batch-norm",), ("model.1",),
        model=lambda: nn.Sequential(nn.Linear(10, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Linear(32, 4)),
        data=lambda n: tuple(part[:2] for part in classes(n))),  # type: ignore[arg-type,return-value]
)  # fmt: skip

HEALTHY = (
    Run("a classifier"),
    Run("a regression", model=regressor, data=numbers, loss=squared),
    Run("tanh", model=lambda: classifier(nn.Tanh)),
    Run("GELU and layer norm", model=lambda: nn.Sequential(
        nn.Linear(10, 32), nn.LayerNorm(32), nn.GELU(), nn.Linear(32, 32), nn.GELU(), nn.Linear(32, 4))),
    Run("batch norm", model=lambda: nn.Sequential(
        nn.Linear(10, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Linear(32, 4))),
    Run("dropout", model=lambda: nn.Sequential(
        nn.Linear(10, 64), nn.ReLU(), nn.Dropout(0.3), nn.Linear(64, 4))),
    Run("a wide one", model=lambda: classifier(width=256), lr=2e-3),
    Run("a logistic regression", model=lambda: nn.Sequential(nn.Linear(10, 4))),
)  # fmt: skip


def record(run: Run, folder: Path) -> Trial:
    """Train and record a run."""
    torch.manual_seed(1)
    model = run.model()
    optimizer = torch.optim.Adam(run.optimized(model), run.lr)
    with Recorder(folder, trial=run.name, schedule=Every(2)) as recorder:
        recorder.watch(model, optimizer)
        for number in range(STEPS):
            x, y = run.data(number)
            with recorder.step():
                loss = run.sign * run.loss(model, x, y)
                if run.zero_grad:
                    optimizer.zero_grad()
                loss.backward()
                optimizer.step()
    return open_trial(folder / run.name)


def neighbours(trial: Trial, nodes: tuple[str, ...]) -> set[str]:
    """The nodes themselves, and those directly connected to them."""
    found = set(nodes)
    graph = trial.step(int(trial.steps[0])).graph()
    for edge in graph.edges:
        names = graph.vertices[edge.source].node, graph.vertices[edge.sink].node
        if set(names) & set(nodes):
            found.update(names)
    return found


def _names(finding: Finding) -> set[str]:
    return {finding.node, *finding.nodes}


def main() -> int:
    found = placed = 0
    print("| broken run | found | placed | first three findings |\n|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        for run in BROKEN:
            trial = record(run, Path(folder) / "broken")
            first = diagnose(trial)[:3]
            is_found = any(finding.rule in run.rules for finding in first)
            is_placed = any(_names(finding) & neighbours(trial, run.nodes) for finding in first)
            found, placed = found + is_found, placed + is_placed
            text = "; ".join(f"{finding.level} {finding.rule} at {finding.node or 'no node'}" for finding in first)
            print(f"| {run.name} | {'yes' if is_found else 'NO'} | {'yes' if is_placed else 'NO'} | {text or '–'} |")
        print(f"\nfound {found} of {len(BROKEN)}, placed {placed} of {len(BROKEN)}\n")
        accused = 0
        for run in HEALTHY:
            wrong = [f for f in diagnose(record(run, Path(folder) / "healthy")) if f.level != "info"]
            accused += bool(wrong)
            if wrong:
                print(f"- healthy run accused: {run.name}: {wrong[0].rule} at {wrong[0].node}: {wrong[0].summary}")
        print(f"healthy runs with a warning: {accused} of {len(HEALTHY)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
