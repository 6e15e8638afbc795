"""Zero-shot transfer between two styles of impressions on OpenI: python benchmarks/transfer_openi.py [--out DIR]

The paper moves a model from one hospital to another. OpenI names no hospital, so that this is no test across hospitals: it
splits the reports by how the impression is written. `numbered` begins with "1."; `plain` does not. Every policy learns from
one style (SFT, then RGRO) by recipes/rgro_openi.yaml and is measured on held-out studies of both. Writes
benchmarks/results/transfer_openi.json. An interrupted run goes on where it was.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Sequence
from dataclasses import asdict
from itertools import product
from pathlib import Path
from typing import Any

from chexalign import stats
from chexalign.data import unit_hash
from chexalign.data.masks import unmasked
from chexalign.data.openi import read_openi
from chexalign.jsonl import atomic_write
from chexalign.judges.contract import is_blank
from chexalign.recipe.files import load_recipe
from chexalign.records import Study
from chexalign.run.folder import STAGES
from chexalign.stages.runner import run_stages

HERE = Path(__file__).resolve().parent
STYLES = ("plain", "numbered")
NUMBERED = re.compile(r"\s*1\s*[.)]")
TRAIN, VAL, TEST = 450, 40, 150  # studies of a style; the numbered ones are 779
DECODINGS = ("greedy", "temperature_1")
SEED = 0
BOOT: dict[str, Any] = {"n_boot": 1000, "seed": 0, "level": 0.9}


def style_of(study: Study) -> str:
    return "numbered" if NUMBERED.match(study.impression) else "plain"


def by_style() -> dict[str, list[Study]]:
    """Studies with both sections, in a seeded random order."""
    whole = [s for s in read_openi(None, lambda i: "train") if not (is_blank(s.findings) or is_blank(s.impression))]
    drawn = sorted(whole, key=lambda s: unit_hash("transfer", SEED, s.patient_id))
    return {style: [s for s in drawn if style_of(s) == style] for style in STYLES}


def write_source(style: str, studies: dict[str, list[Study]], path: Path) -> None:
    """Training and validation studies of one style, test studies of both: a source of the kind `jsonl`."""
    rows = [{**asdict(unmasked(s)), "split": "test"} for part in studies.values() for s in part[:TEST]]
    rows += [{**asdict(unmasked(s)), "split": "val"} for s in studies[style][TEST : TEST + VAL]]
    rows += [{**asdict(unmasked(s)), "split": "train"} for s in studies[style][TEST + VAL : TEST + VAL + TRAIN]]
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as handle:
        handle.write("".join(json.dumps(row) + "\n" for row in rows))


def trained(style: str, studies: dict[str, list[Study]], out: Path, overrides: Sequence[str]) -> Path:
    """The run folder of the recipe on one style."""
    source = out / f"{style}.jsonl"
    write_source(style, studies, source)
    own = ["studies.source=jsonl", f"studies.root={source}", f"run_dir={out / style}", "evaluate.limit=null"]
    recipe = load_recipe("rgro_openi", ["studies.n=null", *own, *overrides])
    return run_stages(recipe, list(STAGES)).dir


def measured(run: Path, styles: dict[str, str]) -> dict[str, Any]:
    """Decoding → test style → SFT, RGRO and their paired difference, by judge."""
    rows = [json.loads(line) for line in (run / "evaluation" / "per_study.jsonl").read_text().splitlines()]
    found: dict[str, Any] = {}
    for decoding, style in product(DECODINGS, STYLES):
        mine = [r for r in rows if r["decoding"] == decoding and styles[r["study_id"]] == style]
        by_policy = {which: [r for r in mine if r["policy"] == which] for which in ("baseline", "aligned")}
        cells = found.setdefault(decoding, {})[style] = {}
        for judge in mine[0]["scores"]:
            before, after = ([r["scores"][judge] for r in by_policy[which]] for which in ("baseline", "aligned"))
            cells[judge] = {
                "sft": stats.mean_cell(before, **BOOT),
                "rgro": stats.mean_cell(after, **BOOT),
                "difference": stats.paired_difference(before, after, **BOOT),
            }
        words = {which: sum(r["words"] for r in part) / len(part) for which, part in by_policy.items()}
        cells["words"] = {"sft": words["baseline"], "rgro": words["aligned"]}
        cells["words"]["reference"] = sum(r["reference_words"] for r in by_policy["aligned"]) / len(
            by_policy["aligned"]
        )
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("runs/transfer_openi"))
    parser.add_argument("--train-on", choices=STYLES, action="append", help="one style alone; both when absent")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="changes to the recipe")
    given = parser.parse_args()
    studies = by_style()
    styles = {s.study_id: style for style, part in studies.items() for s in part}
    path = HERE / "results" / "transfer_openi.json"
    found = json.loads(path.read_text()) if path.is_file() else {}
    for style in given.train_on or STYLES:
        found[style] = measured(trained(style, studies, given.out, given.overrides), styles)
        found["overrides"] = given.overrides
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(found, indent=1) + "\n")
    for learnt, decoding, tested in product((s for s in STYLES if s in found), DECODINGS, STYLES):
        cells = found[learnt][decoding][tested]
        for judge in ("rouge_l", "chexpert_rule_f1", "finding_consistency"):
            print(
                f"{decoding}: {learnt} → {tested} {judge}", *(f"{k} {c['mean']:.3f}" for k, c in cells[judge].items())
            )


if __name__ == "__main__":
    main()
