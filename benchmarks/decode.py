"""Checking full-size JPEGs: every file decoded once, as the stage `studies` does, beside one `load_image` after another.

    python benchmarks/decode.py 400 --rounds 3 --before ../other-checkout/src

The films are made here: 2544 × 3056 pixels, smooth with noise, quality 95, some 2 MB each. With --before, the plain loop is
that checkout's. The two sides take turns; ratios are per round.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

HERE = Path(__file__).resolve().parents[1] / "src"
PLAIN = """
import sys, time
from pathlib import Path
from chexalign.data.images import load_image
root, start = Path(sys.argv[1]), time.perf_counter()
for path in sorted(root.iterdir()):
    load_image(root, path.name)
print(time.perf_counter() - start)
"""
CHECKED = """
import sys, time
from pathlib import Path
from chexalign.data.decode_check import Job
from chexalign.data.decode_workers import decoding
root, start = Path(sys.argv[1]), time.perf_counter()
jobs = [Job(str(root), path.name) for path in sorted(root.iterdir())]
with decoding(sum(p.stat().st_size for p in root.iterdir())) as check:
    assert not [c for c in check(jobs) if c.error]
print(time.perf_counter() - start)
"""


def make_films(folder: Path, count: int, height: int = 3056, width: int = 2544) -> None:
    """`count` JPEGs of one size, each with noise of its own."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[0:height, 0:width].astype(np.float32) / np.array([height, width], np.float32).reshape(2, 1, 1)
    film = 120 + 80 * np.sin(6 * x) * np.cos(4 * y)
    noise = rng.normal(0, 6, (height, width)).astype(np.float32)
    for k in range(count):
        shifted = film + np.roll(noise, (37 * k, 91 * k), (0, 1))
        Image.fromarray(np.clip(shifted, 0, 255).astype(np.uint8)).save(folder / f"{k:04d}.jpg", quality=95)


def seconds(code: str, source: Path, folder: Path) -> float:
    """What one side takes, in a process of its own; starting Python is not counted, starting workers is."""
    environment = {**os.environ, "PYTHONPATH": str(source), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", code, str(folder)], env=environment, capture_output=True, text=True, check=True
    )
    return float(done.stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("count", type=int, nargs="?", default=400)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--before", type=Path, default=HERE)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        make_films(Path(folder), arguments.count)
        megabytes = sum(p.stat().st_size for p in Path(folder).iterdir()) / 1e6
        before, after = [], []
        for _ in range(arguments.rounds):
            before.append(seconds(PLAIN, arguments.before, Path(folder)))
            after.append(seconds(CHECKED, HERE, Path(folder)))
    ratios = [b / a for b, a in zip(before, after, strict=True)]
    measured = {
        "films": arguments.count,
        "megabytes": round(megabytes, 1),
        "cores": len(os.sched_getaffinity(0)),
        "films_per_second_before": round(arguments.count / statistics.median(before), 2),
        "films_per_second_after": round(arguments.count / statistics.median(after), 2),
        "ratio_median": round(statistics.median(ratios), 2),
        "ratio_min_max": [round(min(ratios), 2), round(max(ratios), 2)],
        "rounds": arguments.rounds,
        "at": time.strftime("%Y-%m-%d"),
    }
    print(json.dumps(measured, indent=1))


if __name__ == "__main__":
    main()
