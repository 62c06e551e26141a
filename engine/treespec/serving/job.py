"""Serves all scenarios of a job in one process: interleaved, resumable, one record each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from treespec.config import RunConfig, Scenario, fingerprints, hash_model
from treespec.log import say
from treespec.metrics.counts import PassProfile
from treespec.metrics.environment import describe_environment
from treespec.metrics.records import RecordFolder, ServedRequest, pass_entry, utc_now
from treespec.model.loader import LoadedModel
from treespec.model.spec import read_config
from treespec.parallel.process_group import ProcessGroup
from treespec.runner.commands import driving
from treespec.serving.build import LoadedPlacement, load_placement
from treespec.serving.homes import used_drafts
from treespec.serving.passes import ServedPass, comparison_groups, interleaved, serve_pass, warm_up
from treespec.serving.progress import Progress
from treespec.serving.prompts import LoadedPrompts, load_all_prompts, require_prompts


class Job:
    """One placement and those of its scenarios that have no current record."""

    def __init__(self, config: RunConfig, output_dir: Path, group: ProcessGroup | None = None) -> None:
        """``group``: the ranks that hold the target together, of which this process is the driver."""
        self._config = config
        self._group = group
        self._records = RecordFolder(output_dir)
        self._fingerprints = fingerprints(config)

    def missing(self) -> list[Scenario]:
        """Scenarios without a complete, current record."""
        return [s for s in self._config.scenarios if not self._records.is_complete(s.name, self._fingerprints[s.name])]

    def run(self) -> int:
        """Serve what is missing; returns the number of scenarios that failed."""
        with driving(self._group):
            return self._run()

    def _run(self) -> int:
        missing = self.missing()
        say(f"{len(self._config.scenarios) - len(missing)} of {len(self._config.scenarios)} scenarios are done")
        if not missing:
            if self._group is not None:
                self._group.meet()  # the others have loaded, and are to be let go
            return 0
        require_prompts(missing)
        hashes = self._model_hashes(missing)  # before the ranks meet: large files take longer than a rank waits later
        loaded = load_placement(self._config.placement, missing, self._group)
        tokenizer, max_length = loaded.target.tokenizer, self._config.placement.max_sequence_length
        prompts = load_all_prompts(missing, tokenizer, max_length)  # every bad one is told before any is served
        for scenario in missing:
            self._records.supersede(scenario.name, self._fingerprints[scenario.name])
        meta = self._placement_meta(loaded, hashes)
        progress = Progress(sum(scenario.num_repeats for scenario in missing))
        failed = 0
        for group in comparison_groups(missing):
            failed += self._serve_group(group, loaded, prompts, meta, progress)
        return failed

    def _serve_group(
        self,
        group: Sequence[Scenario],
        loaded: LoadedPlacement,
        prompts: dict[str, LoadedPrompts],
        meta: dict[str, Any],
        progress: Progress,
    ) -> int:
        """Measure the group, then commit its records; returns how many failed."""
        attempts = {s.name: _Attempt(s, loaded, prompts[s.name]) for s in group}
        for repeat, scenario in interleaved(group):
            attempt = attempts[scenario.name]
            attempt.serve(repeat)
            progress.advance(f"{scenario.name}, repeat {repeat + 1}: {attempt.summary()}")
        for name, attempt in attempts.items():
            self._commit(name, attempt, meta)
        return sum(attempt.error is not None for attempt in attempts.values())

    def _commit(self, name: str, attempt: _Attempt, meta: dict[str, Any]) -> None:
        whole = meta | {
            "fingerprint": self._fingerprints[name],
            "config": {
                "placement": self._config.placement.model_dump(mode="json"),
                "scenario": attempt.scenario.model_dump(mode="json"),
            },
            "repeats": [pass_entry(totals) for totals in attempt.totals],
            "started_at": attempt.started_at,
            "finished_at": utc_now(),
        }
        if attempt.error is None:
            self._records.write(name, attempt.served, whole)
        else:
            say(f"{name} failed: {attempt.error}")
            self._records.write_failure(name, attempt.error, whole)

    def _model_hashes(self, scenarios: Sequence[Scenario]) -> dict[Path, str]:
        placement = self._config.placement
        models = [placement.target, *(placement.drafts[index] for index in used_drafts(scenarios))]
        for model in models:
            read_config(model.path)  # a folder that is not there is told as such
        return {path: hash_model(path) for path in {model.path for model in models}}

    def _placement_meta(self, loaded: LoadedPlacement, hashes: Mapping[Path, str]) -> dict[str, Any]:
        placement = self._config.placement
        device = torch.cuda.get_device_name() if placement.device == "cuda" else "cpu"
        drafts = [
            _model_meta(draft, hashes[placement.drafts[index].path]) for index, draft in sorted(loaded.drafts.items())
        ]
        return {
            "models": {"target": _model_meta(loaded.target, hashes[placement.target.path]), "drafts": drafts},
            "environment": describe_environment(torch.__version__, device, torch.get_num_threads()),
            "offload": loaded.offload_meta(self._config.scenarios),
            "costs": {str(model): cost.to_dict() for model, cost in loaded.shapes.costs.items()},
        }


class _Attempt:
    """What one scenario has produced so far."""

    def __init__(self, scenario: Scenario, loaded: LoadedPlacement, prompts: LoadedPrompts) -> None:
        self.scenario = scenario
        self.served: list[ServedRequest] = []
        self.totals: list[PassProfile] = []
        self.error: str | None = None
        self.started_at = utc_now()
        self._loaded = loaded
        self._prompts = prompts

    def serve(self, repeat: int) -> None:
        """One pass over the prompts; a failure is kept as this scenario's error and the others go on."""
        if self.error is not None:
            return
        try:
            if repeat == 0:
                warm_up(self._loaded, self.scenario, self._prompts.token_ids)
            self._keep(repeat, serve_pass(self._loaded, self.scenario, self._prompts.token_ids))
        except self._loaded.survivable as error:
            # The device's failures are RuntimeErrors; the caches they leave leased are made anew.
            self.error = f"{type(error).__name__}: {error}"
            self._loaded.reset()

    def _keep(self, repeat: int, served: ServedPass) -> None:
        self.totals.append(served.totals)
        decode = self._loaded.target.tokenizer.decode
        for index, request, profile in zip(served.prompt_indices, served.requests, served.profiles, strict=True):
            text = decode(request.prompt_token_ids) + request.text(decode)
            self.served.append(ServedRequest(repeat, index, self._prompts.categories[index], request, profile, text))

    def summary(self) -> str:
        """The last pass in a few words."""
        if self.error is not None:
            return "failed"
        totals = self.totals[-1]
        return f"{totals.wall_us / 1000 / max(1, totals.num_output_tokens):.2f} ms per token of the batch"


def _model_meta(model: LoadedModel, sha256: str) -> dict[str, Any]:
    return {
        "label": model.label,
        "description": model.description,
        "num_parameters": model.num_parameters,
        "sha256": sha256,
    }
