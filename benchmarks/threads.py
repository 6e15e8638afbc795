"""One training step of the tiny tower under the thread settings of docs/evidence/log.md.

    OMP_WAIT_POLICY=PASSIVE python benchmarks/threads.py 2

Run it beside another busy process to see what spinning threads cost.
"""

import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

import torch

from chexalign.policies import Policy
from chexalign.policies.checkpoints.tiny import build_tiny
from chexalign.recipe.policy import TinyPolicy

REPEATS = 7


def main() -> None:
    torch.set_num_threads(int(sys.argv[1]) if len(sys.argv) > 1 else 2)
    with tempfile.TemporaryDirectory() as folder:
        build_tiny(TinyPolicy(), ["There is a small left effusion."], Path(folder) / "tiny", seed=0)
        policy = Policy.load(Path(folder) / "tiny")
    tower, pixels, seconds = policy.part("tower"), torch.randn(64, 3, 96, 96), []
    for _ in range(REPEATS):
        start = time.perf_counter()
        tower(pixels).last_hidden_state.sum().backward()
        seconds.append(time.perf_counter() - start)
    policy_name = os.environ.get("OMP_WAIT_POLICY", "default")
    print(
        f"OMP_WAIT_POLICY={policy_name} threads={torch.get_num_threads()} median {statistics.median(seconds):.3f} s",
        end=" ",
    )
    print(f"of {REPEATS}, {min(seconds):.3f} to {max(seconds):.3f}")


if __name__ == "__main__":
    main()
