"""What was streamed to the device, and what that cost: columns that are blank where nothing is."""

from __future__ import annotations

from data_parsing.records.reading import Measurement
from data_parsing.tables.frames import COUNT, NUMBER

OFFLOADING = {
    "resident_bytes": COUNT,
    "streamed_bytes": COUNT,
    "offload_bytes_per_step": NUMBER,
    "offload_bytes_per_s": NUMBER,
    "offload_wait_share": NUMBER,
}


def offloading_cells(measurement: Measurement) -> dict[str, float | int]:
    """Over all repeats; nothing where the record tells nothing of offloading."""
    cells: dict[str, float | int] = {}
    if measurement.offload is not None:
        cells |= {
            "resident_bytes": measurement.offload.resident_bytes,
            "streamed_bytes": measurement.offload.streamed_bytes,
        }
    told = [(repeat, repeat.offload) for repeat in measurement.repeats if repeat.offload is not None]
    num_bytes = sum(streamed.num_bytes for _, streamed in told)
    wall_us = sum(repeat.wall_us for repeat, _ in told)
    num_steps = sum(repeat.num_target_steps for repeat, _ in told)
    if num_steps > 0 and wall_us > 0:
        cells |= {
            "offload_bytes_per_step": num_bytes / num_steps,
            "offload_bytes_per_s": num_bytes / wall_us * 1e6,
            "offload_wait_share": sum(streamed.wait_us for _, streamed in told) / wall_us,
        }
    return cells
