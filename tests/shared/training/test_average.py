import pytest
import torch

from shared.training.average import WeightAverage, model_of, shipped_weights


def steps(model: torch.nn.Module, average: WeightAverage, count: int) -> list[list[torch.Tensor]]:
    average.attach(model)
    generator = torch.Generator().manual_seed(0)
    seen = [[p.detach().clone() for p in model.parameters()]]
    for _ in range(count):
        with torch.no_grad():
            for p in model.parameters():
                p.add_(torch.randn(p.shape, generator=generator).to(p.dtype))
        average.update()
        seen.append([p.detach().clone() for p in model.parameters()])
    return seen


@pytest.mark.parametrize("decay", [0.0, 0.5, 0.999])
def test_it_is_the_average_of_the_equation(decay: float) -> None:
    model = torch.nn.Linear(3, 2).double()
    average = WeightAverage(decay)
    seen = steps(model, average, 30)
    expected = seen[0]
    for n, weights in enumerate(seen[1:], 1):
        d = min(decay, (1 + n) / (10 + n))
        expected = [d * e + (1 - d) * w for e, w in zip(expected, weights, strict=True)]
    for value, wanted in zip(shipped_weights(model, average).values(), expected, strict=True):
        torch.testing.assert_close(value, wanted, rtol=1e-12, atol=1e-12)


def test_the_weights_come_back_and_the_parameters_stay_the_same_objects() -> None:
    model = torch.nn.Linear(3, 2)
    average = WeightAverage(0.9)
    last = steps(model, average, 3)[-1]
    pointers = [p.data_ptr() for p in model.parameters()]
    with average.in_place():
        assert not torch.equal(model.weight, last[0])
    assert torch.equal(model.weight, last[0])
    with pytest.raises(RuntimeError, match="stop"), average.in_place():
        raise RuntimeError("stop")
    assert torch.equal(model.weight, last[0])
    assert pointers == [p.data_ptr() for p in model.parameters()]


def test_state_goes_on_where_it_was() -> None:
    model = torch.nn.Linear(3, 2)
    average = WeightAverage(0.9)
    steps(model, average, 3)
    other = WeightAverage(0.9)
    other.load_state_dict(average.state_dict())
    other.attach(model)
    average.update()
    other.update()
    for a, b in zip(shipped_weights(model, average).values(), shipped_weights(model, other).values(), strict=True):
        assert torch.equal(a, b)
    with pytest.raises(ValueError, match="other parameters"):
        other.attach(torch.nn.Embedding(2, 2))


def test_half_precision_is_averaged_in_single() -> None:
    model = torch.nn.Linear(64, 64, bias=False).to(torch.bfloat16)
    average = WeightAverage(0.999)
    average.updates = 100_000  # the full decay
    average.attach(model)
    before = model.weight.detach().float().clone()
    with torch.no_grad():
        model.weight.mul_(1.5)
    for _ in range(100):
        average.update()
    moved = (average.state_dict()["averages"]["weight"] / before).mean()
    assert moved.item() == pytest.approx(1 + 0.5 * (1 - 0.999**100), rel=1e-2)
    assert shipped_weights(model, average)["weight"].dtype == torch.bfloat16


def test_buffers_and_tied_weights_are_shipped() -> None:
    class Tied(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a = torch.nn.Linear(2, 2, bias=False)
            self.b = torch.nn.Linear(2, 2, bias=False)
            self.b.weight = self.a.weight
            self.norm = torch.nn.BatchNorm1d(2)

    model = Tied()
    average = WeightAverage(0.5)
    steps(model, average, 2)
    weights = shipped_weights(model, average)
    assert weights.keys() == model.state_dict().keys()
    assert torch.equal(weights["a.weight"], weights["b.weight"])
    assert weights["a.weight"].data_ptr() != weights["b.weight"].data_ptr()


def test_misuse() -> None:
    with pytest.raises(ValueError, match="decay"):
        WeightAverage(1.0)
    with pytest.raises(TypeError, match="called model"):
        model_of(object())  # pyright: ignore
