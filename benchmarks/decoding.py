"""Decoding with the key/value cache against reading everything again for each token, side by side in one run.

    uv run python benchmarks/decoding.py [--length 2048] [--out runs/benchmarks]

The model has the size of the paper's piano model (6 layers, width 256, 512 in attention, 8 heads). Prints the cost of a
token by position; the ratio is that of tokens a second at `--length`.
"""

import argparse
import statistics
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--length", type=int, default=2048)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path("runs/benchmarks"))
    given = parser.parse_args()

    import torch

    from apps.music.model import MusicTransformer
    from shared.io.files import output_folder, write_json

    torch.manual_seed(0)
    model = MusicTransformer(391, 256, 512, 8, 6, 1024, 0.0, max_distance=given.length).eval()
    tokens = torch.randint(0, 388, (1, given.length))
    positions = [p for p in (128, 256, 512, 1024, 2048, 4096) if p <= given.length]
    rows = []
    with torch.inference_mode():
        cache, spent = model.new_cache(given.length), []
        for i in range(given.length):
            start = time.perf_counter()
            model(tokens[:, i : i + 1], cache=cache)
            spent.append(time.perf_counter() - start)
        for position in positions:
            cached = statistics.median(spent[position - 32 : position])
            times = []
            for _ in range(given.repeats):
                start = time.perf_counter()
                model(tokens[:, :position])
                times.append(time.perf_counter() - start)
            uncached = statistics.median(times)
            rows.append(
                {
                    "position": position,
                    "cached_ms": 1e3 * cached,
                    "uncached_ms": 1e3 * uncached,
                    "ratio": uncached / cached,
                }
            )
    for row in rows:
        cached, uncached = row["cached_ms"], row["uncached_ms"]
        print(
            f"position {row['position']:5}: {cached:.2f} ms a token cached, {uncached:.1f} uncached,"
            f" {row['ratio']:.1f} x"
        )
    print(f"cached: {given.length / sum(spent):.0f} tokens a second over {given.length} tokens")
    output_folder(given.out)
    write_json(given.out / "decoding.json", {"rows": rows, "tokens_per_second": given.length / sum(spent)})


if __name__ == "__main__":
    main()
