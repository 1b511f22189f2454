"""Labels of an evaluation that are numbered in another way than those of the training."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from stepscope.recorder import Every, Recorder
from stepscope.store import open_trial
from support.short_runs import blobs, descend, findings, mlp

ORDERS = {
    "one class has no folder": lambda y: (y - 1).clamp(min=0),
    "sorted as words": lambda y: torch.tensor([3, 0, 4, 1, 2])[y],
    "alike": lambda y: y,
    "by chance": lambda y: torch.randint(5, y.shape, generator=torch.Generator().manual_seed(int(y.sum()))),
}


@pytest.mark.parametrize("how", ORDERS)
def test_labels_in_another_numbering(how: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = mlp(8, 32, 5)
    optimizer = torch.optim.Adam(model.parameters(), 2e-2)
    with Recorder(tmp_path, trial="trial", schedule=Every(1), strict=True) as recorder:
        recorder.watch(model, optimizer)
        for number in range(60):
            points, labels = blobs(classes=5, seed=number)
            with recorder.step("train"):
                descend(F.cross_entropy(model(points), labels), optimizer)
            if number % 5 == 4:
                points, labels = blobs(classes=5, seed=1000 + number)
                labels = ORDERS[how](labels)
                with torch.no_grad(), recorder.step("validation") as step:
                    step.record("loss", F.cross_entropy(model(points), labels), type="loss")
    found = findings(open_trial(tmp_path / "trial"), "unrelated-targets")
    if how in ("alike", "by chance"):
        assert not found
    else:
        assert [finding.node for finding in found] == ["target"]
        assert "validation labels" in found[0].summary
