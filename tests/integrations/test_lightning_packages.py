"""The callback works with both names under which Lightning is published, and says so when there is neither."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pl = pytest.importorskip("pytorch_lightning", reason="needs the extra 'lightning'")

TRAIN = """
import sys, warnings
warnings.simplefilter("ignore")
import lightning.pytorch as pl, torch
from torch.utils.data import DataLoader, TensorDataset
from stepscope.integrations.lightning import StepscopeCallback

class Model(pl.LightningModule):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(4, 2)
    def training_step(self, batch, batch_idx):
        loss = self.layer(batch[0]).square().mean()
        self.log("loss", loss)
        return loss
    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)

callback = StepscopeCallback(sys.argv[1], trial="t", schedule=1, strict=True)
assert isinstance(callback, pl.Callback)
assert "pytorch_lightning" not in sys.modules
pl.Trainer(max_steps=3, callbacks=[callback], accelerator="cpu", logger=False, enable_checkpointing=False,
           enable_model_summary=False, enable_progress_bar=False).fit(
    Model(), DataLoader(TensorDataset(torch.randn(20, 4)), batch_size=5))
"""

BOTH = """
import warnings
warnings.simplefilter("ignore")
import lightning.pytorch, pytorch_lightning
from stepscope.integrations.lightning import StepscopeCallback
callback = StepscopeCallback("unused")
assert isinstance(callback, lightning.pytorch.Callback) and isinstance(callback, pytorch_lightning.Callback)
"""

NEITHER = """
import sys
sys.modules["lightning"] = sys.modules["pytorch_lightning"] = None
import stepscope.integrations.lightning
"""


def python(code: str, *arguments: str, path: Path) -> subprocess.CompletedProcess[str]:
    code = f"import sys; sys.path.insert(0, {str(path)!r})\n{code}"
    return subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, timeout=120)


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the package ``lightning``, made as its publisher makes it: the same files under another name."""
    folder = tmp_path_factory.mktemp("packages")
    copy = folder / "lightning" / "pytorch"
    shutil.copytree(Path(pl.__file__).parent, copy, ignore=shutil.ignore_patterns("__pycache__"))
    for file in copy.rglob("*.py"):
        file.write_text(file.read_text("utf-8").replace("pytorch_lightning", "lightning.pytorch"), "utf-8")
    (folder / "lightning" / "__init__.py").touch()
    return folder


@pytest.mark.slow
def test_lightning(packages: Path, tmp_path: Path) -> None:
    from stepscope.store import open_trial

    result = python(TRAIN, str(tmp_path), path=packages)
    assert result.returncode == 0, result.stderr
    trial = open_trial(tmp_path / "t")
    assert trial.state == "finished"
    assert trial.steps.tolist() == [0, 1, 2]
    assert len(trial.scalars("loss").values) == 3
    assert "gradient" in trial.node("model.layer.weight").quantities
    assert "input" in [node.name for node in trial.nodes]


@pytest.mark.slow
def test_a_program_that_imports_both_gets_a_callback_of_both(packages: Path) -> None:
    result = python(BOTH, path=packages)
    assert result.returncode == 0, result.stderr


def test_neither(tmp_path: Path) -> None:
    result = python(NEITHER, path=tmp_path)
    assert result.returncode == 1
    assert result.stderr.splitlines()[-1] == (
        "ImportError: stepscope.integrations.lightning needs Lightning, and neither 'lightning' nor "
        "'pytorch_lightning' is installed: pip install 'stepscope[lightning]'"
    )
