"""Why two greedy outputs differ: planted errors of every kind are named, and rounding is told from them.

Legend: T positions, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

from engine.tests.checkpoints import TinyLlama, perturbed, write_checkpoint
from engine.tests.decoding import load, logits_of, ragged_prompts
from engine.tests.planted import LeavesSlots, OffByOne, SecondLikeliest, SeesCousins, SwapsKeys
from treespec.audit.divergence import Cause, Divergence, Replay, StepRecorder, Verdict, judge
from treespec.audit.replay import WIDER, RunnerFactory, diagnose, plain_steps, replay, wider_decoder
from treespec.config import ModelRef
from treespec.draft.growth import FixedTopology
from treespec.draft.protocol import NoDrafter
from treespec.draft.ssm import SsmDrafter
from treespec.model.decoder import Decoder
from treespec.model.loader import LoadedModel
from treespec.request import Request, SamplingParams
from treespec.runner import ModelRunner
from treespec.scheduler import Scheduler
from treespec.serving.engine import Engine
from treespec.tree import Topology
from treespec.verify import GreedyVerifier, Verifier

TREE = (2, 2, 1)
NUM_TOKENS = 16
BATCH = 3


class Bench:
    """A target and a draft in one dtype, served greedily with or without a planted error."""

    def __init__(self, target_folder: Path, draft_folder: Path, dtype: torch.dtype) -> None:
        self.target, self.draft = load(target_folder, dtype), load(draft_folder, dtype)
        self.decoders: tuple[Decoder, Decoder] = (
            self.target.decoder,
            wider_decoder(ModelRef(path=target_folder), dtype, torch.device("cpu")),
        )

    def verdicts(
        self,
        prompts: Sequence[Sequence[int]],
        make_runner: RunnerFactory = ModelRunner,
        verifier: Verifier | None = None,
    ) -> list[Verdict]:
        """The verdict on every prompt whose outputs differ."""
        expected, recorder = self.serve(prompts, make_runner, verifier)
        return [
            diagnose(divergence, prompts[index], expected[index], recorder.steps[index], self.decoders, make_runner)
            for index, divergence in recorder.divergences.items()
        ]

    def serve(
        self, prompts: Sequence[Sequence[int]], make_runner: RunnerFactory, verifier: Verifier | None = None
    ) -> tuple[dict[int, list[int]], StepRecorder]:
        """Incremental outputs, and what was recorded of the speculative pass."""
        expected = self._outputs(prompts, make_runner, None, GreedyVerifier())
        recorder = StepRecorder(expected)
        outputs = self._outputs(prompts, make_runner, recorder, verifier or GreedyVerifier())
        different = {index for index, output in outputs.items() if output != expected[index]}
        assert different == set(recorder.divergences)
        return expected, recorder

    def _outputs(
        self,
        prompts: Sequence[Sequence[int]],
        make_runner: RunnerFactory,
        recorder: StepRecorder | None,
        verifier: Verifier,
    ) -> dict[int, list[int]]:
        capacity = max(map(len, prompts)) + NUM_TOKENS + 16
        drafter = NoDrafter() if recorder is None else _drafter(self.draft, capacity)
        runner = make_runner(self.target.decoder, BATCH, capacity)
        engine = Engine(runner, drafter, verifier, Scheduler(BATCH, 32), str, recorder)
        params = SamplingParams(max_new_tokens=NUM_TOKENS, max_sequence_length=capacity, ignore_eos=True)
        requests = [Request(index, tuple(prompt), params) for index, prompt in enumerate(prompts)]
        engine.add(requests)
        engine.run()
        return {request.request_id: request.output_token_ids for request in requests}


def _drafter(draft: LoadedModel, capacity: int) -> SsmDrafter:
    return SsmDrafter(ModelRunner(draft.decoder, BATCH, capacity), FixedTopology(Topology.from_expansion(TREE)))


SHAPE = TinyLlama(num_kv_heads=2, seed=1)
PROMPTS = ragged_prompts(seed=11, count=6, longest=20, vocab_size=SHAPE.vocab_size)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A target and a draft that often agrees."""
    root = tmp_path_factory.mktemp("divergence")
    tensors = SHAPE.tensors()
    draft = perturbed(tensors, 0.05)
    return write_checkpoint(root / "target", SHAPE, tensors), write_checkpoint(root / "draft", SHAPE, draft)


