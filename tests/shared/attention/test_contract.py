"""The contract that every registered attention mechanism keeps. Registering one gives it all of these tests."""

import inspect
from itertools import pairwise

import pytest
import safetensors.torch
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import shared.attention
from shared.attention.record import record_attention
from shared.attention.registry import MECHANISMS, Mechanism

shared.attention.import_all()
ALL = [pytest.param(mechanism, id=name.replace(" ", "-")) for name, mechanism in MECHANISMS.items()]
CAUSAL = [param for param in ALL if param.values[0].causal]
CACHED = [param for param in ALL if param.values[0].cached]
MASKED = [param for param in ALL if param.values[0].mask]


def make(mechanism: Mechanism, dim: int = 12, heads: int = 2, seed: int = 0) -> torch.nn.Module:
    torch.manual_seed(seed)
    return mechanism.build(dim, heads).double()


def arguments(mechanism: Mechanism, batch: int, length: int, dim: int = 12, seed: int = 1) -> dict:
    inputs = mechanism.inputs(batch, length, dim, torch.Generator().manual_seed(seed))
    return {
        name: value
        for name, value in inputs.items()
        if name in inspect.signature(mechanism.build(dim, 1).forward).parameters
    }


def tree(function, value):
    """`function` on every tensor of a nested dictionary."""
    return {name: tree(function, v) for name, v in value.items()} if isinstance(value, dict) else function(value)


def cast(inputs: dict, dtype: torch.dtype) -> dict:
    return tree(lambda t: t.to(dtype) if t.is_floating_point() else t, inputs)


def reference(mechanism: Mechanism, module: torch.nn.Module, inputs: dict) -> torch.Tensor:
    allowed = inspect.signature(mechanism.reference).parameters
    return mechanism.reference(module, **{name: value for name, value in inputs.items() if name in allowed})


