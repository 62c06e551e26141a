"""Every family and variant against transformers: logits, greedy text, speculation, sharding over ranks."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from engine.tests.decoding import PAPER_TREE, Serving, chain_row, load, logits_of, prefill, serve
from engine.tests.families import TEXT_TOKENS, VARIANTS, WINDOW, WINDOWED, Example, Examples
from engine.tests.properties import examples as few
from engine.tests.properties import trees
from engine.tests.test_law_cache import forest_logits
from engine.tests.test_parity import logits_in_chunks
from engine.tests.threaded import logits_on_ranks
from treespec.config import Inflation, ModelRef
from treespec.errors import ConfigError
from treespec.model.families.windows import in_window
from treespec.model.loader import load_model
from treespec.parallel.mesh import ParallelMesh
from treespec.runner import ModelRunner, Stripes
from treespec.runner.batch import pack_rows

SLOW = pytest.mark.slow
EACH = pytest.mark.parametrize("example", VARIANTS, indirect=True)


@pytest.fixture(scope="module")
def examples(tmp_path_factory: pytest.TempPathFactory) -> Examples:
    return Examples(tmp_path_factory.mktemp("families"))


@pytest.fixture
def example(request: pytest.FixtureRequest, examples: Examples) -> Example:
    return examples.of(request.param)


@EACH
def test_logits_of_a_prompt_in_chunks_equal_transformers(example: Example) -> None:
    for prompt, continuation in example.texts:
        token_ids = [*prompt, *continuation]
        found = logits_in_chunks(example.target.decoder, token_ids, 7)
        torch.testing.assert_close(found, example.logits(token_ids), rtol=0, atol=1e-4)


@EACH
@pytest.mark.parametrize("expansion", [(), pytest.param((1,) * 4, marks=SLOW), PAPER_TREE], ids=str)
def test_greedy_text_of_every_mode_equals_transformers(example: Example, expansion: tuple[int, ...]) -> None:
    prompts, expected = zip(*example.texts, strict=True)
    serving = Serving(expansion, max_new_tokens=TEXT_TOKENS, max_tokens_per_batch=24)
    served = serve(example.target, example.draft, prompts, serving)
    assert served.token_ids == list(expected)
    if expansion:
        accepted = [count for steps in served.accepted_per_step for count in steps[1:-1]]
        assert sum(accepted) > 0


@EACH
@pytest.mark.parametrize(
    ("tensor", "pipeline"),
    [pytest.param(2, 1, id="2 tensor ranks"), pytest.param(1, 2, id="2 stages", marks=SLOW)],
)
def test_logits_on_several_ranks_equal_transformers(example: Example, tensor: int, pipeline: int) -> None:
    prompt, continuation = example.texts[1]
    token_ids = [*prompt, *continuation]
    found = logits_on_ranks(example.folder, tensor, pipeline, token_ids, 7)
    torch.testing.assert_close(found, example.logits(token_ids), rtol=0, atol=1e-4)


@given(data=st.data(), name=st.sampled_from(WINDOWED))
@few(40)
def test_tree_below_a_context_longer_than_the_window_equals_every_root_path_run_alone(
    examples: Examples, data: st.DataObject, name: str
) -> None:
    example = examples.of(name)
    decoder = load(example.folder, torch.float64).decoder
    contexts = [example.texts[0][1], example.texts[1][1][: data.draw(st.integers(1, TEXT_TOKENS))]]
    forest = [data.draw(trees(decoder.spec.vocab_size)) for _ in contexts]
    for context, tree, logits_NV in zip(contexts, forest, forest_logits(decoder, contexts, forest), strict=True):
        for node in range(len(tree)):
            alone = logits_of(decoder, [*context, *tree.path_tokens(node)])[-1]
            torch.testing.assert_close(logits_NV[node], alone, rtol=0, atol=1e-10)


@pytest.mark.parametrize("example", [*WINDOWED, "opt-350m"], indirect=True)
def test_draft_that_is_its_target_is_accepted_fully(example: Example) -> None:
    """Its trees grow level by level over several passes, whose masks have to agree with the target's one pass."""
    serving = Serving((2, 1, 1, 1), max_new_tokens=TEXT_TOKENS)
    served = serve(example.target, example.target, [prompt for prompt, _ in example.texts], serving)
    assert {count for steps in served.accepted_per_step for count in steps[1:-1]} == {4}


