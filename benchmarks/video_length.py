"""Videos that grow: `propagate` and `discover` on the street of `bikes.mp4`, played again and again.

Frames are 96 pixels high. A case writes all that the commands write: masks, overlay, run lengths, sheet. Peak memory is
that of the working process; the decoder's own, in its child process, is that of one chunk.
"""

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

SIDE, PART = 96, 15  # pixels, and frames that are repeated
FORMS = ("propagate", "discover")
SAME = ()
AXIS = "frames"
SIZES = (15, 60, 240)
MODES = ("whole command",)
BIKES = Path(__file__).parents[1] / "data" / "bikes.mp4"


def prepare(form: str, size: int, mode: str) -> Callable[[], object]:
    import numpy as np

    from apps.video.config import VideoConfig
    from apps.video.discover import discover
    from apps.video.masks import write_mask
    from apps.video.propagate import propagate
    from shared.io.video import Video, write_video

    holder = tempfile.TemporaryDirectory()
    folder = Path(holder.name)
    with Video(BIKES, SIDE) as video:
        frames = video.read(range(PART))
    height, width = frames.shape[1:3]

    def repeated(count: int) -> Iterator:
        return (frames[i % PART] for i in range(count))

    clip, short = (write_video(folder / name, repeated(n), 25) for name, n in (("a.mp4", size), ("b.mp4", 4)))
    mask = np.zeros((height, width + width % 2), np.uint8)
    mask[height // 3 : 2 * height // 3, width // 3 : width // 2] = 1
    write_mask(folder / "mask.png", mask)
    config = VideoConfig()

    def work(source: Path = clip) -> dict:
        assert holder  # the folder lasts as long as the work
        if form == "propagate":
            return propagate(config, source, folder / "mask.png", folder / "out", device="cpu")
        return discover(config, source, folder / "out", method="salient", device="cpu")

    work(short)  # libraries load their parts before memory is read
    return work
