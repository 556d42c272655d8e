"""Position attention two ways, side by side in one run: the fused kernel with zero-padding, and the direct form.

    uv run python benchmarks/position_attention.py [--positions 1024,4096] [--out runs/benchmarks]

128 channels, 16 for queries and keys, one map. Each case runs in a process of its own, so that its peak memory is its
own. Times are the median of several repeats. Prints a table and writes position_attention.json.
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

DIM = 128


def measure(way: str, positions: int, backward: bool, repeats: int) -> dict:
    """Seconds and peak MiB of one case, in this process."""
    import torch

    from shared.attention.guided import PositionAttention

    torch.manual_seed(0)
    module = PositionAttention(DIM, direct_up_to=0 if way == "fused" else positions)
    side = round(positions**0.5)
    x = torch.randn(1, DIM, side, side)

    def once() -> None:
        if backward:
            module(x).square().mean().backward()
        else:
            with torch.no_grad():
                module(x)

    with torch.no_grad():
        module(x[..., :4, :4])
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        once()
        times.append(time.perf_counter() - start)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {"seconds": statistics.median(times), "peak_mib": (peak - before) / 1024}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--positions", default="1024,4096")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--out", type=Path, default=Path("runs/benchmarks"))
    parser.add_argument("--case", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.case:
        print(json.dumps(measure(**json.loads(given.case))))
        return
    from shared.io.files import write_json

    rows = []
    for backward in (False, True):
        for positions in (int(text) for text in given.positions.split(",")):
            for way in ("fused", "direct"):
                case = {"way": way, "positions": positions, "backward": backward, "repeats": given.repeats}
                command = [sys.executable, __file__, "--case", json.dumps(case)]
                done = subprocess.run(command, check=True, capture_output=True, text=True)
                rows.append({**case, **json.loads(done.stdout)})
                what = "forward + backward" if backward else "forward"
                ms, mib = 1000 * rows[-1]["seconds"], rows[-1]["peak_mib"]
                print(f"{what:18} {positions:5} {way:6} {ms:9.1f} ms {mib:8.0f} MiB", flush=True)
    write_json(given.out / "position_attention.json", rows)


if __name__ == "__main__":
    main()