@pytest.fixture(scope="module")
def twins(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    """In bfloat16, a target whose tokens come in pairs that differ by little more than a step of bfloat16."""
    root = tmp_path_factory.mktemp("twins")
    tensors = SHAPE.tensors()
    head_VM = tensors["lm_head.weight"]
    noise = torch.randn(head_VM[::2].shape, generator=torch.Generator().manual_seed(0))
    head_VM[1::2] = head_VM[::2] + 0.004 * head_VM.std() * noise
    draft = perturbed(tensors, 0.02)
    folders = write_checkpoint(root / "target", SHAPE, tensors), write_checkpoint(root / "draft", SHAPE, draft)
    return Bench(*folders, torch.bfloat16)


@pytest.fixture(scope="module")
def exact(folders: tuple[Path, Path]) -> Bench:
    """The pair in float32."""
    return Bench(*folders, torch.float32)


@pytest.fixture(scope="module", params=[torch.float32, torch.bfloat16], ids=str)
def bench(request: pytest.FixtureRequest, folders: tuple[Path, Path]) -> Bench:
    """The pair in a dtype of each width."""
    return Bench(*folders, request.param)


@pytest.mark.parametrize("planted", [OffByOne, SeesCousins, LeavesSlots, SwapsKeys])
def test_error_in_mask_position_or_cache_is_named(bench: Bench, planted: type[ModelRunner]) -> None:
    verdicts = bench.verdicts(PROMPTS, planted)
    assert len(verdicts) >= 3
    assert {verdict.cause for verdict in verdicts} == {Cause.MASK_POSITION_CACHE}


def test_verifier_that_takes_the_second_likeliest_token_is_named(bench: Bench) -> None:
    verdicts = bench.verdicts(PROMPTS, verifier=SecondLikeliest())
    assert len(verdicts) >= 3
    assert {verdict.cause for verdict in verdicts} == {Cause.ALGORITHMIC}


def test_rounding_is_no_fault(twins: Bench) -> None:
    verdicts = twins.verdicts(ragged_prompts(seed=11, count=12, longest=20, vocab_size=SHAPE.vocab_size))
    assert len(verdicts) >= 3
    for verdict in verdicts:
        assert verdict.cause is Cause.NUMERIC, verdict
        assert verdict.measured is not None
        assert verdict.measured.noise <= verdict.measured.bound
        assert verdict.measured.gap <= 2 * verdict.measured.noise
        assert verdict.measured.wide_noise < verdict.measured.bound / 1000


@pytest.mark.parametrize("planted", [SeesCousins, SwapsKeys])
def test_error_among_near_ties_is_named(twins: Bench, planted: type[ModelRunner]) -> None:
    causes = [verdict.cause for verdict in twins.verdicts(PROMPTS, planted)]
    assert Cause.MASK_POSITION_CACHE in causes
    assert Cause.ALGORITHMIC not in causes


def test_replay_gives_the_logits_of_the_recorded_pass(exact: Bench) -> None:
    expected, recorder = exact.serve(PROMPTS, ModelRunner, SecondLikeliest())
    for index, divergence in recorder.divergences.items():
        prompt, steps = PROMPTS[index], recorder.steps[index]
        again = replay(exact.target.decoder, ModelRunner, prompt, steps)
        assert [len(logits_NV) for logits_NV in again] == [len(step.tree) for step in steps]
        torch.testing.assert_close(again[-1][divergence.node], divergence.chosen_from_V, rtol=0, atol=1e-5)
        plain = plain_steps(prompt, expected[index])
        choices = [int(logits_NV[0].argmax()) for logits_NV in replay(exact.target.decoder, ModelRunner, prompt, plain)]
        assert choices == expected[index]


@pytest.mark.parametrize("dtype", WIDER, ids=str)
def test_wider_decoder_computes_with_the_weights_of_the_run(
    folders: tuple[Path, Path], tmp_path: Path, dtype: torch.dtype
) -> None:
    rounded = {name: tensor.to(dtype).float() for name, tensor in SHAPE.tensors().items()}
    same_weights = load(write_checkpoint(tmp_path / "rounded", SHAPE, rounded), WIDER[dtype]).decoder
    wide = wider_decoder(ModelRef(path=folders[0]), dtype, torch.device("cpu"))
    assert wide.dtype == WIDER[dtype]
    assert torch.finfo(wide.dtype).eps < torch.finfo(dtype).eps
    assert torch.equal(logits_of(wide, PROMPTS[2]), logits_of(same_weights, PROMPTS[2]))


def test_first_difference_is_found_inside_an_accepted_path(exact: Bench) -> None:
    expected, recorder = exact.serve(PROMPTS, ModelRunner, SecondLikeliest())
    for index, divergence in recorder.divergences.items():
        step = recorder.steps[index][-1]
        emitted = [token for other in recorder.steps[index] for token in other.emitted]
        assert emitted[: divergence.position] == expected[index][: divergence.position]
        assert emitted[divergence.position] == divergence.speculative_token != divergence.incremental_token
        assert divergence.incremental_token == expected[index][divergence.position]
        assert divergence.node == step.result.accepted_nodes[-1], "the planted verifier errs after a path of two"


A, B, OTHER = 0, 1, 2
EXACT_TV = torch.tensor([[3.0, -1.0, 0.5, 0.0], [2.0, 1.999, 1.0, -4.0]], dtype=torch.float64)


def rounded(shift: float) -> torch.Tensor:
    """The plain path in float32, its first position ``shift`` away from exact."""
    plain_TV = EXACT_TV.float()
    plain_TV[0, OTHER] += shift
    return plain_TV


def verdict_on(
    chosen_from: Sequence[float],
    verify: Sequence[float],
    wide_verify: Sequence[float] | None = None,
    shift: float = 0.01,
) -> Verdict:
    """The verdict on made-up logits at the second position, whose exact ones are (2, 1.999, 1, -4)."""
    divergence = Divergence(7, 1, A, B, 0, torch.tensor(chosen_from))
    run = Replay(rounded(shift), torch.tensor(verify))
    exact = EXACT_TV[1].tolist() if wide_verify is None else wide_verify
    wide = Replay(EXACT_TV, torch.tensor(exact, dtype=torch.float64))
    return judge(divergence, run, wide)


FLIPPED = (1.995, 2.0, 1.0, -4.0)
APART = (1.97, 2.0, 1.0, -4.0)
EXACT = (2.0, 1.999, 1.0, -4.0)


def test_near_tie_within_the_rounding_of_the_plain_path_is_numeric() -> None:
    verdict = verdict_on(FLIPPED, FLIPPED)
    assert (verdict.request_id, verdict.position, verdict.cause) == (7, 1, Cause.NUMERIC)
    assert verdict.measured is not None
    assert verdict.measured.gap == pytest.approx(0.001, rel=1e-3)
    assert verdict.measured.noise == pytest.approx(0.005, rel=1e-3)
    assert verdict.measured.bound == pytest.approx(0.02 + 2.0**-22, rel=1e-3), "twice the rounding, and a step at 2"
    assert verdict.measured.wide_bound == pytest.approx(0.02 * 2.0**-14.5, rel=1e-3)


def test_same_near_tie_is_a_bug_where_the_plain_path_hardly_rounds() -> None:
    assert verdict_on(FLIPPED, FLIPPED, shift=1e-4).cause is Cause.MASK_POSITION_CACHE


@pytest.mark.parametrize("where", ["recorded", "replayed"])
def test_logits_beyond_rounding_are_a_bug_in_either_pass(where: str) -> None:
    verdict = verdict_on(APART, EXACT) if where == "recorded" else verdict_on(FLIPPED, APART)
    assert verdict.cause is Cause.MASK_POSITION_CACHE


def test_difference_that_does_not_shrink_in_the_wider_dtype_is_a_bug() -> None:
    verdict = verdict_on(FLIPPED, FLIPPED, wide_verify=FLIPPED)
    assert verdict.cause is Cause.MASK_POSITION_CACHE
    assert "does not shrink" in verdict.reason


def test_token_that_its_own_logits_do_not_choose_is_algorithmic() -> None:
    assert verdict_on(EXACT, EXACT).cause is Cause.ALGORITHMIC


def test_incremental_token_that_the_plain_path_does_not_choose_is_algorithmic() -> None:
    divergence = Divergence(0, 1, OTHER, A, 0, EXACT_TV[1].float())
    verdict = judge(divergence, Replay(rounded(0.01), EXACT_TV[1].float()), Replay(EXACT_TV, EXACT_TV[1]))
    assert verdict.cause is Cause.ALGORITHMIC
    assert "incremental" in verdict.reason


def test_exact_tie_is_numeric() -> None:
    tie_TV = torch.tensor([[2.0, 2.0, 1.0]])
    divergence = Divergence(0, 0, A, B, 0, tie_TV[0])
    verdict = judge(divergence, Replay(tie_TV, tie_TV[0]), Replay(tie_TV.double(), tie_TV[0].double()))
    assert verdict.cause is Cause.NUMERIC
