"""`export`: what a service needs to score items, without this project."""

import warnings
from pathlib import Path

import numpy as np
import safetensors.torch
import torch

from apps.recommendation.batches import pad
from apps.recommendation.recommender import Recommender
from shared.errors import ManyheadsError
from shared.io.files import output_folder, replacing, sha256, write_json

TOLERANCE = 1e-5


class Encoder(torch.nn.Module):
    """(B, length) item numbers from 1, zeros on the left -> (B, dim); the scores are its product with the items."""

    def __init__(self, model: torch.nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, sequences: torch.Tensor) -> torch.Tensor:
        return self.model.last(sequences)  # pyright: ignore[reportCallIssue]


def export(recommender: Recommender, out: Path) -> dict:
    """Write `encoder.pt2` (torch.export, any batch size), `items.safetensors` (N, dim) and `items.json` (ids, titles).

    The written encoder is read back and compared with the model on random histories. Raises ManyheadsError when its
    scores differ by more than 1e-5 of the largest.
    """
    output_folder(out)
    model = recommender.model
    example = _histories(recommender, 3, seed=0)
    batch = torch.export.Dim("batch", min=1, max=2**20)
    program = torch.export.export(Encoder(model), (example,), dynamic_shapes=({0: batch},))
    with replacing(out / "encoder.pt2") as partial:
        torch.export.save(program, partial)
    with replacing(out / "items.safetensors") as partial:
        partial.write_bytes(safetensors.torch.save({"items": model.items.detach().contiguous().clone()}))
    difference = check(recommender, out)
    facts = {
        "input": f"(B, {model.length}) int64: item numbers from 1, zeros on the left; B is free",
        "output": f"(B, {model.items.shape[1]}) float32; scores = output @ items.T, column j is item j + 1",
        "model_sha256": recommender.card["sha256"],
        "encoder_sha256": sha256(out / "encoder.pt2"),
        "largest_difference_of_scores": difference,
    }
    write_json(out / "items.json", {**facts, "items": recommender.items, "titles": recommender.titles})
    names = ("encoder.pt2", "items.safetensors", "items.json")
    return {**facts, "written": [str(out / name) for name in names]}


@torch.inference_mode()
def check(recommender: Recommender, out: Path) -> float:
    """The largest difference between the scores of the exported pair and the model's, as a share of the largest score.

    Raises ManyheadsError when it is more than 1e-5.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch warns of its own buffer
        encoder = torch.export.load(out / "encoder.pt2").module()
    items = safetensors.torch.load_file(out / "items.safetensors")["items"]
    inputs = _histories(recommender, 17, seed=1)
    wanted = recommender.model.last(inputs) @ recommender.model.items.T
    difference = float((encoder(inputs) @ items.T - wanted).abs().max() / wanted.abs().max())
    if not difference <= TOLERANCE:
        raise ManyheadsError(f"{out}: the exported encoder scores differently (by {difference:.1e}); do not use it")
    return difference


def _histories(recommender: Recommender, count: int, seed: int) -> torch.Tensor:
    rng = np.random.default_rng(seed)
    length = recommender.length
    rows = [rng.integers(1, len(recommender.items) + 1, size=rng.integers(1, length + 1)) for _ in range(count - 1)]
    return pad([*rows, rng.integers(1, len(recommender.items) + 1, size=length)], length)
