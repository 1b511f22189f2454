"""Trains a small model on several processes, in every way; run as one of them.

``python parallel_training.py RANK PROCESSES FOLDER`` trains three times in each way: unrecorded, recorded by the first
process, and by each into a trial of its own. It prints a line of JSON a way: digests of weights, gradients and losses.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
import torch.distributed as distributed
import torch.nn.functional as F
from torch import nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import FullyShardedDataParallel, fully_shard
from torch.distributed.tensor import Replicate, Shard, distribute_tensor

from stepscope.recorder import Every, Recorder

MICRO_BATCHES = 2


def spread(model: nn.Module, mesh: DeviceMesh) -> nn.Module:
    """Cut every parameter into rows, one part a process."""
    for module in model.modules():
        for key, parameter in list(module._parameters.items()):
            if parameter is not None:
                module.register_parameter(key, nn.Parameter(distribute_tensor(parameter.data, mesh, [Shard(0)])))
    return model


def by_layer(model: nn.Sequential, mesh: DeviceMesh) -> nn.Module:
    for layer in (model[0], model[2]):
        fully_shard(layer, mesh=mesh)
    return fully_shard(model, mesh=mesh)


def fsdp(model: nn.Module, *, use_orig_params: bool) -> nn.Module:
    return FullyShardedDataParallel(model, device_id=torch.device("cpu"), use_orig_params=use_orig_params)


WAYS: dict[str, Callable[[nn.Sequential, DeviceMesh], nn.Module]] = {
    "DistributedDataParallel": lambda model, mesh: nn.parallel.DistributedDataParallel(model),
    "fully_shard": lambda model, mesh: fully_shard(model, mesh=mesh),
    "fully_shard by layer": by_layer,
    "tensors": spread,
    "FSDP": lambda model, mesh: fsdp(model, use_orig_params=True),
    "FSDP, flat": lambda model, mesh: fsdp(model, use_orig_params=False),
}


def batches(step: int, rank: int, way: str, mesh: DeviceMesh) -> Iterator[tuple[Any, Any]]:
    """Other data on each process; the same where tensors are spread by hand."""
    for number in range(MICRO_BATCHES):
        seed = 100 * step + 10 * number + (0 if way == "tensors" else rank)
        generator = torch.Generator().manual_seed(seed)
        x, y = torch.randn(8, 4, generator=generator), torch.randn(8, 2, generator=generator)
        yield (x, y) if way != "tensors" else tuple(distribute_tensor(data, mesh, [Replicate()]) for data in (x, y))


def train(mesh: DeviceMesh, rank: int, way: str, recorder: Recorder) -> str:
    """A digest of everything after three steps, with micro-batches and clipping."""
    torch.manual_seed(0)
    model = WAYS[way](nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 2)), mesh)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.1)
    recorder.watch(model, optimizer)
    made = hashlib.blake2b(digest_size=12)
    for number in range(3):
        with recorder.step():
            optimizer.zero_grad()
            for x, y in batches(number, rank, way, mesh):
                loss = F.mse_loss(model(x), y)
                loss.backward()
                digest(made, loss)
            clip(model)
            optimizer.step()
        for parameter in model.parameters():
            digest(made, parameter)
            digest(made, parameter.grad)
    recorder.close()
    return made.hexdigest()


def clip(model: nn.Module) -> None:
    if isinstance(model, FullyShardedDataParallel):
        model.clip_grad_norm_(0.1)
    else:
        nn.utils.clip_grad_norm_(model.parameters(), 0.1)


def digest(made: Any, tensor: torch.Tensor | None) -> None:
    """Of the part of this process."""
    if tensor is not None:
        part = tensor.detach()
        made.update(getattr(part, "to_local", lambda: part)().contiguous().numpy().tobytes())


def main(rank: int, processes: int, folder: Path) -> None:
    distributed.init_process_group(
        "gloo", init_method=f"file://{folder / 'rendezvous'}", rank=rank, world_size=processes
    )
    try:
        mesh = init_device_mesh("cpu", (processes,))
        for way in WAYS:
            recorded_by = {"nobody": False, "first": rank == 0, "all": True}
            digests = {}
            for who, enabled in recorded_by.items():
                group = folder / way / who
                recorder = Recorder(group, trial=f"process {rank}", schedule=Every(1), strict=True, enabled=enabled)
                digests[who] = train(mesh, rank, way, recorder)
            print(json.dumps({"way": way, "digests": digests}))
    finally:
        distributed.destroy_process_group()


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]))
