"""In data-parallel training Lightning calls ``training_step`` through ``forward``; the recording does not show it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

pytest.importorskip("pytorch_lightning", reason="needs the extra 'lightning'")

from stepscope.integrations.lightning import StepscopeCallback
from stepscope.store import Trial, open_trial
from support.lightning_models import Classifier, make_batches, make_trainer

pytestmark = [pytest.mark.filterwarnings("ignore::Warning"), pytest.mark.slow]


class CallsParts(Classifier):
    """Does without ``forward``."""

    def training_step(self, batch: tuple[torch.Tensor, torch.Tensor], batch_idx: int) -> torch.Tensor:
        x, y = batch
        return torch.nn.functional.cross_entropy(self.head(self.net(x)), y)


def fit(folder: Path, model: Classifier, **options: str) -> Trial:
    callback = StepscopeCallback(folder, trial="t", schedule=1, strict=True)
    make_trainer(callback, devices=1, use_distributed_sampler=False, **options).fit(
        model, make_batches(2), make_batches(1)
    )
    return open_trial(folder / "t")


@pytest.mark.parametrize("model_class", [Classifier, CallsParts])
@pytest.mark.supports("Lightning", "models wrapped for data-parallel training: the graph is that of one process")
def test_the_graph_is_that_of_one_process(model_class: type[Classifier], tmp_path: Path) -> None:
    torch.manual_seed(0)
    alone = fit(tmp_path / "alone", model_class())
    torch.manual_seed(0)
    parallel = fit(tmp_path / "parallel", model_class(), strategy="ddp")
    torch.distributed.destroy_process_group()
    assert [node.name for node in parallel.nodes] == [node.name for node in alone.nodes]
    for number in (0, 2):
        assert parallel.step(number).kind == alone.step(number).kind
        assert parallel.step(number).graph_digest() == alone.step(number).graph_digest()
    assert parallel.series("loss").values.tolist() == alone.series("loss").values.tolist()
