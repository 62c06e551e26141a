"""Twenty kills at random moments of a small embedded run: nothing is lost, counted twice or left running."""

from __future__ import annotations

import csv
import json
import os
import random
import shutil
import signal
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.workflow.project import NUM_PROMPTS, Project
from tests.workflow.test_kill import EXPERIMENT, Run, wait_for

pytestmark = [pytest.mark.kill, pytest.mark.slow]

SEED = 20
KILLS = Counter(workflow=7, engine=7, rank=6)
NUM_RANKS = 2
SIZES = ("small", "medium")  # a placement each, of one rank and of NUM_RANKS
BATCH_SIZES = [1, 2, 3]  # records are committed per batch size
NUM_MODES = 3
END_S = 45
"""A rank that is just starting sees after its imports only that nobody is left; on a busy machine these take long."""
COUNTED = (
    "scenario",
    "mode",
    "batch_size",
    "status",
    "num_requests",
    "num_repeats",
    "tokens_per_step",
    "acceptance_rate",
)
"""Columns of ``server.csv`` that do not depend on time."""
REST_S = 300
"""What a workflow may go on for when a placement of it was killed: it still runs the other one."""

Outputs = dict[str, list[list[int]]]
Rows = list[dict[str, str]]


@pytest.fixture
def ranked(real: Project) -> Project:
    """A placement of one rank and one of two, nine scenarios each, without a peer."""

    def change(platform: dict[str, Any]) -> None:
        (pair,) = platform["sizes"].values()
        platform |= {"ranks_per_node": NUM_RANKS, "num_threads": 1}
        platform["sizes"] = dict(zip(SIZES, (pair, pair | {"tensor_parallel_degree": NUM_RANKS}), strict=True))
        changes = {
            "sizes": list(SIZES),
            "batch_sizes": BATCH_SIZES,
            "max_new_tokens": 8,
            "num_repeats": 1,
            "peers": [],
        }
        platform["overrides"]["server_gpu"] |= changes

    real.edit("platforms/tiny.yaml", change)
    return real


@contextmanager
def started(project: Project) -> Iterator[Run]:
    """A run, of which nothing is left at the end whatever happens."""
    run = Run(project)
    try:
        yield run
    finally:
        for pid in run.processes():
            os.kill(pid, signal.SIGKILL)
        run.workflow.wait()


def victims(run: Run, kind: str) -> list[int]:
    """The living processes that a kind of kill may hit; none where there are none of them yet."""
    if kind == "workflow":
        return [run.workflow.pid]
    told = run.processes().items()
    serving = [pid for pid, command in told if "treespec run" in command and "rules.tied" not in command]
    serving = [pid for pid in serving if "torch.distributed.run" not in run.processes().get(pid, "")]
    ranks = [pid for pid in serving if is_rank(pid)]
    if kind == "engine":
        return sorted(set(serving) - set(ranks))
    return ranks if len(ranks) == NUM_RANKS else []


