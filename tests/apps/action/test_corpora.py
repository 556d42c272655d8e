"""Annotations in four forms, folders of one's own, and the data sets that are read as they are."""

import json
from pathlib import Path

import numpy as np
import pytest

from apps.action.annotations import read_annotations
from apps.action.config import DataConfig
from apps.action.corpora import load_corpus
from apps.action.features import read_array, read_sensors, sensor_snippets
from apps.action.stream import snippets_of
from shared.errors import InputError


def test_activitynet_thumos_csv_and_elan_say_the_same(tmp_path: Path) -> None:
    entry = {"subset": "training", "duration": 20, "annotations": [{"segment": [5.5, 9], "label": "b"}]}
    entry["annotations"].append({"segment": [1, 2], "label": "a"})  # not in order
    (tmp_path / "a.json").write_text(json.dumps({"database": {"clip": entry}}))
    text = {"subset": "validation", "annotations": [{"segment": ["1", "2.0"], "label": "a"}]}
    text["annotations"].append({"segment": ["5.5", "9"], "label": "b"})
    (tmp_path / "t.json").write_text(json.dumps({"database": {"clip": text}}))
    (tmp_path / "a.csv").write_text("Recording,Start,End,Label,group\nclip,5.5,9,b,p1\nclip,1,2,a,p1\nbare,,,,p2\n")
    (tmp_path / "clip.txt").write_text("tier\t\t1.0\t2.0\t1.0\ta\ntier\t\t5.5\t9.0\t3.5\tb\n")
    (tmp_path / "headed.txt").write_text("file\tbegin time\tend time\tannotation\nclip\t1\t2\ta\nclip\t5.5\t9\tb\n")
    (tmp_path / "SHEET.CSV").write_text("recording;start;end;label\nclip;0:05,5;0:00:09;b\nclip;1,0;2;a\n")
    expected = [(1, 2, "a"), (5.5, 9, "b")]
    for name in ("a.json", "t.json", "a.csv", "clip.txt", "headed.txt", "SHEET.CSV"):
        found = read_annotations(tmp_path / name)
        assert [(s.start, s.end, s.label) for s in found["clip"].segments] == expected, name
    assert read_annotations(tmp_path / "a.json")["clip"].subset == "train"
    assert read_annotations(tmp_path / "t.json")["clip"].duration is None
    assert read_annotations(tmp_path / "a.csv")["bare"].segments == []


def test_arrays_in_every_form_are_the_same(tmp_path: Path) -> None:
    import h5py

    values = np.random.default_rng(0).normal(size=(7, 3)).astype(np.float32)
    np.save(tmp_path / "a.npy", values)
    np.savez(tmp_path / "a.npz", features=values, other=np.zeros(3))
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["features"] = values
    np.savetxt(tmp_path / "a.csv", values, delimiter=",", header="x,y,z", comments="", fmt="%.9g")
    (tmp_path / "a.CSV").write_bytes((tmp_path / "a.csv").read_bytes())
    for suffix in (".npy", ".npz", ".h5", ".csv", ".CSV"):
        np.testing.assert_array_equal(read_array(tmp_path / f"a{suffix}")[0], values)


def test_sensor_snippets_by_hand() -> None:
    signal = np.array([[0.0], [2], [4], [4], [10]])
    features = sensor_snippets(signal, np.arange(5) * 0.25, 0.5)
    assert features.shape == (3, 5)  # the last half snippet counts
    np.testing.assert_allclose(features[0], [1, 1, 0, 2, 1])  # mean, spread, lowest, highest, mean step
    np.testing.assert_allclose(features[1], [4, 0, 4, 4, 1])
    with pytest.raises(ValueError, match="half a snippet"):
        sensor_snippets(signal[:1], np.zeros(1), 0.5)
    gap = sensor_snippets(signal, np.array([0, 0.1, 0.2, 2.0, 2.1]), 0.5)
    assert np.isfinite(gap).all()


@pytest.mark.parametrize("rate", [2.0, 13.0, 50.0])
def test_samples_line_by_line_are_the_snippets_of_the_whole(rate: float) -> None:
    """Also where a snippet of half a second has one sample, or no whole number of them."""
    signal = np.random.default_rng(0).normal(size=(round(rate * 10.3), 3)).astype(np.float32)
    lines = [",".join(f"{value:.9g}" for value in row) for row in signal]
    streamed = np.concatenate(list(snippets_of(lines, 3, 0.5 * rate)))
    np.testing.assert_allclose(streamed, sensor_snippets(signal, np.arange(len(signal)) / rate, 0.5), atol=1e-6)


def test_sensor_files_with_and_without_times(tmp_path: Path) -> None:
    rows = np.random.default_rng(0).normal(size=(100, 2))
    milliseconds = 1.65e12 + np.arange(100) * 20
    table = np.column_stack([milliseconds, rows])
    np.savetxt(tmp_path / "t.csv", table, delimiter=",", header="time,x,y", comments="", fmt="%.10f")
    np.save(tmp_path / "t.npy", rows)
    timed, channels = read_sensors(tmp_path / "t.csv", 0.5, None)
    plain, _ = read_sensors(tmp_path / "t.npy", 0.5, 50.0)
    assert channels == 2
    np.testing.assert_allclose(timed, plain, atol=1e-5)
    with pytest.raises(InputError, match=r"data\.rate"):
        read_sensors(tmp_path / "t.npy", 0.5, None)


