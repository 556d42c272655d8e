"""`report`: what a musician asks of generated music: how new is it, and how well are the voices led?"""

from pathlib import Path
from typing import Any

import numpy as np

from apps.music import novelty
from apps.music.corpora import read_corpus
from apps.music.figures import piano_roll
from apps.music.midi import read_grid, read_notes, read_tempo, read_tracks
from apps.music.voice_leading import KINDS, summarise, voice_leading
from shared.errors import InputError
from shared.io.files import output_folder, write_json
from shared.report.page import Section, write_page

MOST_MARKS = 100  # of a piece that the page lists; report.json has all


def report(files: list[Path], data: Path | None, codec: str, out: Path) -> dict:
    """Compare MIDI files with the training pieces of `data` (None: music21's chorales): report.html and report.json.

    Novelty: the longest run of notes shared with a training piece, with its source and bar. Chorales: where the voice
    leading would be marked, and how often, beside held-out pieces (those that no model trained on this data has seen).
    Raises InputError for a file that cannot be read and for data without training pieces.
    """
    if not files:
        raise InputError("report: name at least one MIDI file")
    chorale = codec == "chorale"
    music: list[Any] = [read_grid(path) if chorale else read_notes(path) for path in files]
    corpus = read_corpus(data, codec)
    training, held_out = corpus.splits["train"], corpus.splits["test"] or corpus.splits["valid"]
    if not training:
        raise InputError(f"{corpus.name}: its train split is empty; give data with pieces to compare with")
    output_folder(out)
    found, sections, rolls = [], [], []
    for path, piece, name in zip(files, music, _names(files), strict=True):
        result = novelty.longest_shared_run(piece, training)
        found.append({"file": str(path), "sentences": novelty.describe(result), **result})
        roll = out / f"{name}.png"
        piano_roll(roll, read_tracks(path), name, bar_seconds=240 / read_tempo(path) if chorale else None)
        rolls.append(roll)
        text = "\n\n".join(novelty.describe(result))
        marks = mark_table(piece) if chorale else []
        if chorale:
            found[-1]["marks"] = marks
            text += f"\n\n{_counted(marks)}"
        sections.append(Section(name, text, figures=[roll], table=marks[:MOST_MARKS] or None))
    result = {"data": corpus.name, "pieces_compared": len(training), "novelty": found}
    if chorale and held_out:
        from apps.music.codecs.chorale import decode

        rows = leading_table(music, [decode(piece.variants[0]) for piece in held_out])
        result["voice_leading"] = rows
        text = (
            "Marks for each 100 changes of chord, mean over pieces. Bach breaks each of these rules now and then; a "
            f"number near that of the {len(held_out)} held-out pieces is what to hope for, not zero."
        )
        sections.insert(0, Section("Voice leading", text, table=rows))
    intro = f"Compared with the {len(training)} training pieces of {corpus.name}."
    write_page(out / "report.html", "Report on generated music", sections, intro)
    write_json(out / "report.json", result)
    return {**result, "page": str(out / "report.html"), "written": [str(path) for path in rolls]}


def _names(files: list[Path]) -> list[str]:
    """The files' names without their endings; of those that would be the same, with a number."""
    names: list[str] = []
    for path in files:
        number = 1 + sum(path.stem == other.stem for other in files[: len(names)])
        names.append(path.stem if number == 1 else f"{path.stem} ({number})")
    return names


def mark_table(grid: np.ndarray) -> list[dict]:
    """A row for each mark in a chorale (T, 4), in the order of the score: bar and beat from 1, kind, voices."""
    return [
        {
            "bar": mark["bar"],
            "beat": mark["beat"],
            "mark": mark["kind"].replace("_", " "),
            "voices": ", ".join(mark["voices"]),
        }
        for mark in voice_leading(grid)["marks"]
    ]


def _counted(marks: list[dict]) -> str:
    shown = f", of which the first {MOST_MARKS} are listed" if len(marks) > MOST_MARKS else ""
    return f"Voice leading: {len(marks) or 'no'} mark{'s' * (len(marks) != 1)}{shown}."


def leading_table(made: list, held_out: list) -> list[dict]:
    """A row for each kind of mark: generated beside held-out, marks for each 100 changes of chord."""
    ours, theirs = summarise(made)["per_100_changes"], summarise(held_out)["per_100_changes"]
    return [
        {"mark": kind.replace("_", " "), "generated": round(ours[kind], 2), "held_out": round(theirs[kind], 2)}
        for kind in KINDS
    ]
