"""Trains a small model whose parameters are spread over processes; run as one of them.

``python sharded_training.py RANK PROCESSES FOLDER fully_shard|tensors`` trains twice, the second time recorded by the
first process, and prints a digest of the weights after each.
"""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path

import torch
import torch.distributed as distributed
import torch.nn.functional as F
from torch import nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, Replicate, Shard, distribute_tensor

from stepscope.recorder import Every, Recorder


def spread(model: nn.Module, mesh: DeviceMesh) -> None:
    """Cut every parameter into rows, one part a process."""
    for module in model.modules():
        for key, parameter in list(module._parameters.items()):
            if parameter is not None:
                module.register_parameter(key, nn.Parameter(distribute_tensor(parameter.data, mesh, [Shard(0)])))


def train(mesh: DeviceMesh, way: str, recorder: Recorder) -> str:
    """A digest of the weights after three steps."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 2))
    fully_shard(model, mesh=mesh) if way == "fully_shard" else spread(model, mesh)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.1)
    recorder.watch(model, optimizer)
    for number in range(3):
        generator = torch.Generator().manual_seed(number)
        x, y = torch.randn(8, 4, generator=generator), torch.randn(8, 2, generator=generator)
        if way == "tensors":
            x, y = (distribute_tensor(data, mesh, [Replicate()]) for data in (x, y))
        with recorder.step():
            optimizer.zero_grad()
            F.mse_loss(model(x), y).backward()
            optimizer.step()
    recorder.close()
    return digest(model)


def main(rank: int, processes: int, folder: Path, way: str) -> None:
    distributed.init_process_group(
        "gloo", init_method=f"file://{folder / 'rendezvous'}", rank=rank, world_size=processes
    )
    try:
        mesh = init_device_mesh("cpu", (processes,))
        for record in (False, rank == 0):
            recorder = Recorder(folder, trial="trial", schedule=Every(1), strict=True, enabled=record)
            print(train(mesh, way, recorder))
    finally:
        distributed.destroy_process_group()


def digest(model: nn.Module) -> str:
    made = hashlib.blake2b(digest_size=12)
    for parameter in model.parameters():
        assert isinstance(parameter, DTensor)
        made.update(parameter.full_tensor().detach().numpy().tobytes())
    return made.hexdigest()


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]), sys.argv[4])
