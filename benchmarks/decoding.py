"""One more token of a piece: with the key/value cache, against reading everything again.

The model has the size of the paper's piano model: 6 layers, width 256, 512 in attention, 8 heads.
"""

from collections.abc import Callable

FORMS = SAME = ("cached", "uncached")
AXIS = "position"
SIZES = (128, 512, 1024, 2048)
MODES = ("a token",)
AHEAD = 64  # room in the cache for the repeats


def prepare(form: str, size: int, mode: str) -> Callable[[], object]:
    import torch

    from apps.music.model import MusicTransformer

    torch.manual_seed(0)
    model = MusicTransformer(391, 256, 512, 8, 6, 1024, 0.0, max_distance=SIZES[-1]).eval()
    tokens = torch.randint(0, 388, (1, size))
    with torch.inference_mode():
        if form == "uncached":
            model(tokens[:, :16])
            return lambda: _last(model, tokens, None)
        cache = model.new_cache(size + AHEAD)
        model(tokens[:, :-1], cache=cache)
        return lambda: _last(model, tokens[:, -1:], cache)


def _last(model, tokens, cache):
    import torch

    with torch.inference_mode():
        return model(tokens, cache=cache)[:, -1] if cache is not None else model(tokens)[:, -1]
