"""Weights in 8 and 4 bits: how far they are off, how they are laid out, cut and multiplied."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from engine.tests.conftest import ROOT
from engine.tests.quantised import INT4, INT8, Counted, load_quantised, stored_weights
from treespec.config import Quantisation
from treespec.errors import CheckpointError, ConfigError
from treespec.model.quantised import (
    QuantisedWeight,
    quantisation_config,
    quantisation_of,
    quantised_at_load,
    quantised_names,
)
from treespec.ops import int4_kernels, quantised
from treespec.ops.int4_kernels import Int4Storage, int4_storage
from treespec.ops.quantised import PART_NAMES, expand, multiply, part_shapes, quantise, unpacked_codes
from treespec.ops.quantised_storage import QuantisedFormat, QuantisedStorage
from treespec.parallel.mesh import ParallelMesh
from treespec.tuning.perplexity import perplexity

HALF_ULP = 2.0**-11  # of float16, relative
TINIEST = 2.0**-24  # float16's smallest step
ALL_SETTINGS = [Quantisation(bits=bits, group_size=size) for bits in (8, 4) for size in (2, 6, 32, 64, 192)]


def weight_of(rows: int, columns: int, seed: int = 0) -> Tensor:
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed))


def groups_of(weight: Tensor, quantisation: Quantisation) -> Tensor:
    return weight.unflatten(1, (-1, quantisation.group_size))


def at_load(weight: Tensor, quantisation: Quantisation, name: str = "model.layers.0.up.weight") -> QuantisedWeight:
    taken = quantised_at_load({name: weight}, quantisation)[name]
    assert isinstance(taken, QuantisedWeight)
    return taken


@pytest.mark.parametrize("quantisation", ALL_SETTINGS, ids=str)
@pytest.mark.parametrize(("rows", "scale", "shift"), [(1, 1.0, 0.0), (7, 1e-3, 0.0), (33, 30.0, 100.0), (5, 1e-6, 0.0)])
def test_a_weight_is_off_by_half_a_step_and_rounding(
    quantisation: Quantisation, rows: int, scale: float, shift: float
) -> None:
    weight = weight_of(rows, 384) * scale + shift
    groups = groups_of(weight, quantisation)
    low, high = groups.amin(-1, keepdim=True), groups.amax(-1, keepdim=True)
    levels = 2**quantisation.bits - 1
    found = groups_of(expand(quantise(weight, quantisation), quantisation, torch.float32), quantisation)
    half_a_step = (high - low) / levels / 2
    rounding = HALF_ULP * (low.abs() + (high - low)) + (levels + 1) * TINIEST
    assert bool(((found - groups).abs() <= 1.001 * half_a_step + 1.001 * rounding).all())


def test_the_formula_is_flexgens() -> None:
    """On a group whose minimum and scale float16 holds: round((x - min) * (2^b - 1) / (max - min))."""
    group = torch.tensor([[-8.0, 7.0, -7.6, -7.4, 0.1, 0.9, 3.49, 3.51]])
    parts = quantise(group, Quantisation(bits=4, group_size=8))
    assert unpacked_codes(parts, Quantisation(bits=4, group_size=8)).tolist() == [[0, 15, 0, 1, 8, 9, 11, 12]]
    assert (parts.minima.item(), parts.scales.item()) == (-8.0, 1.0)


def test_two_codes_of_a_group_share_a_byte() -> None:
    """Input k of a group in the low half, input k + g/2 in the high one."""
    codes = torch.tensor([[0, 15, 1, 2, 9, 3, 15, 0], [15, 0, 4, 5, 6, 7, 0, 15]])
    quantisation = Quantisation(bits=4, group_size=4)
    parts = quantise(codes.float(), quantisation)
    scales, minima = parts.scales.tolist(), parts.minima.tolist()
    assert scales[0][0] == scales[1][0] == 1.0 and minima[0][0] == 0.0
    assert parts.codes[:, :2].tolist() == [[0 | 1 << 4, 15 | 2 << 4], [15 | 4 << 4, 0 | 5 << 4]]
    assert torch.equal(expand(parts, quantisation, torch.float32), codes.float())


@pytest.mark.parametrize("quantisation", [INT8, INT4], ids=str)
@pytest.mark.parametrize("value", [0.0, 1.0, -0.375, 0.1, 1e-9, -1e-9])
def test_constant_groups_divide_by_nothing(quantisation: Quantisation, value: float) -> None:
    weight = weight_of(3, 128)
    weight[1] = value
    found = expand(quantise(weight, quantisation), quantisation, torch.float32)
    assert bool(found.isfinite().all())
    torch.testing.assert_close(found[1], weight[1], rtol=HALF_ULP, atol=TINIEST)
    if value in (0.0, 1.0, -0.375):
        assert torch.equal(found[1], weight[1])  # what inflation fills with zeros stays silent


@pytest.mark.parametrize("quantisation", ALL_SETTINGS, ids=str)
def test_parts_have_the_promised_types_and_shapes(quantisation: Quantisation) -> None:
    parts = quantise(weight_of(7, 384), quantisation)
    found = {name: (part.dtype, tuple(part.shape)) for name, part in zip(PART_NAMES, parts, strict=True)}
    assert found == part_shapes((7, 384), quantisation)
    num_bytes = sum(part.numel() * part.element_size() for part in parts)
    assert num_bytes == 7 * 384 * quantisation.bits // 8 + 2 * 2 * 7 * 384 // quantisation.group_size


def test_weights_beyond_float16_are_refused() -> None:
    weight = weight_of(2, 64)
    weight[1, 3] = -7e4
    with pytest.raises(ConfigError, match=r"tensor 'fc1'; received: largest magnitude 70000"):
        quantise(weight, INT8, "fc1")


@pytest.mark.parametrize("quantisation", [INT8, INT4], ids=str)
@pytest.mark.parametrize("rows_at_once", [1, 3, 7, 100])
def test_products_are_those_of_the_expanded_weight(
    quantisation: Quantisation, rows_at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    weight, bias = weight_of(7, 128), weight_of(1, 7)[0]
    parts = quantise(weight, quantisation)
    dense = expand(parts, quantisation, torch.float32)
    monkeypatch.setitem(quantised.SCRATCH_ELEMENTS, "cpu", rows_at_once * 128)
    assert torch.equal(expand(parts, quantisation, torch.float32), dense)
    for shape in ((128,), (1, 128), (2, 3, 128)):
        x = torch.randn(shape, generator=torch.Generator().manual_seed(1))
        for added in (None, bias):
            torch.testing.assert_close(multiply(parts, quantisation, x, added), F.linear(x, dense, added))
    x = weight_of(4, 128, seed=2)
    streamed = QuantisedFormat(quantisation).multiply(list(parts), x, bias)
    resident = QuantisedFormat(quantisation).storage(list(parts), torch.float32).multiply(x, bias)
    assert torch.equal(streamed, resident)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_other_dtypes_round_the_weight_once(dtype: torch.dtype) -> None:
    parts = quantise(weight_of(5, 128), INT8)
    assert torch.equal(expand(parts, INT8, dtype), expand(parts, INT8, torch.float32).to(dtype))
    x = weight_of(3, 128).to(dtype)
    assert multiply(parts, INT8, x, None).dtype is dtype


@pytest.mark.parametrize("quantisation", [INT8, INT4, Quantisation(bits=4, group_size=32)], ids=str)
@pytest.mark.parametrize("num_ranks", [1, 2, 4])
def test_ranks_hold_slices_of_the_whole(quantisation: Quantisation, num_ranks: int) -> None:
    weight = weight_of(20, 512)
    whole = at_load(weight, quantisation)
    for rank in range(num_ranks):
        mesh = ParallelMesh(num_ranks, 1, rank)
        rows = slice(mesh.share(20).start, mesh.share(20).stop)
        columns = slice(mesh.share(512).start, mesh.share(512).stop)
        for cut in ((rows, slice(None)), (slice(None), columns), (rows, columns)):
            assert torch.equal(whole[cut], whole[:][cut])
            for found, alone in zip(whole.parts(*cut), quantise(weight[cut], quantisation), strict=True):
                assert torch.equal(found, alone)
        assert torch.equal(whole[rows], whole[:][rows])


def test_columns_that_cut_a_group_are_refused() -> None:
    whole = at_load(weight_of(4, 192), INT8, "model.layers.0.down.weight")
    with pytest.raises(ConfigError, match=r"model\.layers\.0\.down.*inputs 0 to 96, group_size 64.*tensor_parallel"):
        whole.parts(slice(None), slice(0, 96))


@pytest.mark.parametrize(
    ("bits", "size", "allowed"), [(8, 64, "2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 96"), (4, 3, "2, 4, 6, 8, 12, 16")]
)
def test_group_sizes_that_do_not_divide_are_refused_before_anything_is_read(bits: Any, size: int, allowed: str) -> None:
    name, dense = "model.layers.0.up.weight", Counted(weight_of(2, 96))
    with pytest.raises(ConfigError, match=rf"{name}.*96 inputs, group_size {size}; allowed: group_size {allowed}"):
        quantised_at_load({name: dense}, Quantisation(bits=bits, group_size=size))
    assert dense.reads == []


def test_at_load_a_weight_is_read_once_when_its_parts_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("treespec.model.quantised.ELEMENTS_AT_ONCE", 3 * 128)
    name, dense, norm = "model.layers.0.up.weight", Counted(weight_of(7, 128)), Counted(weight_of(1, 128)[0])
    weights = quantised_at_load({name: dense, "model.layers.0.norm.weight": norm}, INT4)
    assert sum(weight.numel() for weight in weights.values()) == 8 * 128
    taken = weights[name]
    assert isinstance(taken, QuantisedWeight)
    assert dense.reads == []
    parts = taken.parts(slice(1, 3))
    assert dense.reads == [3 * 128, 3 * 128, 128]  # block by block, so that the whole is never there in floats
    assert torch.equal(parts.codes, quantise(dense.tensor, INT4).codes[1:3])
    assert weights["model.layers.0.norm.weight"] is norm
    taken = weights[name]  # nothing was kept of the first one
    assert isinstance(taken, QuantisedWeight)
    taken.parts()
    assert len(dense.reads) == 6


@pytest.mark.parametrize(("family", "per_layer"), [("llama", 7), ("opt", 6)])
def test_linear_maps_of_the_layers_are_quantised_and_nothing_else(family: str, per_layer: int) -> None:
    names = quantised_names(stored_weights(ROOT / "models" / "embedded" / family / "target"))
    assert len(names) == 4 * per_layer
    assert not [name for name in names if "norm" in name or "embed" in name or "head" in name or "bias" in name]


@pytest.mark.parametrize("family", ["llama", "opt"])
def test_perplexity_on_held_out_text_stays_within_bounds(family: str) -> None:
    """1 % with 8 bits, 5 % with 4, at the default group size."""
    folder = ROOT / "models" / "embedded" / family / "target"
    unrounded = load_quantised(folder, None)
    names = ("code", "comments", "docstrings", "mixed", "tests")
    texts = [
        unrounded.tokenizer.encode(text)
        for name in names
        for text in json.loads((ROOT / f"prompts/{name}.json").read_text())
    ]
    plain = perplexity(unrounded.decoder, texts)
    assert perplexity(load_quantised(folder, INT8).decoder, texts) == pytest.approx(plain, rel=0.01)
    in_4_bits = perplexity(load_quantised(folder, INT4).decoder, texts)
    assert plain < in_4_bits <= 1.05 * plain


@pytest.mark.parametrize(("family", "num_ranks"), [("llama", 1), ("opt", 2), ("opt", 4)])
def test_shares_of_the_embedded_targets_are_made_of_groups(family: str, num_ranks: int) -> None:
    """So that they can be quantised at the default group size; LLaMA's 704 FFN units only on one rank."""
    weights = quantised_at_load(stored_weights(ROOT / "models" / "embedded" / family / "target"), INT4)
    taken = weights["model.layers.0.mlp.down_proj.weight" if family == "llama" else "model.decoder.layers.0.fc2.weight"]
    assert isinstance(taken, QuantisedWeight)
    for rank in range(num_ranks):
        units = ParallelMesh(num_ranks, 1, rank).share(taken.shape[1])
        taken.parts(slice(None), slice(units.start, units.stop))


