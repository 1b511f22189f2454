"""The rule about edges that stay in the first graph of a batch; and look-alikes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from support.short_runs import Batch, findings, record

GRAPHS, VERTICES = 6, 5


class Messages(nn.Module):
    """One round of messages along edges ``(2, n)``."""

    def __init__(self) -> None:
        super().__init__()
        self.say, self.head = nn.Linear(4, 16), nn.Linear(16, 1)

    def forward(self, vertices: torch.Tensor, edges: torch.Tensor) -> torch.Tensor:
        said = self.say(vertices)
        return self.head((said + torch.zeros_like(said).index_add(0, edges[1], said[edges[0]])).relu())[:, 0]


def batch(number: int, way: str) -> Batch:
    generator = torch.Generator().manual_seed(number)
    vertices = torch.randn(GRAPHS * VERTICES, 4, generator=generator)
    edges = torch.randint(VERTICES, (2, GRAPHS, 8), generator=generator)
    if way == "few":
        return vertices[:VERTICES], edges[:, 0]
    if way != "from zero":
        edges = edges + VERTICES * torch.arange(GRAPHS)[:, None]
    return vertices, (edges[:, :1] if way == "once" and number != 3 else edges).flatten(1)


@pytest.mark.parametrize("way", ["from zero", "offset", "few", "once", "pairs"])
def test_edges_that_stay_in_the_first_graph(way: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = Messages()

    def loss_of(vertices: torch.Tensor, edges: torch.Tensor) -> torch.Tensor:
        if way == "pairs":  # two rows of numbers that are no whole ones
            return F.mse_loss(model.say(vertices).mean(1), vertices[:, 0])
        return F.mse_loss(model(vertices, edges), vertices[:, 0])

    found = findings(record(tmp_path, model, loss_of, lambda n: batch(n, way), steps=6), "unreached-vertices")
    assert [one.node for one in found] == (["input.edges"] if way == "from zero" else [])
    if found:
        assert "beyond vertex 4, and input.vertices has 30" in found[0].summary
