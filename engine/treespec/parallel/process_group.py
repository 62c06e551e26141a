"""Collectives over torch.distributed: NCCL between GPUs, gloo between CPUs, counted message by message.

Legend: B requests, N new tokens, M hidden, R rows of logits, V vocabulary.
"""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import dataclass, field
from datetime import timedelta

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor

from treespec.parallel.mesh import ParallelMesh


@dataclass
class Traffic:
    """Messages that this rank took part in and the bytes it handed over, by kind."""

    messages: Counter[str] = field(default_factory=Counter)
    bytes: Counter[str] = field(default_factory=Counter)

    def count(self, kind: str, x: Tensor) -> None:
        """One message of the size of ``x``."""
        self.messages[kind] += 1
        self.bytes[kind] += x.numel() * x.element_size()


class ProcessGroup:
    """The ranks of one placement; made once per process, after a launcher such as torchrun has set the rendezvous."""

    def __init__(self, mesh: ParallelMesh, device: torch.device, timeout_s: float = 60.0) -> None:
        self.mesh = mesh
        self.device = device
        self.traffic = Traffic()
        backend = "nccl" if device.type == "cuda" else "gloo"
        dist.init_process_group(backend, timeout=timedelta(seconds=timeout_s))
        # Every rank has to take part in making every group, its own or not.
        stages = [
            dist.new_group([stage * mesh.tensor_degree + rank for rank in range(mesh.tensor_degree)])
            for stage in range(mesh.pipeline_degree)
        ]
        self._stage = stages[mesh.stage]
        self._sent: list[tuple[dist.Work, Tensor]] = []

    def close(self) -> None:
        """Leave the group."""
        self._drain()
        dist.destroy_process_group()

    def sum(self, x: Tensor) -> Tensor:
        if self.mesh.tensor_degree > 1:
            x = x.contiguous()
            dist.all_reduce(x, group=self._stage)
            self.traffic.count("sum", x)
        return x

    def gather_vocabulary(self, part_RV: Tensor, vocab_size: int) -> Tensor:
        mesh = self.mesh
        if mesh.tensor_degree == 1:
            return part_RV
        padded = F.pad(part_RV, (0, mesh.largest_share(vocab_size) - part_RV.shape[1])).contiguous()
        parts = [torch.empty_like(padded) for _ in range(mesh.tensor_degree)] if mesh.is_driver else None
        dist.gather(padded, parts, dst=mesh.driver, group=self._stage)
        self.traffic.count("gather", padded)
        if parts is None:
            return part_RV.new_empty(0, vocab_size)
        shares = [len(ParallelMesh(mesh.tensor_degree, rank=rank).share(vocab_size)) for rank in range(len(parts))]
        return torch.cat([part[:, :share] for part, share in zip(parts, shares, strict=True)], dim=1)

    def send(self, x_BNM: Tensor) -> None:
        x_BNM = x_BNM.contiguous()
        # The next micro-batch is computed while this one travels; the tensor lives until it has arrived.
        self._sent = [(work, x) for work, x in self._sent if not work.is_completed()]
        work = dist.isend(x_BNM, self.mesh.rank + self.mesh.tensor_degree)
        assert work is not None
        self._sent.append((work, x_BNM))
        self.traffic.count("send", x_BNM)

    def receive(self, shape: tuple[int, int, int], like: Tensor) -> Tensor:
        x_BNM = torch.empty(shape, dtype=like.dtype, device=like.device)
        dist.recv(x_BNM, self.mesh.rank - self.mesh.tensor_degree)
        self.traffic.count("receive", x_BNM)
        return x_BNM

    def broadcast(self, x: Tensor) -> Tensor:
        """The driver's tensor, on every rank; the others hand in one of the same shape to be filled."""
        dist.broadcast(x, src=self.mesh.driver)
        self.traffic.count("command", x)
        return x

    def _drain(self) -> None:
        for work, _ in self._sent:
            work.wait()
        self._sent = []


def launched_rank() -> int | None:
    """This process's rank if a launcher started it, else None."""
    return int(os.environ["RANK"]) if "RANK" in os.environ and "WORLD_SIZE" in os.environ else None