@pytest.mark.parametrize("example", WINDOWED, indirect=True)
def test_a_token_outside_all_windows_changes_nothing(example: Example) -> None:
    """Each layer lets a token look one window further back; full layers let it look everywhere."""
    spec = example.target.decoder.spec
    token_ids = (example.texts[1][0] + example.texts[1][1])[:48]
    reach = spec.num_layers * (spec.window - 1)
    others = [3 if token != 3 else 4 for token in token_ids[:-reach]]
    others[-1:] = token_ids[-reach - 1 : -reach]  # the last position that is still seen
    same = logits_of(example.target.decoder, [*others, *token_ids[-reach:]])[-1]
    plain = logits_of(example.target.decoder, token_ids)[-1]
    is_windowed_throughout = len(spec.windowed_layers) == spec.num_layers
    assert torch.equal(same, plain) == is_windowed_throughout
    others[-1] = 3 if others[-1] != 3 else 4
    assert not torch.equal(logits_of(example.target.decoder, [*others, *token_ids[-reach:]])[-1], plain)


def test_sequences_that_fit_the_window_are_computed_without_a_second_mask(examples: Examples) -> None:
    decoder = examples.of("mistral, window").target.decoder
    runner = ModelRunner(decoder, 1, WINDOW + 1)
    region, _ = prefill(runner, [5] * (WINDOW - 1))
    for num_keys in (WINDOW, WINDOW + 1):
        rows = [chain_row(runner, region, [7], 1)]
        batch = pack_rows(rows, runner.allocator, Stripes(1, WINDOW + 1), torch.float32, torch.device("cpu"))
        assert batch.num_keys == num_keys
        assert batch.bias_BNK is None
        assert (in_window(batch, WINDOW, torch.float32) is batch) == (num_keys == WINDOW)
        runner.result(runner.submit(rows))
        runner.commit([(region, [0])])


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16], ids=str)
def test_token_after_token_beyond_the_window_equals_the_prompt_at_once(examples: Examples, dtype: torch.dtype) -> None:
    """A single token is given no mask by the runner: the window's is made in the dtype that is computed in."""
    example = examples.of("mistral, window")
    decoder, token_ids = load(example.folder, dtype).decoder, example.texts[1][0]
    assert len(token_ids) > 2 * WINDOW
    found, expected = logits_in_chunks(decoder, token_ids, 1), logits_of(decoder, token_ids)
    assert found.dtype is dtype
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-10 if dtype is torch.float64 else 0.3)


@pytest.mark.parametrize("example", ["mistral, window", "llama 3", "llama, own head size"], indirect=True)
def test_inflation_preserves_the_function_of_windows_scalings_and_head_sizes(example: Example) -> None:
    ref = ModelRef(path=example.folder, inflation=Inflation(width_factor=4, num_layers=3))
    larger = load_model(ref, torch.float32, torch.device("cpu"), ParallelMesh())
    token_ids = example.texts[1][0]
    torch.testing.assert_close(logits_of(larger.decoder, token_ids), example.logits(token_ids), rtol=0, atol=1e-4)


@pytest.mark.parametrize(
    ("example", "told"),
    [
        ("qwen2", "biases"),
        ("llama, mlp biases", "biases"),
        ("opt, projected", "projected token tables"),
        ("opt, norms after the sums", "norms after the sums, a missing final norm"),
        ("opt, no final norm", "a missing final norm"),
        ("opt, no biases", "missing biases"),
    ],
    indirect=["example"],
)
def test_inflation_refuses_variants_it_would_change(example: Example, told: str) -> None:
    ref = ModelRef(path=example.folder, inflation=Inflation(width_factor=4))
    with pytest.raises(ConfigError, match=f"would change.*received: {told}; allowed"):
        load_model(ref, torch.float32, torch.device("cpu"), ParallelMesh())


def test_opt_files_that_hold_the_inner_model_are_read(examples: Examples, tmp_path: Path) -> None:
    """As facebook/opt-350m and others are published: names without ``model.``."""
    example = examples.of("opt-350m")
    tensors = {name.removeprefix("model."): t for name, t in load_file(example.folder / "model.safetensors").items()}
    for name in ("config.json", "tokenizer.json"):
        (tmp_path / name).write_bytes((example.folder / name).read_bytes())
    save_file(tensors, tmp_path / "model.safetensors")
    token_ids = example.texts[1][0]
    assert torch.equal(logits_of(load(tmp_path).decoder, token_ids), logits_of(example.target.decoder, token_ids))
