"""A cascade beside its costly judge alone: the same best and worst, and the calls that it takes.

    python benchmarks/cascade.py [--studies 400] [--n 4]

Each study's group is n other radiologists' OpenI reports that share its abnormality or its normality, so that groups look
like samples of one policy. The costly judges are stand-ins that cost nothing: no language model is asked.
"""

from __future__ import annotations

import argparse
import random

from chexalign.data.openi import read_openi
from chexalign.judges import from_recipe, load
from chexalign.judges.cascade import Cascade, wilson
from chexalign.judges.contract import reward
from chexalign.judges.request import RewardRequest
from chexalign.labels import label_report

PAIRS = [
    ("chexpert_rule_f1", "finding_f1_weighted"),
    ("finding_f1", "finding_f1_weighted"),
    ("rouge_l", "finding_f1_weighted"),
    ("finding_f1_weighted", "rouge_l"),
]


def groups(n_studies: int, n: int) -> RewardRequest:
    """n reports for each of n_studies references, drawn with seed 0."""
    texts = sorted(
        {s.findings for s in read_openi(None, lambda patient: "test") if any(c.isalnum() for c in s.findings)}
    )
    rng = random.Random(0)
    references = rng.sample(texts, n_studies)
    pools: dict[bool, list[str]] = {True: [], False: []}
    for text in texts:
        pools[label_report(text)["No Finding"] == 1].append(text)
    reports = [r for ref in references for r in rng.sample(pools[label_report(ref)["No Finding"] == 1], n)]
    ids = [str(i) for i in range(n_studies) for _ in range(n)]
    return RewardRequest(reports, [references[int(i)] for i in ids], group_ids=ids)


def ends(scores: list[float | None]) -> tuple[float, float] | None:
    known = [s for s in scores if s is not None]
    return (max(known), min(known)) if known else None


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--studies", type=int, default=400)
    parser.add_argument("--n", type=int, default=4)
    options = parser.parse_args()
    request = groups(options.studies, options.n)
    print("| cheap | costly | margin | asked | same best and worst | 90 % interval |\n|---|---|---|---|---|---|")
    for cheap, costly in PAIRS:
        full = [a.score for a in reward(load(costly), request)]
        for margin in (0.0, 0.1, 0.2):
            judge = from_recipe(f"cascade({cheap}, {costly}, {margin})", {}, frozenset({"group"}))
            assert isinstance(judge, Cascade)
            found = [a.score for a in reward(judge, request)]
            rows = [range(i, i + options.n) for i in range(0, len(full), options.n)]
            same = sum(ends([found[i] for i in row]) == ends([full[i] for i in row]) for row in rows)
            low, high = wilson(same, len(rows))
            asked = judge.tally.asked / judge.tally.reports
            print(
                f"| {cheap} | {costly} | {margin:g} | {asked:.0%} | {same / len(rows):.1%} | {low:.1%} to {high:.1%} |"
            )


if __name__ == "__main__":
    main()
