"""Whether greedy speculation emits the tokens of incremental decoding, and why not where it does not."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from treespec.audit.divergence import Cause, StepRecorder, Verdict
from treespec.audit.replay import diagnose
from treespec.config import Scenario
from treespec.model.decoder import Decoder
from treespec.serving.build import LoadedPlacement
from treespec.serving.engine import OnVerified

Outputs = Mapping[int, Sequence[int]]
"""Generated tokens by request id, the prompt's index."""


@dataclass(frozen=True)
class Equality:
    """A speculative pass beside the incremental one on the same prompts."""

    num_prompts: int
    num_tokens: int
    verdicts: tuple[Verdict, ...]  # one per prompt whose outputs differ

    @property
    def holds(self) -> bool:
        """Whether rounding explains every difference."""
        return all(verdict.cause is Cause.NUMERIC for verdict in self.verdicts)


def compare_greedy(
    loaded: LoadedPlacement,
    scenario: Scenario,
    prompts: Sequence[Sequence[int]],
    expected: Outputs,
    wider: Callable[[], Decoder],
) -> Equality:
    """Serve ``scenario`` and judge every output that is not the ``expected`` one of incremental decoding.

    ``wider`` gives the target in a dtype of more digits; it is asked only where something differs.
    """
    recorder = StepRecorder(expected)
    outputs = serve(loaded, scenario, prompts, recorder)
    verdicts = []
    for request_id, prompt in enumerate(prompts):
        if divergence := recorder.divergences.get(request_id):
            decoders = loaded.target.decoder, wider()
            verdicts.append(diagnose(divergence, prompt, expected[request_id], recorder.steps[request_id], decoders))
        elif outputs[request_id] != expected[request_id]:
            verdicts.append(_emitted_otherwise(request_id, outputs[request_id], expected[request_id]))
    return Equality(len(prompts), sum(map(len, outputs.values())), tuple(verdicts))


def serve(
    loaded: LoadedPlacement,
    scenario: Scenario,
    prompts: Sequence[Sequence[int]],
    on_verified: OnVerified | None = None,
) -> dict[int, list[int]]:
    """Generated tokens of every prompt."""
    requests = [loaded.request(scenario, index, prompt) for index, prompt in enumerate(prompts)]
    engine = loaded.engine(scenario, on_verified)
    engine.add(requests)
    engine.run()
    return {request.request_id: request.output_token_ids for request in requests}


def _emitted_otherwise(request_id: int, output: Sequence[int], expected: Sequence[int]) -> Verdict:
    """Every verdict agreed with incremental decoding, so what was emitted is not what was verified."""
    pairs = enumerate(zip(output, expected, strict=False))
    position = next((index for index, (ours, theirs) in pairs if ours != theirs), min(len(output), len(expected)))
    return Verdict(request_id, position, Cause.ALGORITHMIC, "what was emitted is not what was verified")