@pytest.mark.parametrize("quantisation", [INT8, INT4, Quantisation(bits=4, group_size=128)], ids=str)
def test_config_json_says_how_a_model_is_quantised(quantisation: Quantisation, tmp_path: Path) -> None:
    said = json.loads(json.dumps({"quantization_config": quantisation_config(quantisation)}))
    assert said["quantization_config"]["quant_method"] == "treespec"
    assert quantisation_of(said, tmp_path) == quantisation
    assert quantisation_of({}, tmp_path) is None


@pytest.mark.parametrize("method", ["gptq", "awq", "bitsandbytes", None])
def test_other_ways_of_quantising_are_refused(method: str | None, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=rf"quant_method {method!r}; allowed: 'treespec'"):
        quantisation_of({"quantization_config": {"quant_method": method, "bits": 4, "group_size": 64}}, tmp_path)


@pytest.mark.parametrize("damage", [{"bits": 3}, {"group_size": 0}, {"zeros": True}])
def test_a_damaged_quantization_config_is_told(damage: dict[str, Any], tmp_path: Path) -> None:
    said = {"quant_method": "treespec", "bits": 4, "group_size": 64} | damage
    with pytest.raises(CheckpointError, match=rf"quantization_config is damaged.*config\.json.*{next(iter(damage))}"):
        quantisation_of({"quantization_config": said}, tmp_path)


