"""Many small trainings as one: the models of all folds are stacked, see the same batches, learn each from its own."""

import copy
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from apps.wsi.bags import Bag, batches, pad, some_instances, standard
from apps.wsi.config import TrainConfig
from apps.wsi.model import bag_loss, build_model

ROWS = 60_000  # instances times models in one step of arithmetic, which bounds its memory


def train_folds(
    architecture: dict[str, Any],
    bags: Sequence[Bag],
    members: np.ndarray,
    config: TrainConfig,
    seed: int,
    tell: Callable[[int], None] = lambda epoch: None,
) -> list[nn.Module]:
    """A model for each row of `members` (F, bags) bool, trained on its bags alone for all of `config.epochs`.

    Exactly what F separate trainings on the same order of batches would give: a bag that is no member has the weight 0
    in that model's loss, and AdamW works element by element. Nothing is chosen on the bags that are left out.
    """
    models = []
    for row, member in enumerate(members):
        torch.manual_seed(hash((seed, row)) % 2**31)
        model = build_model(architecture)
        if config.standardise:
            centre, scale = standard([bag.features for bag, inside in zip(bags, member, strict=True) if inside])
            model.embedding.centre.copy_(centre)  # pyright: ignore
            model.embedding.scale.copy_(scale)  # pyright: ignore
        models.append(model)
    parameters, buffers = torch.func.stack_module_state(models)
    base = copy.deepcopy(models[0]).train()

    def loss(one: dict, buffer: dict, x: Tensor, keep: Tensor, labels: Tensor, weight: Tensor) -> Tensor:
        scores = torch.func.functional_call(base, (one, buffer), (x, keep))
        return (bag_loss(scores, labels) * weight).sum() / weight.sum().clamp_min(1)

    gradient = torch.func.vmap(torch.func.grad(loss), in_dims=(0, 0, None, None, None, 0), randomness="different")
    optimizer = torch.optim.AdamW(
        list(parameters.values()), lr=config.learning_rate, weight_decay=config.weight_decay, fused=True
    )
    torch.manual_seed(seed)
    labels = torch.tensor([bag.label for bag in bags])
    weights = torch.from_numpy(members).float()
    sizes = [min(len(bag.features), config.instances or 10**9) for bag in bags]
    steps, total = 0, config.epochs * math.ceil(len(bags) / config.batch)
    for epoch in range(config.epochs):
        rng = np.random.default_rng((seed, epoch))
        for part in batches(sizes, config.batch, rng):
            for group in optimizer.param_groups:
                group["lr"] = config.learning_rate * 0.5 * (1 + math.cos(math.pi * steps / total))
            x, keep = pad([some_instances(bags[index].features, config.instances, rng) for index in part])
            at_once = max(1, ROWS // keep.numel())
            found = [
                gradient(
                    *_rows((parameters, buffers), first, at_once),
                    x,
                    keep,
                    labels[part],
                    weights[first:, part][:at_once],
                )
                for first in range(0, len(models), at_once)
            ]
            for name, parameter in parameters.items():
                parameter.grad = torch.cat([one[name] for one in found])
            optimizer.step()
            steps += 1
        tell(epoch + 1)
    for row, model in enumerate(models):
        state = {**parameters, **buffers}
        model.load_state_dict({name: value[row].detach() for name, value in state.items()})
        model.eval()
    return models


def _rows(stacked: tuple[dict, dict], first: int, count: int) -> list[dict]:
    return [{name: value[first : first + count].detach() for name, value in one.items()} for one in stacked]


@torch.inference_mode()
def predict_bags(
    model: nn.Module, bags: Sequence[Bag], batch: int = 16, device: str = "cpu"
) -> tuple[np.ndarray, list[np.ndarray]]:
    """Logits (bags, classes) and for each bag its attention (M, N), in the order of `bags`."""
    order = np.argsort([len(bag.features) for bag in bags], kind="stable")
    logits: list[Any] = [None] * len(bags)
    weights: list[Any] = [None] * len(bags)
    first = 0
    while first < len(order):
        part = order[first : first + batch]
        # The longest comes last: a batch is cut where padding would take more than some memory.
        while len(part) > 1 and len(part) * len(bags[part[-1]].features) > 50_000:
            part = part[: len(part) // 2]
        x, keep = pad([bags[index].features for index in part])
        alone = len(part) == 1
        scores = model(x.to(device), None if alone else keep.to(device))
        for row, index in enumerate(part):
            logits[index] = scores.bag[row].float().cpu().numpy()
            weights[index] = scores.weights[row, :, : len(bags[index].features)].float().cpu().numpy()
        first += len(part)
    return np.stack(logits), weights
