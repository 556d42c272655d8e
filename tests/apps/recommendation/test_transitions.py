"""Transition counts against counting by hand; the teacher in closed form against the dense one."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from apps.recommendation.transitions import Teacher, count_transitions

SEQUENCES = st.lists(st.lists(st.integers(1, 9), max_size=12), min_size=1, max_size=8)


def dense(sequences: list[list[int]], items: int, span: int) -> np.ndarray:
    counts = np.zeros((items, items))
    for row in sequences:
        for i in range(len(row)):
            for j in range(i + 1, min(len(row), i + span + 1)):
                counts[row[i] - 1, row[j] - 1] += 1
    return counts


@given(sequences=SEQUENCES, span=st.integers(1, 3))
def test_counts_are_those_of_counting(sequences: list[list[int]], span: int) -> None:
    rows = [np.array(row, np.int64) for row in sequences]
    found, wanted = count_transitions(rows, 9, span), dense(sequences, 9, span)
    of, to = np.meshgrid(np.arange(1, 10), np.arange(1, 10), indexing="ij")
    assert np.array_equal(found.counts(of.ravel(), to.ravel()).reshape(9, 9), wanted)
    for item in range(1, 10):
        to, count = found.row(item)
        assert np.array_equal(wanted[item - 1, to - 1], count)
        assert count.sum() == wanted[item - 1].sum()


@settings(max_examples=40)
@given(sequences=SEQUENCES, tau=st.sampled_from([0.05, 0.1, 0.5, 1.0]), seed=st.integers(0, 99))
def test_the_closed_form_equals_the_dense_teacher(sequences: list[list[int]], tau: float, seed: int) -> None:
    """Value and gradients: cross-entropy of the teacher with the student, rows that have no transition among them."""
    generator = torch.Generator().manual_seed(seed)
    embedding = torch.randn(9, 4, generator=generator, dtype=torch.float64, requires_grad=True)
    queries = torch.randn(14, 4, generator=generator, dtype=torch.float64, requires_grad=True)
    rows = torch.randint(1, 10, (14,), generator=generator)
    teacher = Teacher(count_transitions([np.array(row, np.int64) for row in sequences], 9), tau)
    got = teacher(rows, embedding, queries)
    counts = torch.from_numpy(dense(sequences, 9, 1))
    highest = counts.max(1, keepdim=True).values.clamp(min=1)
    target = (counts / highest / tau).softmax(1)[rows - 1]
    wanted = -(target * (queries @ embedding.T).log_softmax(1)).sum(1).mean()
    # The teacher's weights are kept in float32.
    torch.testing.assert_close(got, wanted, atol=1e-5, rtol=1e-5)
    pairs = zip(
        torch.autograd.grad(got, [embedding, queries]), torch.autograd.grad(wanted, [embedding, queries]), strict=True
    )
    for a, b in pairs:
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-5)


def test_the_teacher_is_sparse_and_no_part_of_a_model() -> None:
    rng = np.random.default_rng(0)
    teacher = Teacher(count_transitions([rng.integers(1, 50_001, 20) for _ in range(100)], 50_000), 0.1)
    assert sum(buffer.numel() for buffer in teacher.buffers()) < 3 * 50_000 + 2 * 1900
    assert not teacher.state_dict()


def test_a_transition_that_is_always_taken_gets_the_mass() -> None:
    teacher = Teacher(count_transitions([np.array([1, 2])] * 5, 3), 0.1)
    mass = 3 + math.expm1(10)
    assert float(teacher.mass[0]) == pytest.approx(mass, rel=1e-6)
    assert float(teacher.weight[0]) == pytest.approx(math.expm1(10) / mass, rel=1e-6)
