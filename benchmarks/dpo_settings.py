"""Train from one run's baseline and pairs with several settings; score each on the validation split, not the test split.

    python benchmarks/dpo_settings.py runs/demo

Prints a table and writes benchmarks/results/dpo_settings.json. `docs/evidence/log.md` tells what came of it.
"""

import json
import statistics
import sys
import tempfile
import time
from pathlib import Path

from chexalign.jsonl import read_records, write_json
from chexalign.judges import load as load_judge
from chexalign.policies import Policy
from chexalign.policies.forward.generate import stream_seed
from chexalign.recipe.files import load_recipe
from chexalign.records import Pair, Study
from chexalign.run.folder import Run
from chexalign.run.policies import open_policy, prompts_for
from chexalign.stages.train import training_examples
from chexalign.train.loop import Trainer, steps_for
from chexalign.train.loop_settings import LoopFiles, LoopSettings
from chexalign.train.preference.scoring_task import ScoringTask

SETTINGS = [
    ["train.algorithm={type: sft}", "train.lr=1e-4"],
    ["train.algorithm={type: dpo, beta: 0.1}", "train.lr=1e-4"],
    ["train.algorithm={type: dpo, beta: 0.1, nll: 0.1}", "train.lr=3e-4"],
    ["train.algorithm={type: dpo, beta: 0.5, nll: 0.5}", "train.lr=1e-4"],
    ["train.algorithm={type: dpo, beta: 1.0, nll: 1.0}", "train.lr=1e-4"],
    ["train.algorithm={type: dpo, beta: 1.0, nll: 2.0}", "train.lr=2e-4"],
]
SAMPLES, BATCH = 4, 32
JUDGES = ("chexpert_rule_f1", "finding_f1")


def score(run: Run, policy: Policy, studies: list[Study]) -> dict[str, float]:
    """Mean scores over the studies: `SAMPLES` reports each at temperature 1, one greedy."""
    prompts, out = prompts_for(run, policy, studies), {}
    for name, n, temperature in (("temperature_1", SAMPLES, 1.0), ("greedy", 1, 0.0)):
        texts, references = [], []
        for start in range(0, len(studies), BATCH):
            batch = studies[start : start + BATCH]
            seeds = [stream_seed(17, s.study_id) for s in batch]
            groups = policy.generate(prompts[start : start + BATCH], n, temperature, 96, seeds)
            texts += [policy.text(one.tokens) for group in groups for one in group]
            references += [s.findings for s in batch for _ in range(n)]
        for judge in JUDGES:
            answers = load_judge(judge).score(texts, references)
            out[f"{name}/{judge}"] = round(statistics.fmean(a.score for a in answers if a.score is not None), 4)
    return out


def main() -> None:
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "runs/demo")
    run = Run(load_recipe("demo", [f"run_dir={folder}"]), folder, {})
    studies = [s for s in read_records(run.path("studies.jsonl"), Study) if s.split == "val"]
    pairs = read_records(run.path("pairs.jsonl"), Pair)
    rows = [{"settings": "baseline", **score(run, open_policy(run, "baseline"), studies)}]
    print(rows[0], flush=True)
    for overrides in SETTINGS:
        train = load_recipe("demo", overrides).train
        policy = open_policy(run, "baseline")
        policy.freeze(train.freeze)
        task = ScoringTask(policy, train.algorithm)
        examples, start = training_examples(run, policy, pairs, task), time.perf_counter()
        with tempfile.TemporaryDirectory() as work:
            settings = LoopSettings(
                steps=steps_for(len(examples), train.batch_size, train.epochs),
                lr=train.lr,
                batch_size=train.batch_size,
                micro_batch_size=train.micro_batch_size,
                seed=0,
                save_every=1 << 30,
            )
            Trainer(task, examples, settings, LoopFiles(Path(work), Path(work) / "log.jsonl"), "training").run()
        seconds = round(time.perf_counter() - start, 1)
        rows.append({"settings": ", ".join(overrides), "seconds": seconds, **score(run, policy, studies)})
        print(json.dumps(rows[-1]), flush=True)
    write_json(
        Path(__file__).parent / "results/dpo_settings.json",
        {"n_studies": len(studies), "n_pairs": len(pairs), "samples": SAMPLES, "rows": rows},
    )


if __name__ == "__main__":
    main()
