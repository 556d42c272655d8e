"""`manyheads demo action`: train a detector on composed watch streams, detect in a person it has not seen, explain."""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from apps.action.config import CONFIGS, ActionConfig
from apps.action.corpora import load_corpus
from apps.action.detector import detections_of, load, maps_of
from apps.action.evaluate import evaluate
from apps.action.outputs import chosen, write_activitynet, write_csv, write_srt
from apps.action.predict import attention_of
from apps.action.timeline import timeline
from apps.action.train import train
from shared.config import load_config
from shared.report.page import Section
from shared.training.trainer import Hardware

SEED = 7


def run(out: Path, progress: Callable[[str], None]) -> Section:
    """Composes the streams, trains for some seconds, and shows one stream of a person that was not trained on."""
    config = load_config(ActionConfig, CONFIGS / "demo.toml")
    progress("composes streams out of seglearn's watch recordings and trains a detector on them")
    train(config, None, out / "run", seed=SEED, resume=False, hardware=Hardware(device="cpu"))
    detector = load(out / "run", "cpu")
    progress("evaluates it on people that it has not seen")
    result = evaluate(detector, None, "test", out / "evaluation", config=config.data)
    progress("detects the exercises of one of them")
    recording = load_corpus(None, config.data).split(config.data.fold)["test"][0]
    maps = maps_of(detector, recording)
    found = detections_of(detector, recording, maps)
    threshold = 0.2 * max((d.score for d in found), default=0.0)
    shown = chosen(found, threshold)
    gates = {"temporal gate": np.asarray(attention_of(detector, recording)["temporal"])}
    picture = out / "timeline.png"
    timeline(picture, recording, shown, maps, detector.labels, gates=gates)
    write_activitynet(out / "detections.json", {recording.name: found}, {})
    write_csv(out / "detections.csv", recording.name, shown)
    write_srt(out / "detections.srt", shown)
    text = (
        f"Streams of about three minutes, composed from real sets of seven shoulder exercises recorded by a watch (the "
        f"pauses between the sets are made, not recorded). BMN with class-semantics attention was trained for "
        f"{config.train.epochs} epochs on eight people; on the {result['recordings']} streams of two others its "
        f"average mAP at tIoU 0.3 to 0.7 is {100 * result['average_map_03_07']:.1f} %, that of grouping its own "
        f"snippet classes {100 * result['baseline_grouping']['average_map_03_07']:.1f} %.\n\n"
        f"The figure: above, what was annotated (grey) and found (colour) in a stream of a person it has not seen; "
        "below, the snippet classes, the boundaries, and the attention over time."
    )
    rows = [
        {"exercise": row["class"], "sets": row["segments"], "AP at tIoU 0.5": f"{100 * row['ap_at_05']:.0f} %"}
        for row in result["classes"]
    ]
    return Section(
        "Action: exercises in untrimmed sensor streams",
        text,
        figures=[picture, out / "evaluation" / "evaluation.png"],
        table=rows,
        code="uv run manyheads action train --data FOLDER --out runs/mine\n"
        "uv run manyheads action detect RECORDING --checkpoint runs/mine",
        links=[out / "detections.json", out / "detections.csv", out / "detections.srt"],
    )
