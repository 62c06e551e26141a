"""The scheduler keeps its budget, serves in arrival order and lets no request starve."""

from __future__ import annotations

from collections.abc import Iterator

from hypothesis import given
from hypothesis import strategies as st

from engine.tests.properties import examples
from treespec.request import Request, RequestStatus, SamplingParams
from treespec.scheduler import PlannedRow, Scheduler

NEVER_STOP = SamplingParams(max_new_tokens=10_000, max_sequence_length=100_000)


def new_request(request_id: int, num_prompt_tokens: int) -> Request:
    return Request(request_id, tuple(range(num_prompt_tokens)), NEVER_STOP)


def num_certain_tokens(row: PlannedRow) -> int:
    return row.num_prompt_tokens + row.decodes


def carry_out(rows: list[PlannedRow], num_outputs: dict[int, int]) -> None:
    """What the engine does with a plan; every decoding emits one token."""
    for row in rows:
        row.request.num_cached += num_certain_tokens(row)
        if row.decodes:
            row.request.output_token_ids.append(0)
            if len(row.request.output_token_ids) == num_outputs[row.request.request_id]:
                row.request.status = RequestStatus.FINISHED


def steps(scheduler: Scheduler, num_outputs: dict[int, int]) -> Iterator[tuple[list[Request], list[PlannedRow]]]:
    while scheduler.has_work:
        admitted, rows = scheduler.admit(), scheduler.plan()
        yield admitted, rows
        carry_out(rows, num_outputs)
        scheduler.retire()


batches = st.integers(1, 8).flatmap(lambda size: st.tuples(st.just(size), st.integers(size, 40)))
workloads = st.lists(st.tuples(st.integers(1, 60), st.integers(1, 12)), min_size=1, max_size=20)


@given(batch=batches, workload=workloads)
@examples(200)
def test_every_request_is_served_in_order_within_the_budget(
    batch: tuple[int, int], workload: list[tuple[int, int]]
) -> None:
    max_requests, max_tokens = batch
    scheduler = Scheduler(max_requests, max_tokens)
    requests = [new_request(index, length) for index, (length, _) in enumerate(workload)]
    num_outputs = {index: count for index, (_, count) in enumerate(workload)}
    scheduler.add(requests)
    joined: list[Request] = []
    bound = sum(length + count for length, count in workload)
    for number, (admitted, rows) in enumerate(steps(scheduler, num_outputs)):
        joined += admitted
        planned = [row.request.request_id for row in rows]
        assert 1 <= len(rows) == len(set(planned)) <= max_requests
        assert sum(map(num_certain_tokens, rows)) <= max_tokens
        for row in rows:
            left = row.request.num_tokens - 1 - row.request.num_cached
            assert 0 <= row.num_prompt_tokens <= left
            assert not row.decodes or row.num_prompt_tokens == left
        decoding = {r.request_id for r in joined if r.status is RequestStatus.RUNNING and is_ready(r)}
        assert decoding <= set(planned), "a request that could decode was left out"
        assert number <= bound, "no progress"
    assert joined == requests
    assert all(len(r.output_token_ids) == num_outputs[r.request_id] for r in requests)


def is_ready(request: Request) -> bool:
    """Whether all but the last token are cached."""
    return request.num_cached == request.num_tokens - 1


@given(batch=batches, workload=workloads)
@examples(100)
def test_prompts_are_processed_first_come_first_served(batch: tuple[int, int], workload: list[tuple[int, int]]) -> None:
    scheduler = Scheduler(*batch)
    scheduler.add([new_request(index, length) for index, (length, _) in enumerate(workload)])
    num_outputs = {index: count for index, (_, count) in enumerate(workload)}
    running: list[Request] = []
    for admitted, rows in steps(scheduler, num_outputs):
        running = [r for r in [*running, *admitted] if r.status is RequestStatus.RUNNING]
        unready = [r.request_id for r in running if not is_ready(r)]
        served = [row.request.request_id for row in rows if row.num_prompt_tokens]
        assert served == unready[: len(served)]
        partial = [row for row in rows if row.num_prompt_tokens < row.request.num_tokens - 1 - row.request.num_cached]
        assert [row.request.request_id for row in partial] in ([], served[-1:])


def test_requests_join_as_soon_as_one_leaves() -> None:
    scheduler = Scheduler(2, 64)
    requests = [new_request(index, 4) for index in range(3)]
    scheduler.add(requests)
    assert scheduler.admit() == requests[:2]
    assert scheduler.admit() == []
    requests[0].status = RequestStatus.FINISHED
    scheduler.retire()
    assert scheduler.admit() == requests[2:]


def test_prompt_that_fits_exactly_decodes_in_the_next_step() -> None:
    scheduler = Scheduler(1, 4)
    scheduler.add([new_request(0, 5)])
    scheduler.admit()
    (row,) = scheduler.plan()
    assert (row.num_prompt_tokens, row.decodes) == (4, False)
    row.request.num_cached = 4
    (row,) = scheduler.plan()
    assert (row.num_prompt_tokens, row.decodes) == (0, True)


def test_running_requests_decode_before_prompts_take_the_budget() -> None:
    scheduler = Scheduler(3, 10)
    scheduler.add([new_request(0, 1), new_request(1, 30), new_request(2, 1)])
    scheduler.admit()
    planned = [(row.request.request_id, row.num_prompt_tokens) for row in scheduler.plan()]
    assert planned == [(0, 0), (2, 0), (1, 8)]
