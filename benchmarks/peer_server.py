"""A third party serves the incremental scenarios of a job file and leaves records in the format of ours.

    python -m benchmarks.peer_server --config JOB.yaml --output-dir RAW [--peer transformers]

Same prompts, weights, inflation, threads, precision, lengths and repeats as `treespec run`; static batches in file
order, padded on the left, warm-up excluded. A request's latency is the wall time of its batch: nothing is handed out
before the batch is done. Finished records are skipped, the locks are those of `treespec run`.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch: as in `treespec run`

import torch

from benchmarks.peer_identity import PEERS, PeerName, PeerScenario, peer_scenarios, peer_version
from treespec.config import Placement, RunConfig, Scenario, fingerprints, hash_model, load_run_config
from treespec.errors import ConfigError, TreespecError
from treespec.log import say
from treespec.metrics.counts import PassProfile, RequestProfile
from treespec.metrics.environment import describe_environment
from treespec.metrics.records import RecordFolder, ServedRequest, pass_entry, utc_now
from treespec.metrics.stopwatch import Stopwatch
from treespec.model.families.registry import FAMILIES
from treespec.model.loader import describe_model
from treespec.model.spec import ModelSpec, architecture_of, read_config
from treespec.model.tokenizers.text import TextTokenizer
from treespec.prompts import prompt_indices
from treespec.request import Request, RequestStatus, SamplingParams
from treespec.serving.exclusion import exclusive_run
from treespec.serving.passes import WARM_UP_TOKENS
from treespec.serving.progress import Progress
from treespec.serving.prompts import LoadedPrompts, load_all_prompts


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure what is missing; 0 only if every record is complete, 2 after one line about a user's mistake."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, required=True, help="job file of `treespec run`")
    parser.add_argument("--output-dir", type=Path, required=True, help="folder of the records")
    parser.add_argument("--peer", choices=PEERS, default="transformers")
    args = parser.parse_args(arguments)
    try:
        job = load_run_config(args.config)
        folder = RecordFolder(args.output_dir)
        with exclusive_run(folder.folder):
            failed = _PeerJob(job, folder, args.peer).run()
    except TreespecError as error:
        say(f"error: {error}")
        return 2
    except KeyboardInterrupt:
        say("interrupted; finished records are kept, the same command goes on")
        return 130
    if failed:
        say(f"{failed} scenarios failed; the same command tries them again")
    return 1 if failed else 0


@dataclass(frozen=True)
class _Loaded:
    """The peer with the target in memory, and what of the target's folder the requests need."""

    generator: Any
    spec: ModelSpec
    tokenizer: TextTokenizer
    placement: Placement

    def request(self, scenario: Scenario, index: int, prompt: Sequence[int]) -> Request:
        """A running request with the stopping rule that ours have."""
        limits = SamplingParams(scenario.max_new_tokens, self.placement.max_sequence_length, scenario.ignore_eos)
        return Request(index, tuple(prompt), limits, self.spec.eos_token_ids, status=RequestStatus.RUNNING)

    def generate(self, scenario: Scenario, requests: Sequence[Request], num_tokens: int) -> list[list[int]]:
        """One static batch; the rows come as host lists, so that the device has finished when this returns."""
        eos_token_ids = () if scenario.ignore_eos else self.spec.eos_token_ids
        prompts = [request.prompt_token_ids for request in requests]
        rows: list[list[int]] = self.generator.generate("incremental", prompts, num_tokens, eos_token_ids)
        return rows


