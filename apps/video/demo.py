"""`manyheads demo video`: carry a mask, find what moves in a real video, train and score on clips of known truth."""

from collections.abc import Callable
from pathlib import Path

from apps.video.config import CONFIGS, VideoConfig
from apps.video.discover import discover
from apps.video.evaluate import evaluate
from apps.video.explain import explain
from apps.video.propagate import propagate
from apps.video.synthetic import synthesise
from apps.video.train import train
from shared.config import load_config
from shared.io.video import Video, write_video
from shared.report.page import Section
from shared.training.trainer import Hardware

BIKES = Path(__file__).resolve().parents[2] / "data" / "bikes.mp4"
SEED = 3


def run(out: Path, progress: Callable[[str], None]) -> Section:
    """Everything here is made while one waits: about a minute and a half on two CPU cores."""
    progress("cuts one shot out of the video that comes with it")
    with Video(BIKES, 180) as video:
        street = write_video(out / "street.mp4", iter(video.read(range(207, 241, 2))), video.info.fps / 2)
    config = load_config(VideoConfig, None, ["features.size=180"])
    progress("looks for objects in it, without being told any")
    found = discover(config, street, out / "street", method="salient", device="cpu")
    progress("draws clips of moving objects, whose truth is known")
    clips = out / "clips"
    synthesise(clips, clips=6, frames=12, objects=2, size=96, seed=SEED)
    small = load_config(VideoConfig, CONFIGS / "demo.toml", [])
    last = ["clip-004", "clip-005"]
    progress("carries the first mask of two of them through")
    carried = evaluate(small, clips, out / "carried", names=last, device="cpu")
    frames = clips / "JPEGImages" / last[0]
    shown = propagate(small, frames, clips / "Annotations" / last[0] / "00000.png", out / "propagated", device="cpu")
    progress("trains the temporal block on the other four")
    trained = train(
        small,
        clips,
        out / "run",
        weights=None,
        split=None,
        names=[f"clip-00{i}" for i in range(4)],
        seed=SEED,
        resume=False,
        hardware=Hardware(device="cpu"),
    )
    progress("finds the objects of the two by attention")
    by_attention = evaluate(
        small, clips, out / "attention", method="attention", checkpoint=out / "run", names=last, device="cpu"
    )
    looked = explain(
        small, frames, out / "explained", point="85,48", frame=0, checkpoint=out / "run", weights=None, device="cpu"
    )
    rows = [
        {"what": "first mask carried through", **_figures(carried)},
        *({"what": f"{row['what']} (baseline)", **_figures(row)} for row in carried["baselines"]),
        {"what": f"objects found by attention, {trained['epochs']} short epochs", **_figures(by_attention)},
        *({"what": f"{row['what']} (baseline)", **_figures(row)} for row in by_attention["baselines"]),
    ]
    text = (
        f"In one shot of a street, what EfficientNet-Lite0 responds to most was marked: {len(found['objects'])} "
        f"object in {found['frames']} frames without any label; its score that there is one is "
        f"{found['object_score']:.2f}.\n\n"
        f"On two clips of two moving objects each, drawn from a seed, the first mask was carried through "
        f"{shown['frames']} frames. A temporal block was trained for {small.train.steps * small.train.epochs} steps on "
        "four others, and its attention rows were clustered into objects. J is the overlap of regions, F that of "
        "contours, proposals are assigned once for a sequence, as DAVIS does. The figures are of a tiny run; those on "
        "real sequences are in the documentation."
    )
    return Section(
        "Video: objects without labels, and masks carried through",
        text,
        figures=[Path(found["sheet"]), Path(found["overlay"]), Path(shown["sheet"]), Path(looked["figure"])],
        table=rows,
        code="uv run manyheads video propagate VIDEO --mask FIRST.png\n"
        "uv run manyheads video discover VIDEO\n"
        "uv run manyheads video train --data FOLDER_OF_VIDEOS --config attention --out runs/mine",
        links=[Path(found["rle"]), Path(shown["rle"])],
    )


def _figures(result: dict) -> dict:
    return {"J": round(result["J"], 3), "F": round(result["F"], 3), "J&F": round((result["J"] + result["F"]) / 2, 3)}
