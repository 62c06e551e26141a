"""Ranks of one model as threads of this process."""

from __future__ import annotations

import queue
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from threading import Barrier
from typing import Any

import torch
from torch import Tensor

from engine.tests.decoding import chain_row
from treespec.config import ModelRef
from treespec.model.loader import open_model
from treespec.parallel.mesh import ParallelMesh
from treespec.runner import ModelRunner

TIMEOUT_S = 30.0  # a rank that fails must not leave the others waiting


class Stage:
    """Where the tensor ranks of one stage meet, and what the stage before handed to each."""

    def __init__(self, degree: int) -> None:
        self.slots: list[Any] = [None] * degree
        self.barrier = Barrier(degree)
        self.inbox: list[queue.Queue[Tensor]] = [queue.Queue() for _ in range(degree)]

    def exchanged(self, rank: int, x: Tensor) -> list[Tensor]:
        """What every rank brought."""
        self.slots[rank] = x
        self.barrier.wait(TIMEOUT_S)
        found = list(self.slots)
        self.barrier.wait(TIMEOUT_S)
        return found


@dataclass(frozen=True)
class Threaded:
    """Collectives of one rank."""

    mesh: ParallelMesh
    stages: list[Stage]

    @property
    def _stage(self) -> Stage:
        return self.stages[self.mesh.stage]

    def sum(self, x: Tensor) -> Tensor:
        return torch.stack(self._stage.exchanged(self.mesh.tensor_rank, x)).sum(dim=0)

    def gather(self, x: Tensor) -> list[Tensor]:
        parts = self._stage.exchanged(self.mesh.tensor_rank, x)
        return parts if self.mesh.is_driver else []

    def send(self, x_BNM: Tensor) -> None:
        self.stages[self.mesh.stage + 1].inbox[self.mesh.tensor_rank].put(x_BNM)

    def receive(self, shape: tuple[int, int, int], like: Tensor) -> Tensor:
        x_BNM = self._stage.inbox[self.mesh.tensor_rank].get(timeout=TIMEOUT_S)
        assert x_BNM.shape == shape
        return x_BNM


def logits_on_ranks(folder: Path, tensor: int, pipeline: int, token_ids: Sequence[int], chunk: int) -> Tensor:
    """``[T, V]`` on the driver, when every rank computes its part of a prompt fed chunk after chunk."""
    stages = [Stage(tensor) for _ in range(pipeline)]

    def rank_of(rank: int) -> Tensor:
        mesh = ParallelMesh(tensor, pipeline, rank)
        opened = open_model(ModelRef(path=folder))
        model = opened.load(torch.float32, torch.device("cpu"), mesh, Threaded(mesh, stages))
        runner = ModelRunner(model.decoder, 1, len(token_ids))
        region = runner.allocator.admit()
        parts = []
        for start in range(0, len(token_ids), chunk):
            part = token_ids[start : start + chunk]
            parts.append(runner.result(runner.submit([chain_row(runner, region, part, len(part))])).rows)
            runner.commit([(region, range(len(part)))])
        return torch.cat(parts)

    with ThreadPoolExecutor(tensor * pipeline) as threads:
        results = list(threads.map(rank_of, range(tensor * pipeline)))
    return results[ParallelMesh(tensor, pipeline).driver]
