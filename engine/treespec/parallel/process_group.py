"""Collectives over torch.distributed: NCCL between GPUs, gloo between CPUs, counted message by message.

Legend: B requests, N new tokens, M hidden.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor

from treespec.metrics.traffic import Traffic
from treespec.parallel.mesh import ParallelMesh


class RanksLostError(Exception):
    """The other ranks are gone, or were silent for longer than this one waits."""


@dataclass(frozen=True)
class Arrival:
    """A tensor that is here, or under way from another rank."""

    tensor: Tensor
    work: dist.Work | None = None

    @property
    def is_here(self) -> bool:
        """Whether it was waited for, or never under way; gloo knows of no other arrival."""
        return self.work is None or self.work.is_completed()

    def wait(self) -> Tensor:
        """The tensor, filled. Raises RanksLostError."""
        if self.work is not None:
            with _others():
                self.work.wait()
        return self.tensor


class ProcessGroup:
    """The ranks of one placement; made once per process, after a launcher such as torchrun has set the rendezvous.

    Until ``meet`` has returned a rank waits ``load_timeout_s`` for the others, afterwards ``timeout_s``.
    """

    def __init__(
        self, mesh: ParallelMesh, device: torch.device, timeout_s: float = 45.0, load_timeout_s: float = 1800.0
    ) -> None:
        self.mesh = mesh
        self.device = device
        self.traffic = Traffic()
        self.has_met = False
        backend, timeout = "nccl" if device.type == "cuda" else "gloo", timedelta(seconds=timeout_s)
        with _others():
            # The default group, on the host, is where ranks wait for each other until all have loaded.
            dist.init_process_group("gloo", timeout=timedelta(seconds=load_timeout_s))
            self._ranks = dist.new_group(backend=backend, timeout=timeout)
            # Every rank has to take part in making every group, its own or not.
            stages = [
                dist.new_group(mesh.ranks_of_stage(stage), backend=backend, timeout=timeout)
                for stage in range(mesh.pipeline_degree)
            ]
        self._stage = stages[mesh.stage]
        self._sent: list[tuple[dist.Work, Tensor]] = []
        self._expected: list[Arrival] = []

    def meet(self) -> None:
        """Wait until every rank has loaded."""
        with _others():
            dist.barrier()
        self.has_met = True

    def close(self) -> None:
        """Leave the group, in step with the others."""
        self._settle()
        dist.destroy_process_group()

    def sum(self, x: Tensor) -> Tensor:
        if self.mesh.tensor_degree > 1:
            x = x.contiguous()
            with _others():
                dist.all_reduce(x, group=self._stage)
            self._count("sum", x)
        return x

    def gather(self, x: Tensor) -> list[Tensor]:
        mesh = self.mesh
        if mesh.tensor_degree == 1:
            return [x]
        parts = self._gather(x.contiguous(), mesh.tensor_degree, self._stage)
        self._count("gather", x)
        return parts

    def send(self, x_BNM: Tensor) -> None:
        # The next micro-batch is computed while this one travels.
        self._hand_over("send", x_BNM, self.mesh.rank + self.mesh.tensor_degree)

    def receive(self, shape: tuple[int, int, int], like: Tensor) -> Tensor:
        x_BNM = torch.empty(shape, dtype=like.dtype, device=like.device)
        with _others():
            dist.recv(x_BNM, self.mesh.rank - self.mesh.tensor_degree, group=self._ranks)
        return x_BNM

    def broadcast(self, x: Tensor) -> Tensor:
        """The driver's tensor, on every rank; the others hand in one of the same shape to be filled."""
        with _others():
            dist.broadcast(x, src=self.mesh.driver, group=self._ranks)
        if self.mesh.is_driver:
            self._count("command", x)
        else:
            self._settle()  # of earlier passes: whoever they were for is to take them before this command
        return x

    def return_rows(self, rows: Tensor) -> None:
        """Hand the driver what it asked a draft model on this rank for."""
        self._hand_over("draft", rows, self.mesh.driver)

    def expect(self, shape: tuple[int, ...], dtype: torch.dtype, rank: int) -> Arrival:
        """What ``rank`` will return, in the order in which it was asked."""
        rows = torch.empty(shape, dtype=dtype, device=self.device)
        with _others():
            arrival = Arrival(rows, dist.irecv(rows, rank, group=self._ranks))
        # One that nobody waits for is kept: without it the next would get what is meant for this one.
        self._expected = [other for other in self._expected if not other.is_here] + [arrival]
        return arrival

    def take_traffic(self) -> Traffic:
        """What this rank counted since it was last asked."""
        taken, self.traffic = self.traffic, Traffic()
        return taken

    def gather_traffic(self, own: Traffic) -> list[Traffic]:
        """The counters of all ranks, on the driver; this exchange itself is not counted."""
        numbers = torch.tensor(own.numbers(), dtype=torch.int64, device=self.device)
        return [Traffic.from_numbers(x.tolist()) for x in self._gather(numbers, self.mesh.num_ranks, self._ranks)]

    def _gather(self, x: Tensor, num_parts: int, group: dist.ProcessGroup) -> list[Tensor]:
        parts = [torch.empty_like(x) for _ in range(num_parts)] if self.mesh.is_driver else None
        with _others():
            dist.gather(x, parts, dst=self.mesh.driver, group=group)
        return parts or []

    def _hand_over(self, kind: str, x: Tensor, rank: int) -> None:
        x = x.contiguous()
        with _others():
            work = dist.isend(x, rank, group=self._ranks)
        assert work is not None
        self._sent.append((work, x))  # which has to live until it has arrived
        self._count(kind, x)

    def _settle(self) -> None:
        with _others():
            for work, _ in self._sent:
                work.wait()
        self._sent = []

    def _count(self, kind: str, x: Tensor) -> None:
        self.traffic.count(kind, x.numel() * x.element_size())


@contextmanager
def _others() -> Iterator[None]:
    """What the library says of ranks it cannot reach, in one line."""
    try:
        yield
    except RuntimeError as error:
        raise RanksLostError(_reason(str(error))) from error


def _reason(told: str) -> str:
    """The first sentence of a message, without the place in the library's source that raised it."""
    line = re.sub(r"\[[^\]]*\.(cc|cpp|h|hpp):\d+\]\s*", "", told.strip()).splitlines()
    return line[0].strip() if line else "no reason given"
