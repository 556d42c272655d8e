"""Recommendation: a pass over all targets, and the ten best items for everybody.

Users by number, on a catalogue of 12,101 items with histories as long as those of Amazon Beauty (or on a real file, by
the environment variable MANYHEADS_EVENTS, of which the first users are taken). Training is SASRec with full softmax in
our code (packed rows, gradients without kept logits) against RecBole's SASRec, both of one block, one head and width
64; both go over the same targets once. Recommending is our exact top-k by blocks against torch.topk, with the
histories hidden.
"""

import os
from collections.abc import Callable
from pathlib import Path

FORMS = ("ours", "RecBole's SASRec", "torch.topk")
SAME = ()
AXIS = "users"
SIZES = (500, 2000, 22363)
MODES = ("recommend", "training pass")
ITEMS = 12_101


def histories(users: int):
    """Histories of the wanted number of users: real ones where a file is named, else drawn."""
    import numpy as np

    from apps.recommendation.config import DataConfig
    from apps.recommendation.histories import Histories
    from apps.recommendation.readers import read_histories

    if file := os.environ.get("MANYHEADS_EVENTS"):
        whole = read_histories(Path(file), DataConfig())
        end = whole.start[min(users, len(whole))]
        names, start = whole.users[:users], whole.start[: users + 1]
        return Histories(whole.name, names, whole.items, whole.flat[:end], start, {}, {}, {})
    rng = np.random.default_rng(0)
    lengths = np.minimum(5 + rng.geometric(0.2, users), 200)
    popular = 1 / np.arange(1, ITEMS + 1) ** 0.6
    flat = rng.choice(ITEMS, size=lengths.sum(), p=popular / popular.sum()) + 1
    items = [str(item) for item in range(1, ITEMS + 1)]
    start = np.concatenate([[0], np.cumsum(lengths)])
    return Histories("drawn", [str(user) for user in range(users)], items, flat, start, {}, {}, {})


def prepare(form: str, size: int, mode: str) -> Callable[[], object] | None:
    if mode == "recommend":
        return None if form == "RecBole's SASRec" else _recommend(histories(size), form)
    if form == "torch.topk":
        return None
    return _ours(histories(size)) if form == "ours" else _recboles(histories(size))


def _ours(made) -> Callable[[], object]:
    import torch

    from apps.recommendation.compare import variant
    from apps.recommendation.config import RecommendationConfig
    from apps.recommendation.data import RecommendationData
    from apps.recommendation.task import RecommendationTask
    from apps.recommendation.transitions import count_transitions

    config = variant(RecommendationConfig(), "sasrec")
    data = RecommendationData(made, config.model.length, batch=config.train.batch, passes=1, seed=0)
    task = RecommendationTask(config, len(made.items), count_transitions(made.training(), len(made.items)), 100)
    task.log = lambda *_, **__: None  # pyright: ignore[reportAttributeAccessIssue]
    optimizer = task.configure_optimizers()["optimizer"]

    def work() -> object:
        for index, batch in enumerate(data.train_dataloader()):
            loss = task.training_step(batch, index)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        return torch.tensor(0)

    return work


def _recboles(made) -> Callable[[], object]:
    import contextlib

    from apps.recommendation.config import RecommendationConfig
    from apps.recommendation.engine.training import prepare_in_recbole

    stack = contextlib.ExitStack()
    size = {"n_layers": 1, "n_heads": 1, "inner_size": 64}  # as ours
    prepared = prepare_in_recbole("SASRec", made, RecommendationConfig(), 0, 1, **size)
    trainer, _, train_data, _ = stack.enter_context(prepared)
    # The epoch alone: reading and the making of samples are not counted for either.
    return lambda: (stack, trainer._train_epoch(train_data, 0))[1]


def _recommend(made, form: str) -> Callable[[], object]:
    import numpy as np
    import torch

    from apps.recommendation import recommend
    from apps.recommendation.model import SequenceRecommender
    from apps.recommendation.recommender import Recommender

    torch.manual_seed(0)
    model = SequenceRecommender(len(made.items)).eval()
    popularity = np.zeros(len(made.items))
    recommender = Recommender(Path(), {}, model, made.items, {}, {}, {}, popularity)
    rows = [made.history(user) for user in range(len(made))]
    if form == "torch.topk":
        recommend.top_k = lambda scores, k: scores.topk(k, 1)  # this case has a process of its own
    return lambda: recommend.recommend_rows(recommender, rows, 10, seen=False)


def main(users: int) -> None:
    """Every case once, in this process, one after the other; seconds of the processor too, as others may use it."""
    import time

    for mode in MODES:
        for form in FORMS:
            work = prepare(form, users, mode)
            if work is None:
                continue
            if mode == "recommend":
                work()  # the first call also loads kernels
            began, used = time.perf_counter(), time.process_time()
            work()
            seconds, used = time.perf_counter() - began, time.process_time() - used
            speed = f"{users / seconds:,.0f} users a second ({users / used:,.0f} by processor time)"
            print(f"{mode}, {form}: {seconds:.2f} s, {used:.2f} s of the processor, {speed}", flush=True)


if __name__ == "__main__":
    import sys

    main(int(sys.argv[1]) if len(sys.argv) > 1 else SIZES[-1])
