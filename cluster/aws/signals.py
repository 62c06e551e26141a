"""Signals that end a program, turned into what cleans up first, and held off while it does."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
Handler = Callable[[int, FrameType | None], Any] | signal.Handlers


@contextmanager
def on_stop_signals(handler: Handler) -> Iterator[None]:
    """Inside the block a signal to stop is handled so; one that is ignored stays ignored, as under nohup."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    former = {number: signal.getsignal(number) for number in STOPPING}
    changed = {number: before for number, before in former.items() if before is not signal.SIG_IGN}
    for number in changed:
        signal.signal(number, handler)
    try:
        yield
    finally:
        for number, before in changed.items():
            signal.signal(number, before)
