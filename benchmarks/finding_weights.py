"""How much does finding_f1_weighted owe to its numbers? python benchmarks/finding_weights.py

Rank correlation with the radiologists' mean rating on ../shared/data/judge_validation/radpref_pairs.jsonl with parts of
significance.toml switched off or changed, on all rows and on two halves of the cases. The judge's numbers were set by
reasoning; this shows that none of them carries the agreement alone. Writes benchmarks/results/finding_weights.json.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np

from chexalign.judges.findings import weighted
from chexalign.judges.findings.statements import version
from chexalign.judges.findings.weighted import Scale, compare, encode, scale
from chexalign.scorecard.agreement import spearman
from chexalign.scorecard.inputs import read_ratings

HERE = Path(__file__).resolve().parent
RATED = HERE.parents[1] / "shared" / "data" / "judge_validation"
FULL = scale()

VARIANTS: dict[str, Callable[[], Scale]] = {
    "as shipped": lambda: FULL,
    "every finding weighs the same": lambda: FULL._replace(
        weights={k: v if k == "rest_of_chest" else 0.5 for k, v in FULL.weights.items()}
    ),
    "CRIMSON's weights (benign 0)": lambda: FULL._replace(weights={**FULL.weights, "benign": 0.0}),
    "no near words": lambda: FULL._replace(kinship={k: v for k, v in FULL.kinship.items() if k[0] == k[1]}),
    "attributes not looked at": lambda: FULL._replace(cost=dict.fromkeys(FULL.cost, 0.0)),
    "doubt, size and sides weigh nothing": lambda: FULL._replace(factor=dict.fromkeys(FULL.factor, 1.0)),
    **{
        f"rest of the chest {p}": (lambda p=p: FULL._replace(weights={**FULL.weights, "rest_of_chest": p}))  # type: ignore[misc]
        for p in (0.02, 0.05, 0.25, 0.5, 1.0)
    },
}


def main() -> None:
    rated, _, _ = read_ratings(RATED)
    ratings = np.array([r.rating for r in rated])
    half = np.array([hashlib.blake2b(r.case.encode()).digest()[0] % 2 for r in rated])
    rows = {}
    for name, make in VARIANTS.items():
        changed = make()
        weighted.scale = lambda changed=changed: changed  # type: ignore[assignment]
        scores = np.array([compare(encode(r.report), encode(r.reference))[0] for r in rated])
        cells = [spearman(scores[keep], ratings[keep]) for keep in (half >= 0, half == 0, half == 1)]
        rows[name] = dict(zip(("all", "first_half", "second_half"), (round(c, 3) for c in cells), strict=True))
        print(f"{name:<38}{cells[0]:.3f}   halves {cells[1]:.3f} {cells[2]:.3f}")
    about = {"command": "python benchmarks/finding_weights.py", "rules": version(), "n": len(rated)}
    path = HERE / "results" / "finding_weights.json"
    path.write_text(json.dumps({**about, "spearman": rows}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
