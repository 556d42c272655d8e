"""Relative attention four ways, side by side in one run: blocked, skew + softmax, Shaw's pairs, no relative term.

    uv run python benchmarks/attention.py [--lengths 512,1024,2048,4096] [--out runs/benchmarks]

Every case runs in a process of its own, so that its peak memory is its own: the highest resident size while it works,
less that before it began. Times are the median of several repeats. Prints a table and writes attention.json and
attention.png.
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

DIM, HEADS = 256, 8
WAYS = ("no relative", "blocked", "skew + softmax", "Shaw")
MOST_BYTES = 6e9  # of one tensor; a case that needs more is left out


def measure(way: str, length: int, backward: bool, repeats: int) -> dict:
    """Seconds and peak MiB of one case, in this process."""
    import torch

    from shared.attention.distance import shaw_logits, skew
    from shared.attention.functional import causal_mask, merge_heads, plain_attention, split_heads
    from shared.attention.relative import RelativeAttention

    torch.manual_seed(0)
    module = RelativeAttention(DIM, HEADS, 0 if way == "no relative" else length)
    x = torch.randn(1, length, DIM)
    mask = causal_mask(length, length)

    def written_out(x: "torch.Tensor") -> "torch.Tensor":
        q, k, v = (split_heads(part, HEADS) for part in module.qkv(x).chunk(3, -1))
        assert module.distance is not None
        if way == "Shaw":
            bias = shaw_logits(q, module.distance, length, causal=True)
        else:
            bias = skew(torch.nn.functional.pad(q @ module.distance.transpose(-2, -1), (0, 1)), length)
        return module.out(merge_heads(plain_attention(q, k, v, bias=bias / (DIM / HEADS) ** 0.5, mask=mask)[0]))

    forward = module if way in ("blocked", "no relative") else written_out

    def once() -> None:
        if backward:
            module.zero_grad(set_to_none=True)
            forward(x).square().mean().backward()
        else:
            with torch.no_grad():
                forward(x)

    warm = torch.randn(1, 16, DIM)
    with torch.no_grad():
        module(warm)  # libraries load their parts before memory is read
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
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
    parser.add_argument("--lengths", default="512,1024,2048,4096")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--out", type=Path, default=Path("runs/benchmarks"))
    parser.add_argument("--case", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.case:
        print(json.dumps(measure(**json.loads(given.case))))
        return
    rows = []
    for backward in (False, True):
        for length in (int(text) for text in given.lengths.split(",")):
            for way in WAYS:
                if way == "Shaw" and 4 * HEADS * length**2 * (DIM // HEADS) > MOST_BYTES:
                    continue
                case = {"way": way, "length": length, "backward": backward, "repeats": given.repeats}
                command = [sys.executable, __file__, "--case", json.dumps(case)]
                row = {**case, **json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)}
                rows.append(row)
                print(
                    f"{'forward + backward' if backward else 'forward':18} {length:5} {way:15}"
                    f" {1000 * row['seconds']:9.1f} ms {row['peak_mib']:8.0f} MiB",
                    flush=True,
                )
    write(rows, given.out)


def write(rows: list[dict], out: Path) -> None:
    """attention.json, attention.png, and the ratios that the docs quote."""
    from shared.io.files import output_folder, write_json
    from shared.report.figures import new_figure, save_figure

    output_folder(out)
    write_json(out / "attention.json", rows)
    figure = new_figure(9, 6)
    for column, (key, label, factor) in enumerate((("seconds", "milliseconds", 1000), ("peak_mib", "peak MiB", 1))):
        for line, backward in enumerate((False, True)):
            ax = figure.add_subplot(2, 2, 1 + column + 2 * line)
            for way in WAYS:
                mine = [row for row in rows if row["way"] == way and row["backward"] is backward]
                ax.plot([r["length"] for r in mine], [max(1e-3, factor * r[key]) for r in mine], "o-", label=way)
            ax.set(xscale="log", yscale="log", xlabel="length", ylabel=label)
            ax.set_title("forward + backward" if backward else "forward")
            ax.legend(fontsize=7)
    save_figure(figure, out / "attention.png")
    by = {(row["way"], row["length"], row["backward"]): row for row in rows}
    for backward in (False, True):
        for length in sorted({row["length"] for row in rows}):
            ours, skewed = by[("blocked", length, backward)], by[("skew + softmax", length, backward)]
            slower, larger = skewed["seconds"] / ours["seconds"], skewed["peak_mib"] / max(1, ours["peak_mib"])
            print(
                f"{'forward + backward' if backward else 'forward':18} {length:5}: skew + softmax takes"
                f" {slower:.1f} times as long, {larger:.1f} times the memory"
            )
    print(f"written: {out / 'attention.json'}, {out / 'attention.png'}")


if __name__ == "__main__":
    main()
