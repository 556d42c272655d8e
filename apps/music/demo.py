"""`manyheads demo music`: write, harmonise and play with the shipped model, then train and evaluate a small one."""

from collections.abc import Callable
from pathlib import Path

from apps.music.config import CONFIGS, MusicConfig
from apps.music.corpora import load_corpus
from apps.music.decode import Sampling
from apps.music.evaluate import evaluate
from apps.music.explain import explain
from apps.music.outputs import Length
from apps.music.predict import generate, harmonise, load
from apps.music.render import render_wav
from apps.music.report import report
from apps.music.train import train
from shared.config import load_config
from shared.report.page import Section
from shared.training.trainer import Hardware

SEED = 7


def run(out: Path, progress: Callable[[str], None]) -> Section:
    """Everything here is made while one waits: about two minutes on two CPU cores, the first time."""
    progress("writes a chorale with the shipped weights")
    player = load(None, "cpu")
    sampling = Sampling(temperature=0.9, top_p=0.97, seed=SEED)
    made = generate(player, out / "generated", length=Length(8, "bars"), count=4, tempo=84, sampling=sampling)
    best = Path(made["pieces"][1]["midi"])  # the likeliest tends to be the dullest
    progress("harmonises the soprano of that chorale anew")
    harmonise(player, best, out / "harmonised", keep=["soprano"], count=1, particles=16, tempo=84, sampling=sampling)
    progress("plays it")
    sound = out / "chorale.wav"
    render_wav(best, sound, rate=22050)
    explain(player, best, out / "attention", layer=-1, at=None, span=0.01, strongest=5, last=Length(4, "bars"))
    progress("reads music21's chorales (kept for the next time)")
    corpus = load_corpus(None, "chorale")
    compared = report([best], None, "chorale", out / "report")
    progress("trains a small model on them")
    config = load_config(MusicConfig, CONFIGS / "demo.toml")
    trained = train(config, None, out / "run", seed=SEED, resume=False, hardware=Hardware(device="cpu"))
    progress("evaluates it on pieces that it has not seen")
    small = evaluate(load(out / "run", "cpu"), None, "test", out / "evaluation", samples=0, tempo=84, seed=SEED)
    text = (
        f"The shipped model wrote {len(made['pieces'])} chorales of 8 bars; this is the second by likelihood. "
        f"{compared['novelty'][0]['sentences'][0]}\n\n"
        f"A small model was trained for {config.train.steps * config.train.epochs} steps on "
        f"{len(corpus.splits['train'])} chorales of music21 and evaluated on {small['pieces']} others: "
        f"NLL {small['nll_per_token']:.3f} nats a token "
        f"(95 % interval {small['interval_95'][0]:.3f} to {small['interval_95'][1]:.3f} over pieces). "
        f"{len(corpus.skipped)} scores of music21 were left out because they do not have four parts."
    )
    return Section(
        "Music: chorales by Music Transformer",
        text,
        figures=[best.with_suffix(".png"), out / "attention" / "attention.png", Path(trained["figure"])],
        audio=[sound],
        table=[_percent(row) for row in small["voices"]],
        code="uv run manyheads music train --data FOLDER_OF_MIDI --config piano --out runs/mine\n"
        "uv run manyheads music generate --checkpoint runs/mine --length 30s --count 4",
        links=[
            best,
            best.with_suffix(".musicxml"),
            out / "harmonised" / "harmonisation.mid",
            out / "report" / "report.html",
        ],
    )


def _percent(row: dict) -> dict:
    return {
        "voice of the small model": row["voice"],
        "NLL per token": round(row["nll_per_token"], 3),
        "accuracy": f"{100 * row['accuracy']:.1f} %",
        "accuracy of holding the note": f"{100 * row['accuracy_holding']:.1f} %",
    }
