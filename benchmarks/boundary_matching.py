"""The boundary-matching layer, sparse and dense, side by side in one run: time and peak memory.

    uv run python benchmarks/boundary_matching.py [--sizes 64:32,100:100] [--out runs/benchmarks]

A size is T:D. Every case runs in a process of its own, so that its peak memory is its own. Times are the median of
several repeats, after one that warms up (the sampling matrices are made once for each T and D, in either form).
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

DIM, HIDDEN, BINS = 64, 64, 32


def measure(way: str, snippets: int, longest: int, backward: bool, repeats: int) -> dict:
    """Seconds and peak MiB of one case, in this process."""
    import torch

    from apps.action.boundary_matching import BoundaryMatching, dense_mask, valid_proposals

    torch.manual_seed(0)
    layer = BoundaryMatching(DIM, HIDDEN, longest, BINS)
    x = torch.randn(1, snippets, DIM, requires_grad=backward)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    mask = dense_mask(snippets, longest, BINS).float().view(snippets, -1) if way == "dense" else None
    valid = torch.from_numpy(valid_proposals(snippets, longest))

    def forward() -> "torch.Tensor":
        if mask is None:
            return layer(x)
        sampled = (x.transpose(1, 2) @ mask).view(1, DIM, BINS, -1)
        out = torch.einsum("bcnp,nhc->bph", sampled, layer.weight) + layer.bias
        return out.view(1, longest, snippets, HIDDEN) * valid[None, :, :, None]

    def once() -> None:
        if backward:
            layer.zero_grad(set_to_none=True)
            forward().square().mean().backward()
        else:
            with torch.no_grad():
                forward()

    once()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        once()
        times.append(time.perf_counter() - start)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {"seconds": statistics.median(times), "peak_mib": (peak - before) / 1024}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", default="64:32,100:40,100:100")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--out", type=Path, default=Path("runs/benchmarks"))
    parser.add_argument("--case", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.case:
        print(json.dumps(measure(**json.loads(given.case))))
        return
    from shared.io.files import output_folder, write_json

    rows = []
    for size in given.sizes.split(","):
        snippets, longest = (int(part) for part in size.split(":"))
        for backward in (False, True):
            for way in ("sparse", "dense"):
                case = {"way": way, "snippets": snippets, "longest": longest}
                case |= {"backward": backward, "repeats": given.repeats}
                command = [sys.executable, __file__, "--case", json.dumps(case)]
                row = {**case, **json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)}
                rows.append(row)
                print(
                    f"T {snippets:4} D {longest:4} {'forward + backward' if backward else 'forward':18} {way:6}"
                    f" {1000 * row['seconds']:9.1f} ms {row['peak_mib']:8.0f} MiB",
                    flush=True,
                )
    path = output_folder(given.out) / "boundary_matching.json"
    write_json(path, rows)
    print(f"written: {path}")


if __name__ == "__main__":
    main()
