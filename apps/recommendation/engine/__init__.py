"""RecBole: its data, trainer and evaluator, for our model and for its own. Nothing of it is imported before it is used.

`MQSATED` is a RecBole model class: `Config(model=MQSATED, ...)` inside `session()`.
"""

from typing import Any

from apps.recommendation.engine.compatibility import session
from apps.recommendation.engine.training import NAMES, train_in_recbole

__all__ = ["MQSATED", "NAMES", "session", "train_in_recbole"]


def __getattr__(name: str) -> Any:
    if name == "MQSATED":  # a class of RecBole's, which is imported with it
        from apps.recommendation.engine.model import mqsated

        return mqsated()
    raise AttributeError(name)
