"""The arms and tables of docs/evidence/impressions.md.

python benchmarks/rgro_openi.py [key=value …] [--out DIR] [--arms NAME …]

Runs recipes/rgro_openi.yaml for every arm below into DIR (runs/rgro by default) and prints a table of those that are finished:
SFT (the run's baseline), the aligned policy and their paired difference, means over the test studies with 90 % bootstrap
intervals. Arms of one share have its SFT adapter and its samples in common. Interrupted, the same command goes on.
`--tables` prints without running; `--decoding temperature_1` instead of greedy; `--abnormal` for those studies alone.
"""

from __future__ import annotations

import argparse
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from chexalign import stats
from chexalign.jsonl import read_json, read_records, write_json
from chexalign.recipe.files import load_recipe
from chexalign.records import Verdict
from chexalign.run.folder import STAGES
from chexalign.stages.runner import run_stages

SHARED = ("studies", "warmup", "sample", "score")  # stages that the arms of one share have in common
ARMS: dict[str, tuple[str, list[str]]] = {  # arm → the arm it grows from (itself: none), and its settings
    "70": ("70", ["sample.n=4"]),
    "50": ("50", ["warmup.share=0.5"]),
    "80": ("80", ["warmup.share=0.8"]),
    "70-sft": ("70", ["sample.n=4", "train.algorithm=sft"]),  # the fair control: SFT on the chosen texts of the pairs
    "70-reference_worst": ("70", ["sample.n=4", "pairs.rule=reference_worst"]),
    "70-best_worst": ("70", ["sample.n=4", "pairs.rule=best_worst"]),
}
BOOT: dict[str, Any] = {"n_boot": 1000, "seed": 0, "level": 0.9}
BERT = "bertscore[minilm-l6:L6]"
JUDGES = ("rouge_1", "rouge_2", "rouge_l", f"{BERT} precision", f"{BERT} recall", BERT, "chexpert_rule_f1")
COLUMNS = (*JUDGES, "finding_consistency", "words")


def run_arm(name: str, out: Path, overrides: Sequence[str]) -> None:
    trunk, own = ARMS[name]
    folder = out / name
    if trunk != name and not folder.exists():
        branch(out / trunk, folder)
    settings = [*overrides, *own, f"run_dir={folder}", *(["evaluate.untuned=false"] if name != "70" else [])]
    run_stages(load_recipe("rgro_openi", settings), list(STAGES))


def branch(trunk: Path, folder: Path) -> None:
    """A run folder with everything of `trunk` up to its verdicts, and what its baseline wrote about the test studies."""
    fresh = folder.with_name(f".{folder.name}.new")
    shutil.rmtree(fresh, ignore_errors=True)
    (fresh / "evaluation").mkdir(parents=True)
    for name in (name for stage in SHARED for name in STAGES[stage].writes if (trunk / name).exists()):
        (shutil.copytree if (trunk / name).is_dir() else shutil.copy)(trunk / name, fresh / name)
    for path in (trunk / "evaluation").glob("baseline.*"):
        shutil.copy(path, fresh / "evaluation")
    manifest = read_json(trunk / "manifest.json")
    manifest["stages"] = {name: manifest["stages"][name] for name in SHARED}
    write_json(fresh / "manifest.json", manifest)
    fresh.rename(folder)


def scores_of(run: Path, which: str, decoding: str, abnormal: bool) -> dict[str, list[float | None]]:
    """Judge → one score per study; BERTScore's precision and recall beside its F."""
    rows = [json.loads(line) for line in (run / "evaluation" / "per_study.jsonl").read_text().splitlines()]
    rows = [r for r in rows if (r["policy"], r["decoding"]) == (which, decoding) and r["abnormal"] >= abnormal]
    found: dict[str, list[float | None]] = {judge: [r["scores"][judge] for r in rows] for judge in rows[0]["scores"]}
    found["words"] = [float(r["words"]) for r in rows]
    verdicts = read_records(run / "evaluation" / f"{which}.{decoding}.verdicts.jsonl", Verdict)
    details = {v.study_id: v.details for v in verdicts if v.judge == BERT}
    for part in ("precision", "recall"):
        found[f"{BERT} {part}"] = [details[r["study_id"]].get(part) for r in rows]
    return found


def words(cell: dict[str, Any], signed: bool = False) -> str:
    mean, low, high = cell["mean"], cell["low"], cell["high"]
    if signed:
        return f"{mean:+.3f} [{low:+.3f}, {high:+.3f}]"
    return f"{mean:.3f} ±{(high - low) / 2:.3f}" if abs(mean) < 2 else f"{mean:.1f}"


def rows_of(name: str, run: Path, decoding: str, abnormal: bool) -> list[list[str]]:
    """The arm's table rows; where the untuned model was evaluated, it and the best fixed impression come first."""
    policies = {p.name.split(".")[0] for p in (run / "evaluation").glob(f"*.{decoding}.verdicts.jsonl")}
    titles = {"untuned": "untuned", "baseline": f"SFT-{name.partition('-')[0]}", "aligned": f"aligned: {name}"}
    sides = {which: scores_of(run, which, decoding, abnormal) for which in titles if which in policies}
    rows = [
        [f"{titles[w]} (n {len(side['words'])})", *(words(stats.mean_cell(side[c], **BOOT)) for c in COLUMNS)]
        for w, side in sides.items()
    ]
    if "untuned" in policies:
        fixed = read_json(run / "results.json")["controls"]["template"]
        cells = fixed["abnormal_scores" if abnormal else "scores"]
        rows.insert(0, [f"always “{fixed['text']}”", *(words(cells[c]) if c in cells else "–" for c in COLUMNS)])
    pairs = [(sides["baseline"][c], sides["aligned"][c]) for c in COLUMNS]
    return [*rows, ["difference", *(words(stats.paired_difference(a, b, **BOOT), signed=True) for a, b in pairs)]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="changes to the recipe")
    parser.add_argument("--out", type=Path, default=Path("runs/rgro"))
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=list(ARMS))
    parser.add_argument("--tables", action="store_true")
    parser.add_argument("--decoding", default="greedy", choices=("greedy", "temperature_1"))
    parser.add_argument("--abnormal", action="store_true")
    given = parser.parse_args()
    for name in given.arms if not given.tables else ():
        run_arm(name, given.out, given.overrides)
    lines = [["", *COLUMNS], ["---"] * (len(COLUMNS) + 1)]
    for name in given.arms:
        if (given.out / name / "results.json").is_file():
            lines += rows_of(name, given.out / name, given.decoding, given.abnormal)
    print("\n".join(f"| {' | '.join(line)} |" for line in lines))


if __name__ == "__main__":
    main()
