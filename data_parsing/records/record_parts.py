"""The parts of a ``.meta.json`` that tables use: where a record comes from, and the totals of its repeats."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

from data_parsing.records.record_fields import DamagedRecordError, count_of, duration_of, object_of, objects_of, text_of

STEP_PARTS = ("draft", "build", "forward", "verify", "commit", "other")
"""What a step's time is split into; the parts of a repeat sum to its wall time."""


@dataclass(frozen=True)
class Provenance:
    """What the measurement was made with."""

    device: str
    num_threads: int | None
    dtype: str
    commit: str
    target_description: str
    target_num_parameters: int
    draft_description: str
    """Of every draft model that was loaded; "" where none was."""
    prompts: str
    """Name of the prompt file: prompt indices of two records mean the same only if it is the same."""

    def same_prompts(self, other: Provenance) -> bool:
        """Whether equal prompt indices mean equal prompts."""
        return self.prompts == other.prompts

    def same_conditions(self, other: Provenance) -> bool:
        """Whether a ratio of the two records' times compares methods and not machines, precisions or prompts."""
        return self.same_prompts(other) and (self.device, self.num_threads, self.dtype) == (
            other.device,
            other.num_threads,
            other.dtype,
        )


@dataclass(frozen=True)
class Streamed:
    """What a measured pass brought to the device, and the time it waited for that, in microseconds."""

    num_bytes: int
    wait_us: float


@dataclass(frozen=True)
class OffloadPlan:
    """How the target's weights are divided."""

    resident_bytes: int
    streamed_bytes: int


@dataclass(frozen=True)
class RepeatTotals:
    """One measured pass over the prompts, microseconds."""

    wall_us: float
    num_target_steps: int
    part_us: dict[str, float]
    offload: Streamed | None
    """None where nothing is told of it."""


def read_provenance(config: dict[str, Any], models: dict[str, Any], environment: dict[str, Any]) -> Provenance:
    """Provenance from the objects of the same names in a ``.meta.json``."""
    device = text_of(environment, "device")
    target = object_of(models, "target")
    return Provenance(
        # "cpu" says nothing about the machine; the processor's name does.
        device=_text_or(environment, "cpu", device) if device == "cpu" else device,
        num_threads=None if environment.get("num_threads") is None else count_of(environment, "num_threads"),
        dtype=text_of(object_of(config, "placement"), "dtype"),
        # A wheel that was built outside a checkout knows no commit; its times are still good.
        commit=_text_or(environment, "commit", "unknown"),
        target_description=text_of(target, "description"),
        target_num_parameters=count_of(target, "num_parameters"),
        draft_description=" and ".join(text_of(draft, "description") for draft in objects_of(models, "drafts")),
        prompts=PurePath(text_of(object_of(config, "scenario"), "prompts")).name,
    )


def _text_or(parent: dict[str, Any], key: str, default: str) -> str:
    value = parent.get(key)
    return value if isinstance(value, str) and value else default


def read_repeat_totals(repeats: object) -> tuple[RepeatTotals, ...]:
    """The totals of each repeat from the list of the same name in a ``.meta.json``."""
    if not isinstance(repeats, list) or not repeats:
        raise DamagedRecordError("repeats is not a list with entries")
    return tuple(_repeat_totals(repeat) for repeat in repeats)


def _repeat_totals(repeat: object) -> RepeatTotals:
    if not isinstance(repeat, dict):
        raise DamagedRecordError("an entry of repeats is not an object")
    time_us = object_of(repeat, "time_us")
    return RepeatTotals(
        wall_us=duration_of(repeat, "wall_us"),
        num_target_steps=count_of(repeat, "num_target_steps"),
        part_us={part: duration_of(time_us, part) for part in STEP_PARTS},
        offload=_streamed(object_of(repeat, "offload")) if repeat.get("offload") else None,
    )


def _streamed(totals: dict[str, Any]) -> Streamed:
    return Streamed(num_bytes=count_of(totals, "num_bytes"), wait_us=duration_of(totals, "wait_us"))


def read_offload_plan(meta: dict[str, Any]) -> OffloadPlan | None:
    """The division of the weights from a ``.meta.json``; None where all are resident or nothing is told."""
    if not meta.get("offload"):
        return None
    plan = object_of(meta, "offload")
    return OffloadPlan(resident_bytes=count_of(plan, "resident_bytes"), streamed_bytes=count_of(plan, "streamed_bytes"))