class _PeerJob:
    """The scenarios of one peer in a job, and those of them that have no current record."""

    def __init__(self, job: RunConfig, records: RecordFolder, peer: PeerName) -> None:
        self._job = job
        self._records = records
        self._peer = peer
        self._scenarios = peer_scenarios(job, fingerprints(job), peer)

    def run(self) -> int:
        """Serve what is missing; returns the number of scenarios that failed."""
        missing = [s for s in self._scenarios if not self._records.is_complete(s.config.name, s.fingerprint)]
        num_done = len(self._scenarios) - len(missing)
        say(f"{num_done} of {len(self._scenarios)} scenarios of {self._peer} are done")
        if not missing:
            return 0
        loaded = self._load()
        prompts = [self._prompts(scenario.config, loaded) for scenario in missing]
        meta = self._meta(loaded)
        for scenario in missing:
            self._records.supersede(scenario.config.name, scenario.fingerprint)
        progress = Progress(sum(scenario.config.num_repeats for scenario in missing))
        served = [
            self._serve(scenario, loaded, its_prompts, meta, progress)
            for scenario, its_prompts in zip(missing, prompts, strict=True)
        ]
        return served.count(False)

    def _load(self) -> _Loaded:
        if peer_version(self._peer) is None:
            raise ConfigError(
                f"{self._peer} is not installed",
                where=sys.executable,
                fix="make setup, or leave it out: peers: [] in the platform's overrides",
            )
        placement = self._job.placement
        if placement.device == "cuda" and not torch.cuda.is_available():
            raise ConfigError("the device is not there", where=f"placement {placement.name!r}", received="device: cuda")
        # Only here: without transformers the module must still be able to say so.
        from benchmarks.peers import TransformersPeer

        torch.set_num_threads(placement.num_threads or len(os.sched_getaffinity(0)))
        target = placement.target
        config = read_config(target.path)
        spec = FAMILIES.get(architecture_of(config, target.path)).spec(config, target.path)
        dtype = getattr(torch, placement.dtype)
        generator = TransformersPeer(target.path, None, target.inflation, dtype, placement.device)
        return _Loaded(generator, spec, TextTokenizer.load(target.path), placement)

    def _prompts(self, scenario: Scenario, loaded: _Loaded) -> LoadedPrompts:
        """The prompts; ConfigError where a padded batch would run beyond the positions that the model knows."""
        max_length = loaded.placement.max_sequence_length
        prompts = load_all_prompts([scenario], loaded.tokenizer, max_length)[scenario.name]
        longest = max(map(len, prompts.token_ids)) + scenario.max_new_tokens
        if longest > loaded.spec.max_positions:
            raise ConfigError(
                "prompt and output are beyond the positions the model knows",
                where=f"scenario {scenario.name!r}",
                received=longest,
                allowed=f"at most {loaded.spec.max_positions}",
            )
        return prompts

    def _meta(self, loaded: _Loaded) -> dict[str, Any]:
        target = self._job.placement.target
        num_parameters = loaded.generator.num_parameters
        device = torch.cuda.get_device_name() if self._job.placement.device == "cuda" else "cpu"
        environment = describe_environment(torch.__version__, device, torch.get_num_threads())
        description = {
            "label": target.name,
            "description": describe_model(target, num_parameters),
            "num_parameters": num_parameters,
            "sha256": hash_model(target.path),
        }
        return {
            "models": {"target": description, "drafts": []},
            "environment": environment | {self._peer: peer_version(self._peer)},
            "offload": {},
            "costs": {},
        }

    def _serve(
        self,
        scenario: PeerScenario,
        loaded: _Loaded,
        prompts: LoadedPrompts,
        meta: dict[str, Any],
        progress: Progress,
    ) -> bool:
        """Measure one scenario and commit its record; a failure is committed as one and the others go on."""
        config = scenario.config
        settings = config.model_dump(mode="json") | {"mode": self._peer}
        whole = meta | {
            "fingerprint": scenario.fingerprint,
            "config": {"placement": self._job.placement.model_dump(mode="json"), "scenario": settings},
            "started_at": utc_now(),
        }
        served: list[ServedRequest] = []
        totals: list[PassProfile] = []
        try:
            _warm_up(loaded, config, prompts.token_ids)
            for repeat in range(config.num_repeats):
                rows, total = _serve_pass(loaded, config, prompts, repeat)
                served += rows
                totals.append(total)
                progress.advance(f"{config.name}, repeat {repeat + 1}")
        except (TreespecError, RuntimeError, MemoryError) as error:
            # The device's failures are RuntimeErrors.
            message = f"{type(error).__name__}: {error}"
            say(f"{config.name} failed: {message}")
            self._records.write_failure(config.name, message, whole | {"repeats": [], "finished_at": utc_now()})
            return False
        repeats = [pass_entry(total) for total in totals]
        self._records.write(config.name, served, whole | {"repeats": repeats, "finished_at": utc_now()})
        return True


def _warm_up(loaded: _Loaded, scenario: Scenario, prompts: Sequence[Sequence[int]]) -> None:
    first_batch = prompt_indices(scenario, len(prompts))[: scenario.max_requests_per_batch]
    requests = [loaded.request(scenario, number, prompts[index]) for number, index in enumerate(first_batch)]
    loaded.generate(scenario, requests, min(WARM_UP_TOKENS, scenario.max_new_tokens))


def _serve_pass(
    loaded: _Loaded, scenario: Scenario, prompts: LoadedPrompts, repeat: int
) -> tuple[list[ServedRequest], PassProfile]:
    """All prompts once, batch after batch; nothing but generating lies between the two clock readings of a batch."""
    indices = prompt_indices(scenario, len(prompts.token_ids))
    requests = [loaded.request(scenario, number, prompts.token_ids[index]) for number, index in enumerate(indices)]
    decode = loaded.tokenizer.decode
    served: list[ServedRequest] = []
    totals = PassProfile(time_us=dict.fromkeys(Stopwatch.PARTS, 0))
    pass_started = time.monotonic_ns()
    for first in range(0, len(requests), scenario.max_requests_per_batch):
        batch = requests[first : first + scenario.max_requests_per_batch]
        started = time.monotonic_ns()
        rows = loaded.generate(scenario, batch, max(request.num_remaining for request in batch))
        finished = time.monotonic_ns()
        start_us, finish_us = ((at - pass_started) // 1000 for at in (started, finished))
        totals.wall_us += finish_us - start_us
        totals.num_target_steps += len(rows[0])
        # The first of these passes holds the prompts, each other one a token per row.
        num_prompt_tokens = sum(len(request.prompt_token_ids) for request in batch)
        totals.num_target_rows += num_prompt_tokens + (len(rows[0]) - 1) * len(batch)
        for request, row in zip(batch, rows, strict=True):
            num_tokens = request.append(row, decode)
            profile = RequestProfile(
                num_target_steps=num_tokens,
                accepted_per_step=[0] * num_tokens,
                start_us=start_us,
                first_token_us=finish_us,
                finish_us=finish_us,
            )
            text = decode(request.prompt_token_ids) + request.text(decode)
            index = indices[request.request_id]
            served.append(ServedRequest(repeat, index, prompts.categories[index], request, profile, text))
            totals.num_output_tokens += num_tokens
    totals.time_us["other"] = totals.wall_us  # what happens inside is not known
    return served, totals


if __name__ == "__main__":
    raise SystemExit(main())
