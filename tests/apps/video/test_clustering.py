"""Clusters of attention rows: the divergence against its definition, and groups that are known."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from apps.video.clustering import assign_rows, cluster, divergence, mean_shift, merge, plain_divergence


@settings(max_examples=30)
@given(st.integers(1, 9), st.integers(1, 9), st.integers(2, 30), st.integers(0, 99))
def test_divergence_equals_its_definition(n: int, k: int, s: int, seed: int) -> None:
    torch.manual_seed(seed)
    p, q = (3 * torch.randn(n, s).double()).softmax(-1), (3 * torch.randn(k, s).double()).softmax(-1)
    p[0, 0] = 0  # log 0 must not spread
    p[0] /= p[0].sum()
    torch.testing.assert_close(divergence(p, q), plain_divergence(p, q), atol=1e-9, rtol=1e-9)
    assert torch.allclose(divergence(p, p).diagonal(), torch.zeros(n).double(), atol=1e-9)


def groups(count: int, each: int = 20, keys: int = 60, noise: float = 0.3) -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    centres = 3 * torch.randn(count, keys)
    belongs = torch.arange(count).repeat(each)
    return (centres[belongs] + noise * torch.randn(len(belongs), keys)).softmax(-1), belongs


def test_known_groups_are_found_and_tokens_assigned() -> None:
    rows, belongs = groups(5)
    centres, _ = cluster(rows, torch.arange(100) // 34, 0.35)
    assert len(centres) == 5
    found = assign_rows(rows, centres).argmax(1)
    for group in range(5):
        assert len(found[belongs == group].unique()) == 1
    assert len(found.unique()) == 5
    torch.testing.assert_close(assign_rows(rows, centres).sum(1), torch.ones(100))


def test_the_number_of_clusters_is_bounded_on_both_sides() -> None:
    rows, _ = groups(30, each=4)
    centres, tau = cluster(rows, torch.zeros(120, dtype=torch.long), 0.3, most=6)
    assert 2 <= len(centres) <= 6
    assert tau > 0.3
    alike = (0.2 * torch.randn(60, 40)).softmax(-1)
    centres, tau = cluster(alike, torch.zeros(60, dtype=torch.long), 5.0, least=3)
    assert len(centres) >= 3
    assert tau < 5
    same = torch.full((10, 8), 1 / 8)  # nothing to tell apart: one cluster, and an end
    assert len(cluster(same, torch.zeros(10, dtype=torch.long), 0.35, least=3)[0]) == 1


def test_crumbs_grow_into_clusters() -> None:
    """At a tau at which nothing is like anything, all clusters would be too small to count."""
    rows, _ = groups(4, each=60, noise=1.0)
    centres, tau = cluster(rows, torch.zeros(240, dtype=torch.long), 0.001, least=3)
    assert len(centres) >= 3
    assert tau > 0.001


def test_one_row_and_one_frame() -> None:
    centres, _ = cluster(torch.tensor([[0.5, 0.5]]), torch.zeros(1, dtype=torch.long), 0.35)
    torch.testing.assert_close(centres, torch.tensor([[0.5, 0.5]]))


def test_mean_shift_looks_into_its_window_only() -> None:
    rows, _ = groups(1, each=6)
    frames = torch.arange(6)
    moved = mean_shift(rows, frames, 1e9, window=3)
    torch.testing.assert_close(moved[0], rows[:2].mean(0))
    torch.testing.assert_close(moved[3], rows[2:5].mean(0))


def test_merging_keeps_all_weight() -> None:
    rows, _ = groups(4)
    centres, sizes = merge(rows, torch.ones(len(rows)), 1.0)
    assert float(sizes.sum()) == len(rows)
    torch.testing.assert_close((centres * sizes[:, None]).sum(0) / len(rows), rows.mean(0))
