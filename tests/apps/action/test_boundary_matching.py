"""The boundary-matching layer: its dense form, the contract of the attention core, and where it samples."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import torch

from apps.action.boundary_matching import (
    BoundaryMatching,
    dense_boundary_matching,
    dense_mask,
    sample_matrix,
    valid_proposals,
)
from shared.attention.registry import Mechanism

FILE = Path(__file__).resolve().parents[2] / "shared" / "attention" / "test_contract.py"
SPEC = importlib.util.spec_from_file_location("contract_of_attention", FILE)
assert SPEC is not None
assert SPEC.loader is not None
contract = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(contract)

LAYER = Mechanism(
    name="boundary matching",
    build=lambda dim, heads: BoundaryMatching(dim, 2 * heads, longest=6, bins=4),
    inputs=lambda batch, length, dim, generator: {
        "x": torch.randn(batch, length, dim, generator=generator, dtype=torch.float64)
    },
    reference=dense_boundary_matching,
    paper="Lin et al. 2019, arXiv 1907.09702, section 3.2",
)


@pytest.mark.parametrize(("dim", "heads"), [(12, 2), (15, 3), (7, 1)])
@pytest.mark.parametrize("batch", [1, 3])
def test_equals_its_dense_form(dim: int, heads: int, batch: int) -> None:
    contract.test_equals_its_plain_reference(LAYER, dim, heads, batch)


@pytest.mark.parametrize(
    "part",
    [
        "test_gradient",
        "test_gradient_equals_that_of_the_reference",
        "test_a_sample_does_not_depend_on_the_others",
        "test_two_evaluations_are_identical",
        "test_every_parameter_gets_a_gradient",
    ],
)
def test_keeps_the_contract_of_the_attention_core(part: str) -> None:
    getattr(contract, part)(LAYER)


@pytest.mark.parametrize(("dtype", "scale"), [(torch.bfloat16, 30), (torch.float16, 3)])
def test_halves_give_no_nan(dtype: torch.dtype, scale: float) -> None:
    contract.test_halves_give_no_nan_also_where_all_is_closed(LAYER, dtype, scale)


def test_round_trip_through_safetensors(tmp_path: Path) -> None:
    contract.test_round_trip_through_safetensors(LAYER, tmp_path)


def test_a_proposal_inside_samples_the_mean_place_of_each_bin() -> None:
    """On the line x_s = s + 0.5, a bin's feature is the mean time of its three points."""
    snippets, longest, bins = 40, 10, 5
    row, column, weight = sample_matrix(snippets, longest, bins)
    matrix = np.zeros((int(valid_proposals(snippets, longest).sum()), bins * snippets))
    matrix[row, column] = weight
    line = np.tile(np.arange(snippets) + 0.5, (bins, 1))
    means = np.einsum("pns,ns->pn", matrix.reshape(-1, bins, snippets), line)
    d, t = np.nonzero(valid_proposals(snippets, longest))
    proposal = int(np.flatnonzero((d == 7) & (t == 15))[0])  # [15, 23), sampled over [11, 27)
    expected = np.linspace(11, 27, 15).reshape(5, 3).mean(1)
    np.testing.assert_allclose(means[proposal], expected)
    np.testing.assert_allclose(matrix.reshape(-1, bins, snippets)[proposal].sum(-1), 1)


def test_what_lies_outside_is_dropped_and_the_last_snippet_can_end_a_proposal() -> None:
    mask = dense_mask(8, 8, 4)
    assert mask[:, 0, 3, 0].sum() < 0.2  # the first quarter of [-2, 6) lies before the recording
    assert valid_proposals(8, 8)[0, 7]
    assert valid_proposals(8, 8)[7, 0]
    assert not valid_proposals(8, 8)[1, 7]
    out = BoundaryMatching(3, 2, longest=8, bins=4)(torch.randn(1, 8, 3))
    assert out[0, 0, 7].abs().sum() > 0
    assert out[0, 1, 7].abs().sum() == 0


def test_any_length_is_served_and_short_ones_have_shorter_proposals() -> None:
    layer = BoundaryMatching(3, 2, longest=10, bins=4)
    for snippets in (1, 2, 9, 10, 11, 50):
        assert layer(torch.randn(2, snippets, 3)).shape == (2, min(10, snippets), snippets, 2)