@pytest.mark.skipif(
    int4_kernels._kernel(torch.device("cpu")) is None, reason="this processor or build has no fast 4-bit kernel"
)
@pytest.mark.parametrize("group_size", [32, 64, 128, 256])
def test_the_kernel_of_torch_is_used_where_it_is_right(group_size: int) -> None:
    quantisation = Quantisation(bits=4, group_size=group_size)
    parts, bias = quantise(weight_of(48, 512), quantisation), weight_of(1, 48)[0].bfloat16()
    storage = QuantisedFormat(quantisation).storage(list(parts), torch.bfloat16)
    assert isinstance(storage, Int4Storage)
    dense = expand(parts, quantisation, torch.float32)
    for shape in ((512,), (1, 512), (2, 9, 512)):
        x = torch.randn(shape, generator=torch.Generator().manual_seed(3)).bfloat16()
        expected = F.linear(x.float(), dense, bias.float())
        torch.testing.assert_close(
            storage.multiply(x, bias).float(), expected, rtol=0, atol=0.01 * float(expected.std()) * 4
        )


def test_a_kernel_that_is_wrong_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    right = int4_kernels._Kernel(
        1,
        2,
        pack=lambda codes: codes,
        multiply=lambda x, codes, size, steps: F.linear(x.float(), _dense(codes, size, steps)).bfloat16(),
    )
    swapped = int4_kernels._Kernel(1, 2, pack=lambda codes: codes.flip(1), multiply=right.multiply)
    parts = quantise(weight_of(6, 128), INT4)
    for kernel, is_used in ((right, True), (swapped, False)):
        monkeypatch.setattr(int4_kernels, "_kernel", lambda device, kernel=kernel: kernel)
        assert (int4_storage(parts, INT4, torch.bfloat16) is not None) is is_used
        storage = QuantisedFormat(INT4).storage(list(parts), torch.bfloat16)
        assert isinstance(storage, Int4Storage if is_used else QuantisedStorage)


def _dense(codes: Tensor, group_size: int, steps_GO2: Tensor) -> Tensor:
    """What the kernels of torch compute with."""
    scales_OG1, zeros_OG1 = steps_GO2.float().transpose(0, 1).unsqueeze(-2).unbind(-1)
    shifted = codes.float().unflatten(1, (-1, group_size)) - 8
    return (shifted * scales_OG1 + zeros_OG1).flatten(1)


@pytest.mark.parametrize(
    ("quantisation", "dtype"),
    [
        (INT8, torch.bfloat16),
        (INT4, torch.float32),
        (INT4, torch.float16),
        (Quantisation(bits=4, group_size=16), torch.bfloat16),
    ],
    ids=str,
)
def test_where_no_kernel_fits_the_weight_is_expanded(quantisation: Quantisation, dtype: torch.dtype) -> None:
    parts = quantise(weight_of(48, 512), quantisation)
    assert isinstance(QuantisedFormat(quantisation).storage(list(parts), dtype), QuantisedStorage)
