"""The model as a whole: what it may see, what decoding with its cache must equal, and every way it can be built."""

import pytest
import torch

from apps.music.config import CONFIGS, MusicConfig
from apps.music.model import MusicTransformer
from apps.music.task import architecture
from shared.config import load_config, shipped_configs

VARIANTS = {
    "relative": {},
    "no relative": {"max_distance": 0},
    "local": {"attention": "local", "local_block": 8},
    "sinusoids added": {"positions": "add", "max_distance": 0},
    "sinusoids concatenated": {"positions": "concat"},
    "odd width": {"dim": 33, "attention_dim": 16, "positions": "concat"},
    "labels": {"voices": 4, "labels": True},
    "pitch and time": {"voices": 4, "labels": True, "relations": ["time", "pitch"]},
}


def build(**arguments: object) -> MusicTransformer:
    torch.manual_seed(0)
    settings = {"dim": 32, "attention_dim": 32, "heads": 2, "layers": 2, "feed_forward": 48, "dropout": 0.0}
    return MusicTransformer(132, **{**settings, "max_distance": 12, **arguments}).eval()


def tokens(batch: int, length: int, seed: int = 1) -> torch.Tensor:
    return torch.randint(0, 132, (batch, length), generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("arguments", VARIANTS.values(), ids=VARIANTS)
def test_sees_only_the_past_and_decodes_as_it_reads(arguments: dict) -> None:
    model, x = build(**arguments), tokens(2, 41)
    with torch.no_grad():
        whole = model(x)
        changed = x.clone()
        changed[:, 20:] = (changed[:, 20:] + 1) % 128
        assert torch.equal(whole[:, :20], model(changed)[:, :20])
        cache = model.new_cache(64)
        parts = [model(x[:, :7], cache=cache), *(model(x[:, i : i + 1], cache=cache) for i in range(7, 41))]
    torch.testing.assert_close(torch.cat(parts, 1), whole, atol=1e-4, rtol=1e-4)


def test_a_crop_knows_its_place() -> None:
    """Voice and place in the bar come from the index in the piece, not in the crop."""
    model, x = build(voices=4, labels=True, max_distance=0, layers=1), tokens(1, 8)
    with torch.no_grad():
        at_start, one_bar_on = model(x, torch.tensor([0])), model(x, torch.tensor([64]))
        one_beat_on = model(x, torch.tensor([16]))
    torch.testing.assert_close(at_start, one_bar_on)
    assert not torch.allclose(at_start, one_beat_on)


def test_accompaniment_reads_the_melody_but_not_its_padding() -> None:
    model, x = build(source_vocab=132, source_layers=2), tokens(2, 9)
    source, keep = tokens(2, 14, seed=3), torch.ones(2, 14, dtype=torch.bool)
    keep[0, 10:] = False
    clock, source_clock = torch.arange(9).expand(2, 9), torch.arange(14).expand(2, 14)

    def logits(melody: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            return model(x, clock=clock, source=melody, source_keep=keep, source_clock=source_clock)

    padded, heard = source.clone(), source.clone()
    padded[0, 10:] = 5
    heard[0, 3] = (heard[0, 3] + 1) % 128
    torch.testing.assert_close(logits(source), logits(padded))
    assert not torch.allclose(logits(source)[0], logits(heard)[0])


def test_a_window_that_slides_keeps_the_cost_and_stays_near() -> None:
    """With a full window nothing before it is read: what left it can change nothing but through what has been kept."""
    model = build(layers=1, max_distance=8)  # one layer: kept keys depend on their own token alone
    x = tokens(1, 30)
    other = x.clone()
    other[:, :10] = (other[:, :10] + 7) % 128
    with torch.no_grad():
        ends = []
        for sequence in (x, other):
            cache = model.new_cache(10)
            ends.append([model(sequence[:, i : i + 1], cache=cache) for i in range(30)][-1])
        short = model(x[:, 20:])[:, -1:]
    torch.testing.assert_close(ends[0], ends[1])
    torch.testing.assert_close(ends[0], short, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", shipped_configs(CONFIGS))
def test_every_shipped_configuration_is_valid_and_builds(name: str) -> None:
    config = load_config(MusicConfig, CONFIGS / f"{name}.toml")
    with torch.device("meta"):
        model = MusicTransformer(**architecture(config))
    assert sum(p.numel() for p in model.parameters()) > 10_000