def is_rank(pid: int) -> bool:
    """Whether a process is one of several ranks, the driver among them."""
    try:
        return any(word.startswith(b"RANK=") for word in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0"))
    except OSError:  # ended meanwhile
        return False


def kill_at_random(run: Run, kind: str, chance: random.Random, longest_s: float) -> bool:
    """Kill a victim some time after there is one, or after some scenarios; False where the run ended before."""
    while run.workflow.poll() is None and not victims(run, kind):
        time.sleep(0.05)
    # Starting takes longer than serving: by time alone hardly a kill would come between two records.
    num_served = chance.choice((0, chance.randint(1, len(BATCH_SIZES) * NUM_MODES)))
    deadline = time.monotonic() + (0 if num_served else chance.uniform(0, longest_s))
    while run.workflow.poll() is None and (
        time.monotonic() < deadline or run.log.read_text().count("treespec: [") < num_served
    ):
        time.sleep(0.02)
    alive = victims(run, kind) if run.workflow.poll() is None else []
    if not alive:
        return False
    try:
        os.kill(chance.choice(alive), signal.SIGKILL)
    except ProcessLookupError:  # it ended by itself in this very moment
        return False
    return True


def is_partial(records: dict[str, tuple[bytes, bytes]]) -> bool:
    """Whether a placement has some of its records and not all."""
    counts = [sum(name.startswith(f"server_{size}-") for name in records) for size in SIZES]
    return any(0 < count < len(BATCH_SIZES) * NUM_MODES for count in counts)


def committed(project: Project) -> dict[str, tuple[bytes, bytes]]:
    """Scenario -> both files of every record that says it is complete."""
    found = {}
    for path in project.raw.glob("*.meta.json"):
        meta = path.read_bytes()
        if json.loads(meta)["status"] == "ok":
            found[path.name.removesuffix(".meta.json")] = meta, Path(str(path)[:-10] + ".jsonl").read_bytes()
    return found


def outputs(project: Project) -> Outputs:
    """Scenario -> token ids of every prompt; each is there exactly once."""
    found = {}
    for name, (meta, rows) in committed(project).items():
        items = [json.loads(row) for row in rows.splitlines()]
        places = [(item["repeat"], item["prompt_index"]) for item in items]
        assert sorted(places) == [(0, prompt) for prompt in range(NUM_PROMPTS)], name
        assert json.loads(meta)["num_rows"] == len(items)
        found[name] = [item["output_token_ids"] for item in items]
    return found


def counted_rows(project: Project) -> dict[str, Rows]:
    """What does not depend on time in the tables, made anew."""
    done = project.snakemake("parse")
    assert done.returncode == 0, done.stdout
    tables = {}
    for table in ("server", "token_equality"):
        with open(project.folder / f"results/tiny/csv/{table}.csv", encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
        tables[table] = [{k: v for k, v in row.items() if table != "server" or k in COUNTED} for row in rows]
    return tables


def finish(project: Project, kept: dict[str, tuple[bytes, bytes]], expected: Outputs) -> None:
    """The command undisturbed: it ends well, keeps what was there to the byte, and completes the rest."""
    done = project.snakemake(EXPERIMENT, timeout=300)
    assert done.returncode == 0, done.stdout
    assert_kept(project, kept)
    assert outputs(project) == expected
    assert not list(project.raw.glob("superseded/*"))


def assert_kept(project: Project, kept: dict[str, tuple[bytes, bytes]]) -> None:
    """No record that was complete is gone or written again."""
    records = committed(project)
    lost = [name for name, record in kept.items() if records.get(name) != record]
    assert not lost, f"lost or written again: {lost}"


def start_afresh(project: Project) -> None:
    """Forget all records; what was found out about models and machine stays, as nothing here is about it."""
    for name in ("raw", "ok"):
        shutil.rmtree(project.folder / "results/tiny" / name)


def test_twenty_kills_lose_nothing(ranked: Project) -> None:
    chance = random.Random(SEED)
    started_at = time.monotonic()
    done = ranked.snakemake(EXPERIMENT, timeout=300)
    assert done.returncode == 0, done.stdout
    duration_s = time.monotonic() - started_at
    expected, tables = outputs(ranked), counted_rows(ranked)
    assert {row["status"] for row in tables["server"]} == {"ok"}
    assert len(expected) == len(tables["server"]) == len(SIZES) * len(BATCH_SIZES) * NUM_MODES
    start_afresh(ranked)

    kinds = list(KILLS.elements())
    chance.shuffle(kinds)
    kept: dict[str, tuple[bytes, bytes]] = {}
    num_lost_moments = num_partial = 0
    while kinds:
        with started(ranked) as run:
            share_left = 0.3 + 0.7 * (1 - len(kept) / len(expected))  # of an undisturbed run
            longest_s = share_left * (duration_s if kinds[-1] == "workflow" else duration_s / 4)
            was_killed = kill_at_random(run, kinds[-1], chance, longest_s)
            status = run.workflow.wait(REST_S)
            wait_for(f"the end of every process, killed: {was_killed}", lambda: not run.processes(), run, END_S)
        if was_killed and status != 0:
            kinds.pop()
        else:  # drawn beyond the end, or it had ended by itself in the very moment
            told = f"status {status} without all records, killed: {was_killed}, {kinds[-1]}:\n{run.log.read_text()}"
            assert status == 0 and len(committed(ranked)) == len(expected), told
            num_lost_moments += 1
            assert num_lost_moments < 3 * KILLS.total(), "runs end before anything is killed"
        assert_kept(ranked, kept)
        kept = committed(ranked)
        num_partial += is_partial(kept)
        if len(kept) == len(expected):
            finish(ranked, kept, expected)
            start_afresh(ranked)
            kept = {}
    assert num_partial >= KILLS.total() // 5, f"only {num_partial} kills left a placement in the middle"
    finish(ranked, kept, expected)
    assert counted_rows(ranked) == tables


@pytest.mark.parametrize("delay_s", [0, 1])
def test_ranks_that_are_starting_end_with_the_workflow(ranked: Project, delay_s: float) -> None:
    """They are not yet bound to the process that launched them when it is gone."""
    ranked.edit("platforms/tiny.yaml", lambda data: data["overrides"]["server_gpu"].update(sizes=["medium"]))
    with started(ranked) as run:
        wait_for("the first rank", lambda: any(map(is_rank, run.processes())), run)
        time.sleep(delay_s)
        run.workflow.kill()
        wait_for("the end of every process", lambda: not run.processes(), run, END_S)
