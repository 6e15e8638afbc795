"""The tiny tower's warm-up with and without its centred start: mean validation AUC over the findings.

python benchmarks/tower_start.py runs/demo
"""

import json
import sys
import tempfile
from pathlib import Path

import torch

from chexalign.jsonl import read_records, write_json
from chexalign.labels.studies import FINDINGS, finding_labels
from chexalign.policies import Policy
from chexalign.policies.checkpoints.tiny import build_tiny
from chexalign.recipe.files import load_recipe
from chexalign.recipe.policy import TinyPolicy
from chexalign.records import Study
from chexalign.run.folder import Run
from chexalign.run.policies import prompts_for
from chexalign.stages.warmup import CENTRE_IMAGES
from chexalign.train.loop import Trainer
from chexalign.train.loop_settings import LoopFiles, LoopSettings
from chexalign.train.warmup.tower import TowerTask, centre_start, tower_examples, validate_tower

STEPS, SEEDS = 150, (0, 1)


def one(run: Run, studies: dict[str, list[Study]], centred: bool, seed: int) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as folder:
        build_tiny(TinyPolicy(), [s.findings for s in studies["train"][:50]], Path(folder) / "tiny", seed)
        policy = Policy.load(Path(folder) / "tiny")
        task = TowerTask(policy, len(FINDINGS), seed)
        train, val = (
            tower_examples(policy, prompts_for(run, policy, studies[k]), [finding_labels(s) for s in studies[k]])
            for k in ("train", "val")
        )
        if centred:
            centre_start(policy.part("tower"), torch.stack([e.pixels for e in train[:CENTRE_IMAGES]]).float())
        settings = LoopSettings(steps=STEPS, lr=2e-3, batch_size=64, micro_batch_size=64, seed=seed, save_every=1 << 30)
        Trainer(task, train, settings, LoopFiles(Path(folder) / "work", Path(folder) / "log.jsonl"), "tower").run()
        with torch.no_grad():
            return validate_tower(task, val)


def main() -> None:
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "runs/demo")
    run = Run(load_recipe("demo", [f"run_dir={folder}"]), folder, {})
    rows = read_records(run.path("studies.jsonl"), Study)
    studies = {k: [s for s in rows if s.split == k] for k in ("train", "val")}
    found = []
    for seed in SEEDS:
        for centred in (False, True):
            found.append({"centred": centred, "seed": seed, **one(run, studies, centred, seed)})
            print(json.dumps(found[-1]), flush=True)
    write_json(
        Path(__file__).parent / "results/tower_start.json",
        {"steps": STEPS, "n_val": len(studies["val"]), "rows": found},
    )


if __name__ == "__main__":
    main()