@pytest.mark.parametrize("mechanism", ALL)
@pytest.mark.parametrize(("dim", "heads"), [(12, 2), (15, 3), (7, 1)])
@pytest.mark.parametrize("batch", [1, 3])
def test_equals_its_plain_reference(mechanism: Mechanism, dim: int, heads: int, batch: int) -> None:
    for length in mechanism.lengths:
        module = make(mechanism, dim, heads)
        inputs = arguments(mechanism, batch, length, dim)
        expected = reference(mechanism, module, inputs)
        torch.testing.assert_close(module(**inputs), expected, atol=1e-10, rtol=1e-10)  # the path that has a gradient
        with torch.no_grad():
            torch.testing.assert_close(module.eval()(**inputs), expected, atol=1e-10, rtol=1e-10)
            single = module.float()(**cast(inputs, torch.float32))
        torch.testing.assert_close(single.double(), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("mechanism", ALL)
def test_gradient(mechanism: Mechanism) -> None:
    module = make(mechanism, 6, 2)
    inputs = arguments(mechanism, 2, 7, 6)
    names, values = zip(*module.named_parameters(), strict=True)

    def loss(x: torch.Tensor, *parameters: torch.Tensor) -> torch.Tensor:
        replaced = dict(zip(names, parameters, strict=True))
        return torch.func.functional_call(module, replaced, kwargs={**inputs, "x": x})

    free = [value.detach().clone().requires_grad_() for value in values]
    assert torch.autograd.gradcheck(loss, (inputs["x"].requires_grad_(), *free), fast_mode=True)


@pytest.mark.parametrize("mechanism", ALL)
def test_gradient_equals_that_of_the_reference(mechanism: Mechanism) -> None:
    for length in (1, 5, 13):
        module = make(mechanism)
        inputs = arguments(mechanism, 2, length)
        torch.manual_seed(2)
        upstream = torch.randn_like(reference(mechanism, module, inputs))
        wanted = torch.autograd.grad(
            (reference(mechanism, module, inputs) * upstream).sum(), list(module.parameters()), allow_unused=True
        )
        got = torch.autograd.grad((module(**inputs) * upstream).sum(), list(module.parameters()), allow_unused=True)
        for a, b in zip(got, wanted, strict=True):
            assert (a is None) == (b is None) or (a if a is not None else b).abs().max() == 0
            if a is not None and b is not None:
                torch.testing.assert_close(a, b, atol=1e-9, rtol=1e-9)


@pytest.mark.parametrize("mechanism", CAUSAL)
@pytest.mark.parametrize("grad", [False, True])
def test_the_future_changes_nothing(mechanism: Mechanism, grad: bool) -> None:
    module = make(mechanism)
    inputs = arguments(mechanism, 2, 19)
    for at in (0, 4, 11, 18):
        changed = tree(torch.clone, inputs)
        changed["x"][:, at:] += 1
        with torch.set_grad_enabled(grad):
            before, after = module(**inputs), module(**changed)
        assert torch.equal(before[:, :at], after[:, :at])
        assert not torch.allclose(before[:, at:], after[:, at:])


@pytest.mark.parametrize("mechanism", ALL)
def test_a_sample_does_not_depend_on_the_others(mechanism: Mechanism) -> None:
    module = make(mechanism).eval()
    inputs = arguments(mechanism, 4, 11)
    for grad in (False, True):
        with torch.set_grad_enabled(grad):
            together = module(**inputs)
            for i in range(4):
                alone = module(**tree(lambda t, i=i: t[i : i + 1], inputs))
                torch.testing.assert_close(alone, together[i : i + 1], atol=1e-12, rtol=1e-12)


@pytest.mark.parametrize("mechanism", ALL)
def test_recorded_weights_sum_to_one_and_change_nothing(mechanism: Mechanism) -> None:
    module = make(mechanism).eval()
    inputs = arguments(mechanism, 2, 9)
    with torch.no_grad():
        plain = module(**inputs)
        with record_attention(module) as maps:
            recorded = module(**inputs)
    torch.testing.assert_close(plain, recorded, atol=1e-12, rtol=1e-12)
    assert maps
    for weights in (w for captured in maps.values() for w in captured):
        assert weights.min() >= 0
        if mechanism.normalised:
            sums = weights.sum(-1)
            torch.testing.assert_close(sums, torch.ones_like(sums), atol=1e-12, rtol=0)
        else:
            assert weights.max() <= 1


@pytest.mark.parametrize("mechanism", MASKED)
@pytest.mark.parametrize("grad", [False, True])
def test_closed_keys_count_for_nothing_and_a_closed_row_gives_zero(mechanism: Mechanism, grad: bool) -> None:
    module = make(mechanism)
    inputs = arguments(mechanism, 3, 10)
    keep = torch.ones(3, 10, dtype=torch.bool)
    keep[1, 3:6] = False
    keep[2] = False
    changed = tree(torch.clone, inputs)
    changed["x"][1, 3:6] += 5
    with torch.set_grad_enabled(grad):
        out = module(**inputs, **{mechanism.mask: keep})
        other = module(**changed, **{mechanism.mask: keep})
    expected = reference(mechanism, module, {**inputs, mechanism.mask: keep})
    torch.testing.assert_close(out, expected, atol=1e-10, rtol=1e-10)
    open_queries = [i for i in range(out.shape[1]) if mechanism.pooled or not 3 <= i < 6]
    torch.testing.assert_close(out[1, open_queries], other[1, open_queries], atol=1e-12, rtol=1e-12)
    assert torch.equal(out[2], torch.zeros_like(out[2]))
    if grad:
        gradients = torch.autograd.grad(out.sum(), list(module.parameters()), allow_unused=True)
        assert all(g is None or g.isfinite().all() for g in gradients)


@settings(max_examples=15, deadline=None)
@pytest.mark.parametrize("mechanism", CACHED)
@given(cuts=st.lists(st.integers(1, 36), max_size=6), seed=st.integers(0, 99))
def test_cache_equals_no_cache_however_the_sequence_is_cut(mechanism: Mechanism, cuts: list[int], seed: int) -> None:
    module = make(mechanism, seed=seed).eval()
    inputs = arguments(mechanism, 2, 37, seed=seed)
    bounds = sorted({0, 37, *cuts})
    with torch.no_grad():
        cache = module.new_cache(64)
        parts = [module(**tree(lambda t, a=a, b=b: t[:, a:b], inputs), cache=cache) for a, b in pairwise(bounds)]
        torch.testing.assert_close(torch.cat(parts, 1), module(**inputs), atol=1e-10, rtol=1e-10)


@pytest.mark.parametrize("mechanism", CACHED)
def test_step_by_step_equals_all_at_once(mechanism: Mechanism) -> None:
    module = make(mechanism).eval()
    inputs = arguments(mechanism, 2, 37)
    with torch.no_grad():
        cache = module.new_cache(64)
        steps = [module(**tree(lambda t, i=i: t[:, i : i + 1], inputs), cache=cache) for i in range(37)]
        torch.testing.assert_close(torch.cat(steps, 1), module(**inputs), atol=1e-10, rtol=1e-10)


@pytest.mark.parametrize("mechanism", CACHED)
def test_one_prefill_serves_many_continuations(mechanism: Mechanism) -> None:
    module = make(mechanism).eval()
    one, three = arguments(mechanism, 1, 9), arguments(mechanism, 3, 4, seed=7)
    with torch.no_grad():
        cache = module.new_cache(64)
        module(**one, cache=cache)
        shared_cache = cache.expand(3)
        got = module(**three, cache=shared_cache)
        for i in range(3):
            alone = module.new_cache(64)
            module(**one, cache=alone)
            mine = module(**tree(lambda t, i=i: t[i : i + 1], three), cache=alone)
            torch.testing.assert_close(got[i : i + 1], mine, atol=1e-12, rtol=1e-12)


@pytest.mark.parametrize("mechanism", ALL)
def test_two_evaluations_are_identical(mechanism: Mechanism) -> None:
    module = make(mechanism).eval()
    inputs = arguments(mechanism, 2, 13)
    with torch.no_grad():
        assert torch.equal(module(**inputs), module(**inputs))


@pytest.mark.parametrize("mechanism", ALL)
def test_every_parameter_gets_a_gradient(mechanism: Mechanism) -> None:
    module = make(mechanism)
    out = module(**arguments(mechanism, 2, 16))
    torch.manual_seed(3)
    (out * torch.randn_like(out)).sum().backward()
    for name, parameter in module.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name


@pytest.mark.parametrize("mechanism", ALL)
@pytest.mark.parametrize(("dtype", "scale"), [(torch.bfloat16, 30), (torch.float16, 3)])
def test_halves_give_no_nan_also_where_all_is_closed(mechanism: Mechanism, dtype: torch.dtype, scale: float) -> None:
    module = make(mechanism).to(dtype)
    inputs = cast(arguments(mechanism, 2, 13), dtype)
    inputs["x"] *= scale
    if mechanism.mask:
        inputs[mechanism.mask] = torch.tensor([True, False])[:, None].expand(2, 13)
    out = module(**inputs)
    out.sum().backward()
    assert out.isfinite().all()
    assert all(p.grad.isfinite().all() for p in module.parameters() if p.grad is not None)
    with torch.no_grad():
        assert module.eval()(**inputs).isfinite().all()


@pytest.mark.parametrize("mechanism", ALL)
def test_round_trip_through_safetensors(mechanism: Mechanism, tmp_path) -> None:
    module, other = make(mechanism).eval(), make(mechanism, seed=5).eval()
    inputs = arguments(mechanism, 2, 13)
    safetensors.torch.save_file(module.state_dict(), tmp_path / "weights.safetensors")
    other.load_state_dict(safetensors.torch.load_file(tmp_path / "weights.safetensors"))
    with torch.no_grad():
        assert torch.equal(module(**inputs), other(**inputs))


def test_a_recording_keeps_the_maps_of_its_own_model_alone() -> None:
    mechanism = MECHANISMS["slot"]
    mine, other = make(mechanism), make(mechanism)
    inputs = arguments(mechanism, 1, 5)
    with torch.no_grad(), record_attention(mine) as maps:
        other(**inputs)
        mine(**inputs)
    assert {name: len(captured) for name, captured in maps.items()} == {"": 1}
