"""The workloads, from the smallest step to the largest."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from resnet import ResNet
from torch import nn
from workloads import Probe, Training, Workload, with_adam

from stepscope.examples import find_the_bug
from stepscope.examples.transformer import CharTransformer


def demo(iterations: int) -> Training:
    """Comgra's own demo as ``examples/find_the_bug.py`` has it, with every tensor named."""
    torch.manual_seed(0)
    model = find_the_bug.RunningSum(activate_last=False)
    sequence, target = find_the_bug.make_batch(iterations, torch.Generator().manual_seed(0))

    def loss(probe: Probe) -> torch.Tensor:
        answer = find_the_bug.predict(model, sequence, probe)  # type: ignore[arg-type]
        return find_the_bug.loss_of(answer, target, probe)  # type: ignore[arg-type]

    return with_adam(model, loss, batch=find_the_bug.BATCH, modules=dict(model.named_children()))


def mlp() -> Training:
    """4 layers of 256 at batch 32: the hardest, because its step is the shortest."""
    torch.manual_seed(0)
    layers = [layer for _ in range(3) for layer in (nn.Linear(256, 256), nn.ReLU())]
    model = nn.Sequential(*layers, nn.Linear(256, 256))
    x, target = torch.randn(32, 256), torch.randn(32, 256)

    def loss(probe: Probe) -> torch.Tensor:
        probe.record("input", x, type="input")
        probe.record("target", target, type="target")
        with probe.iteration():
            loss = F.mse_loss(model(x), target)
            probe.record("loss", loss, type="loss")
        return loss

    return with_adam(model, loss, batch=32)


def lstm() -> Training:
    """Two layers of 128 over 64 characters at batch 32."""
    torch.manual_seed(0)
    model = nn.ModuleDict(
        {
            "embed": nn.Embedding(96, 128),
            "lstm": nn.LSTM(128, 128, num_layers=2, batch_first=True),
            "predict": nn.Linear(128, 96),
        }
    )
    text, target = torch.randint(96, (32, 64)), torch.randint(96, (32, 64))

    def loss(probe: Probe) -> torch.Tensor:
        hidden, _ = model["lstm"](model["embed"](text))
        return F.cross_entropy(model["predict"](hidden).flatten(0, 1), target.flatten())

    return with_adam(model, loss, batch=32)


def resnet() -> Training:
    """Three stages of two residual blocks on 64 images of 3 x 32 x 32."""
    torch.manual_seed(0)
    model = ResNet(classes=10)
    images, labels = torch.randn(64, 3, 32, 32), torch.randint(10, (64,))
    return with_adam(model, lambda probe: F.cross_entropy(model(images), labels), batch=64)


def transformer(width: int = 256) -> Training:
    """Six blocks over 8 x 128 characters."""
    torch.manual_seed(0)
    model = CharTransformer(96, context=128, width=width, blocks=6, heads=width // 64)
    text, target = torch.randint(96, (8, 128)), torch.randint(96, (8, 128))

    def loss(probe: Probe) -> torch.Tensor:
        return F.cross_entropy(model(text).flatten(0, 1), target.flatten())

    return with_adam(model, loss, batch=8)


WORKLOADS = (
    Workload("MLP 4x256, batch 32", mlp, 40, bar=8.0),
    Workload("demo, 1 iteration", lambda: demo(1), 40),
    Workload("demo, 10 iterations", lambda: demo(10), 40),
    Workload("demo, 20 iterations", lambda: demo(20), 40, bar=2.0),
    Workload("LSTM 2x128, 32 x 64 characters", lstm, 30),
    Workload("ResNet, 64 images of 32x32", resnet, 20),
    Workload("transformer, 6 blocks, d=256", transformer, 20, bar=1.25),
    Workload("transformer, 6 blocks, d=512", lambda: transformer(512), 10, bar=1.25),
)