def test_a_folder_with_scores_classes_and_subsets(tmp_path: Path) -> None:
    database = {}
    for number, subset in enumerate(("training", "validation", "testing")):
        for kind in ("features", "scores"):
            (tmp_path / kind).mkdir(exist_ok=True)
            np.save(tmp_path / kind / f"v{number}.npy", np.full((10, 2 if kind == "scores" else 4), float(number)))
        segment = {"segment": [1, 3], "label": "cut"}
        database[f"v{number}"] = {"subset": subset, "duration": 5.0, "annotations": [segment]}
    (tmp_path / "annotations.json").write_text(json.dumps({"database": database}))
    (tmp_path / "classes.txt").write_text("cut\nstir\n")
    corpus = load_corpus(tmp_path, DataConfig())
    assert corpus.labels == corpus.scored == ("cut", "stir")
    assert [len(part) for part in corpus.split(0).values()] == [1, 1, 1]
    assert corpus.recordings[0].step == 0.5
    assert corpus.recordings[0].semantics is not None
    by_file = load_corpus(tmp_path / "annotations.json", DataConfig())
    assert by_file.sha256 == corpus.sha256


def test_watch_streams_are_the_same_each_time_and_labelled_where_they_move() -> None:
    from apps.action.readers.watch import RATE, compose_streams

    streams = compose_streams()
    name, person, signal, segments = streams[0]
    assert len(streams) == 20
    assert len(segments) == 14
    np.testing.assert_array_equal(signal, compose_streams()[0][2])
    moving = np.zeros(len(signal), bool)
    for segment in segments:
        moving[int(segment.start * RATE) : int(segment.end * RATE)] = True
    energy = np.abs(np.diff(signal, axis=0, prepend=signal[:1])).mean(1)
    assert energy[moving].mean() > 1.5 * energy[~moving].mean()
    assert name.startswith(f"person-{person:02d}")


def test_geotec_and_salads_as_they_are(shared_data: Path) -> None:
    geotec = load_corpus(shared_data / "action" / "geotec_phone_imu.npz", DataConfig())
    assert len(geotec.recordings) == 223
    assert len({recording.group for recording in geotec.recordings}) == 23
    for fold in range(5):
        parts = geotec.split(fold)
        groups = [{recording.group for recording in part} for part in parts.values()]
        assert not groups[0] & groups[1] | groups[1] & groups[2] | groups[0] & groups[2]
    salads = load_corpus(shared_data / "action" / "salads50_scores.tar.gz", DataConfig())
    assert [len(part) for part in salads.split(2).values()] == [30, 10, 10]
    assert len(salads.labels) == 17
    with pytest.raises(InputError, match="ED-TCN"):
        load_corpus(shared_data / "action" / "salads50_scores.tar.gz", DataConfig(scores="I3D"))


def test_a_model_of_salads_reads_class_scores_of_a_users(tmp_path: Path, tiny: list[str]) -> None:
    """An archive of our own making; the same scores as an array give the same detections."""
    import scipy.io

    from apps.action.config import ActionConfig
    from apps.action.detector import detections_of, load, read_for
    from apps.action.inspect import inspect
    from apps.action.train import train
    from shared.config import load_config
    from shared.training.trainer import Hardware

    rng = np.random.default_rng(0)
    for split in range(1, 6):
        folder = tmp_path / "50Salads" / "mid" / "mid_video_tCNN_C36"
        folder.mkdir(parents=True, exist_ok=True)
        cells = {"S": np.empty((1, 2), object), "Y": np.empty((1, 2), object)}
        for video in range(2):
            truth = np.repeat(rng.integers(0, 4, 8), 5)
            cells["S"][0, video] = rng.dirichlet(np.ones(4), 40) + np.eye(4)[truth]
            cells["Y"][0, video] = truth[:, None]
        scipy.io.savemat(folder / f"Split_{split}.mat", cells)
    config = load_config(ActionConfig, None, [*tiny, "train.epochs=1", "detect.classes=both"])
    train(config, tmp_path, tmp_path / "run", seed=0, resume=False, hardware=Hardware(device="cpu"))
    detector, recording = load(tmp_path / "run", "cpu"), load_corpus(tmp_path, DataConfig()).recordings[0]
    assert recording.semantics is not None
    np.save(tmp_path / "mine.npy", recording.semantics)
    mine = read_for(detector, tmp_path / "mine.npy")
    np.testing.assert_allclose(mine.features, recording.features, atol=1e-5)
    ours, theirs = (detections_of(detector, one)[:20] for one in (mine, recording))
    problems = inspect(tmp_path, DataConfig())["problems"]
    assert problems == []
    assert [(d.start, d.end, d.label) for d in ours] == [(d.start, d.end, d.label) for d in theirs]
    assert [d.score for d in ours] == pytest.approx([d.score for d in theirs], abs=1e-4)


def test_naive_grouping_of_the_given_scores_of_salads(shared_data: Path) -> None:
    """The figure that the app is measured against: 33 %."""
    from apps.action.evaluate import given_grouping
    from apps.action.metrics import LOOSE, mean_average_precision

    corpus = load_corpus(shared_data / "action" / "salads50_scores.tar.gz", DataConfig())
    truth = {recording.name: recording.segments for recording in corpus.recordings}
    found = given_grouping(corpus, corpus.recordings)
    assert found is not None
    assert mean_average_precision(truth, found, LOOSE)[0].mean() == pytest.approx(0.331, abs=0.002)


def test_thumos_truth_has_no_durations(shared_data: Path) -> None:
    found = read_annotations(shared_data / "action" / "thumos_gt.json")
    assert len(found) == 410
    assert all(entry.duration is None for entry in found.values())
    assert found["video_test_0000896"].segments[0].start == 18.6
