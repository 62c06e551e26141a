"""Weights that come by: a few slots on the device, filled ahead of their use by a thread of its own."""

from __future__ import annotations

import threading
import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor

from treespec.model.offload.fillers import Filler
from treespec.model.units import Layout

OnStreamed = Callable[[int], None]


@dataclass
class StreamCounts:
    """What has come by since this was last asked, of the maps that were used."""

    num_units: int = 0
    num_bytes: int = 0
    wait_us: int = 0  # that computing stood still for; on a GPU only what the host waited


class WeightStream:
    """Units in the order of their use, over and over; the next ones arrive while one is used.

    After the last unit of a pass the first of the next one are fetched: they arrive while a draft model works.
    """

    def __init__(
        self, layouts: Sequence[Layout], num_slots: int, device: torch.device, filler: Filler, on_streamed: OnStreamed
    ) -> None:
        """``on_streamed`` is told the bytes of every unit that was used."""
        sizes = [layout.buffer_bytes for layout in layouts]
        slots = [torch.empty(max(sizes), dtype=torch.uint8, device=device) for _ in range(num_slots)]
        self._views = [[layout.views(slot) for slot in slots] for layout in layouts]
        self._on_streamed = on_streamed
        self._counts = StreamCounts()
        self._line = _Line(len(layouts), slots, filler, sizes)
        self._events = _SlotEvents(num_slots, device)
        thread = threading.Thread(target=_fill, args=(self._line, self._events), daemon=True, name="weight-stream")
        thread.start()
        weakref.finalize(self, _end, self._line, thread)  # the thread knows the line only, so that this object can go

    @contextmanager
    def holding(self, index: int) -> Iterator[list[Tensor]]:
        """The parts of a unit, on the device while this is held. Raises what bringing them raised."""
        started = time.monotonic_ns()
        number, num_bytes = self._line.take(index)
        self._counts.wait_us += (time.monotonic_ns() - started) // 1000
        slot = number % len(self._line.slots)
        self._events.wait_until_filled(slot)
        yield self._views[index][slot]
        self._events.set_used(slot)
        self._line.release(number)
        self._counts.num_units += 1
        self._counts.num_bytes += num_bytes
        self._on_streamed(num_bytes)

    def take_counts(self) -> StreamCounts:
        """What was counted, and begin anew."""
        taken, self._counts = self._counts, StreamCounts()
        return taken


@dataclass(eq=False)
class _Line:
    """Fillings, numbered without end: number n is of unit n % num_units and goes to slot n % num_slots."""

    num_units: int
    slots: list[Tensor]
    filler: Filler
    sizes: list[int]
    released: int = 0  # fillings before this one were used, or given up
    next: int = 0  # to be filled
    filled: dict[int, int] = field(default_factory=dict)  # number -> bytes that were moved, of those not released
    error: Exception | None = None
    stopped: bool = False
    changed: threading.Condition = field(default_factory=threading.Condition)

    def take(self, index: int) -> tuple[int, int]:
        """Wait for this unit's next filling; its number and bytes. Another than the next in line restarts the line."""
        with self.changed:
            number = self.released
            if number % self.num_units != index or self.error is not None:
                number = self._restart(index)
            while number not in self.filled:
                if self.error is not None:
                    raise self.error
                self.changed.wait()
            return number, self.filled[number]

    def _restart(self, index: int) -> int:
        """After a pass that broke off: whatever was fetched for it is given up."""
        self.error = None
        number = self.next
        while number % self.num_units != index:
            number += 1
        self.released = self.next = number
        self.filled.clear()
        self.changed.notify_all()
        return number

    def release(self, number: int) -> None:
        """The unit was used; its slot may be filled again."""
        with self.changed:
            assert number == self.released
            del self.filled[number]
            self.released += 1
            self.changed.notify_all()

    def stop(self) -> None:
        """Let the thread end."""
        with self.changed:
            self.stopped = True
            self.changed.notify_all()

    def wait_for_work(self) -> int | None:
        """The number to fill next, once there is a slot for it; None: end."""
        with self.changed:
            while not self.stopped and (self.error is not None or self.next >= self.released + len(self.slots)):
                self.changed.wait()
            return None if self.stopped else self.next

    def finish(self, number: int, num_bytes: int) -> None:
        """Number was filled; not if the line was restarted meanwhile."""
        with self.changed:
            if self.next == number:
                self.next += 1
                self.filled[number] = num_bytes
                self.changed.notify_all()

    def fail(self, error: Exception) -> None:
        """Whoever waits is told."""
        with self.changed:
            self.error = error
            self.changed.notify_all()


def _fill(line: _Line, events: _SlotEvents) -> None:
    """The thread: fill slot after slot, until the line stops."""
    while (number := line.wait_for_work()) is not None:
        index, slot = number % line.num_units, number % len(line.slots)
        try:
            with events.filling(slot):
                num_bytes = line.filler.fill(index, line.slots[slot][: line.sizes[index]])
        except Exception as error:  # noqa: BLE001 (whatever it is, it belongs to the thread that waits)
            line.fail(error)
        else:
            line.finish(number, num_bytes)


def _end(line: _Line, thread: threading.Thread) -> None:
    """Also before the interpreter goes: a thread that it finds inside of torch takes the whole process down."""
    line.stop()
    if thread is not threading.current_thread():
        thread.join()


class _SlotEvents:
    """Order between the queue that computes and the queue that copies on a GPU; a CPU needs none."""

    def __init__(self, num_slots: int, device: torch.device) -> None:
        is_gpu = device.type == "cuda"
        self._copies = torch.cuda.Stream(device) if is_gpu else None
        self._used = [torch.cuda.Event() for _ in range(num_slots)] if is_gpu else []
        self._filled = [torch.cuda.Event() for _ in range(num_slots)] if is_gpu else []

    @contextmanager
    def filling(self, slot: int) -> Iterator[None]:
        """Copies made inside wait until the slot's last use is over."""
        if self._copies is None:
            yield
            return
        with torch.cuda.stream(self._copies):
            self._copies.wait_event(self._used[slot])
            yield
            self._filled[slot].record(self._copies)

    def wait_until_filled(self, slot: int) -> None:
        """What is computed from now on waits for the slot's bytes."""
        if self._copies is not None:
            torch.cuda.current_stream().wait_event(self._filled[slot])

    def set_used(self, slot: int) -> None:
        """What was queued so far is the slot's last use."""
        if self._copies is not None:
            self._used[slot].record(torch.cuda.current_stream())
