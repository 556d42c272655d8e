"""`evaluate`: mean average precision, average recall of proposals, and what goes wrong, on recordings with truth."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from apps.action.config import DataConfig
from apps.action.corpora import load_corpus
from apps.action.detector import Detector, detections_of, maps_of, proposals_of
from apps.action.metrics import (
    LOOSE,
    STRICT,
    Found,
    Truth,
    average_recall,
    error_kinds,
    labels_in,
    mean_average_precision,
)
from apps.action.proposals import Detection, grouped
from apps.action.recordings import Corpus, Recording
from shared.command import progress
from shared.errors import InputError
from shared.io.files import output_folder, write_json

STEP_TOLERANCE = 0.1  # of a snippet's length: durations in annotations are rounded


def evaluate(detector: Detector, data: Path | None, split: str, out: Path, *, config: DataConfig) -> dict:
    """Figures on a split, or on all recordings (`split` all), beside the grouping of the model's own snippet classes.

    Raises InputError for an empty split, truth without segments, and data of another width or other snippets than the
    model reads.
    """
    corpus = load_corpus(data, config)
    recordings = list(corpus.recordings) if split == "all" else corpus.split(config.fold)[split]
    if not recordings:
        raise InputError(f"{corpus.name}: its {split} split is empty; choose another by --split")
    truth = {recording.name: recording.segments for recording in recordings}
    if not labels_in(truth):
        raise InputError(f"{corpus.name}: no recording of the {split} split has a segment; evaluation needs truth")
    for recording in recordings:
        _check_fit(detector, recording, corpus.name)
    output_folder(out)
    found, proposals, grouping = detect_all(detector, recordings)
    result = {
        "model": str(detector.path),
        "data": {"name": corpus.name, "sha256": corpus.sha256, "split": split, "rule": corpus.split_rule},
        "recordings": len(recordings),
        **figures(truth, found, proposals),
        "baseline_grouping": {
            "average_map_03_07": _mean(truth, grouping, LOOSE),
            "average_map_05_095": _mean(truth, grouping, STRICT),
        },
    }
    given = given_grouping(corpus, recordings)
    if given is not None:
        result["baseline_given_scores"] = {"average_map_03_07": _mean(truth, given, LOOSE)}
    unknown = sorted(set(labels_in(truth)) - set(detector.labels))
    if unknown:
        result["note"] = f"the model does not know {', '.join(unknown)}: their segments count as missed"
    trained_on = detector.card.get("data") or {}
    if trained_on.get("sha256") != corpus.sha256:
        result["trained_on"] = f"other data ({trained_on.get('name', 'not named in its card')})"
    elif detector.card.get("fold") not in (None, config.fold) or split == "all":
        result["trained_on"] = "recordings of this split may be among what it has learned (see the card's fold)"
    write_json(out / "evaluation.json", result)
    _pictures(out, result)
    return {**result, "written": str(out / "evaluation.json")}


def _check_fit(detector: Detector, recording: Recording, data: str) -> None:
    width, step = recording.features.shape[1], detector.source.step
    if width != detector.width:
        raise InputError(
            f"{data}: {recording.name} has {width} channels, the model reads {detector.width}; give data of the same"
            " kind"
        )
    if step is not None and not detector.window.whole and abs(recording.step / step - 1) > STEP_TOLERANCE:
        raise InputError(
            f"{data}: {recording.name} has snippets of {recording.step:g} s, the model reads {step:g} s; use"
            f" --set data.snippet_seconds={step:g}, or extract the features anew"
        )


def detect_all(detector: Detector, recordings: Sequence[Recording]) -> tuple[Found, dict, Found]:
    """Detections, proposals (start, end, score) and grouped snippets of each recording, by name; times in seconds."""
    found: dict[str, list[Detection]] = {}
    proposals, grouping = {}, {}
    with progress() as bar:
        for recording in bar.track(recordings, description="recordings"):
            maps = maps_of(detector, recording)
            found[recording.name] = detections_of(detector, recording, maps)
            proposals[recording.name] = proposals_of(detector, recording, maps)
            grouping[recording.name] = grouped(maps.classes, detector.labels, recording.step)
    return found, proposals, grouping


def given_grouping(corpus: Corpus, recordings: Sequence[Recording]) -> Found | None:
    """The class scores that the data bring, grouped as they are; None where there are none for the corpus's classes."""
    if not corpus.scored or recordings[0].semantics is None:
        return None
    order = [corpus.scored.index(label) for label in corpus.labels]
    rest = [k for k in range(len(corpus.scored)) if k not in order]
    found = {}
    for recording in recordings:
        assert recording.semantics is not None
        background = recording.semantics[:, rest].sum(1, keepdims=True)
        shares = np.concatenate([recording.semantics[:, order], background], 1)
        found[recording.name] = grouped(shares, list(corpus.labels), recording.step)
    return found


def figures(truth: Truth, found: Found, proposals: dict) -> dict:
    """mAP at both sets of thresholds, by class, AR@AN and its area, and kinds of error."""
    thresholds = np.union1d(LOOSE.round(2), STRICT.round(2))
    mean, per_class = mean_average_precision(truth, found, thresholds)
    at = {f"{threshold:.2f}": float(value) for threshold, value in zip(thresholds, mean, strict=True)}
    loose, strict = np.isin(thresholds, LOOSE.round(2)), np.isin(thresholds, STRICT.round(2))
    half = int(np.flatnonzero(thresholds == 0.5)[0])
    recall = average_recall(truth, proposals)
    counts = {label: sum(s.label == label for segments in truth.values() for s in segments) for label in per_class}
    return {
        "segments": sum(len(segments) for segments in truth.values()),
        "average_map_03_07": float(mean[loose].mean()),
        "average_map_05_095": float(mean[strict].mean()),
        "map_at": at,
        "area_under_ar_an": recall["area"],
        "ar_at": {str(n): float(np.asarray(recall["recall"])[n - 1]) for n in (1, 5, 10, 50, 100)},
        "errors_at_05": error_kinds(truth, found),
        "classes": [
            {
                "class": label,
                "segments": counts[label],
                "ap_at_05": float(values[half]),
                "average_ap_03_07": float(values[loose].mean()),
            }
            for label, values in per_class.items()
        ],
    }


def _mean(truth: Truth, found: Found, thresholds: np.ndarray) -> float:
    return float(mean_average_precision(truth, found, thresholds)[0].mean())


def _pictures(out: Path, result: dict) -> None:
    from shared.report.figures import COLOURS, new_figure, save_figure

    figure = new_figure(10, 0.8 + max(2.6, 0.28 * len(result["classes"])))
    left, middle, right = figure.subplots(1, 3, width_ratios=(1.2, 1, 1))
    rows = sorted(result["classes"], key=lambda row: row["average_ap_03_07"])
    left.barh([row["class"] for row in rows], [100 * row["average_ap_03_07"] for row in rows], color=COLOURS[0])
    left.set(xlabel="average AP at tIoU 0.3 to 0.7 (%)", title="by class", xlim=(0, 100))
    left.grid(axis="y", visible=False)
    middle.plot([float(t) for t in result["map_at"]], [100 * v for v in result["map_at"].values()], "o-", ms=3)
    middle.set(xlabel="tIoU", ylabel="mAP (%)", title="by overlap", ylim=(0, None))
    kinds = result["errors_at_05"]
    right.barh(list(kinds)[::-1], list(kinds.values())[::-1], color=[*COLOURS[1:5][::-1], COLOURS[2]])
    right.set(xlabel="surest detections, as many as segments", title="kinds of error")
    right.grid(axis="y", visible=False)
    save_figure(figure, out / "evaluation.png")
