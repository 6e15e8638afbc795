"""What the branches of one entry, one per seed, do on the test split: the blocks of results.json, averaged over them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from chexalign.evaluation.answers import Answers
from chexalign.evaluation.blocks import block, finding_blocks, seed_values
from chexalign.evaluation.controls import image_donors
from chexalign.evaluation.counting import chexbert_counts, gold_counts
from chexalign.jsonl import read_json, read_records
from chexalign.records import Completion, Study, Verdict
from chexalign.run.folder import Run
from chexalign.run.task import reference

WANTED = ("baseline", "aligned", "difference", "length", "n_studies", "decoding")
DECODINGS = {"temperature_1": "temperature 1.0", "greedy": "greedy", "shuffled": "temperature 1.0"}
FINDING = "finding/"


def pooled_blocks(branches: Sequence[Run]) -> dict[str, Any]:
    """`temperature_1`, `greedy` and `shuffled` where they were decoded, and `findings`: one block each at temperature 1."""
    results = [read_json(b.path("results.json")) for b in branches]
    if len(branches) == 1:
        subsets = results[0]["subsets"]
        found = {"temperature_1": results[0], "greedy": subsets.get("greedy"), "shuffled": subsets.get("shuffled")}
        blocks: dict[str, Any] = {name: {k: b[k] for k in WANTED} for name, b in found.items() if b}
        return {**blocks, "findings": {k.removeprefix(FINDING): b for k, b in subsets.items() if k.startswith(FINDING)}}
    studies, settings = _studies(branches[0]), branches[0].recipe.evaluate
    references, donors = [reference(branches[0].recipe, s) for s in studies], image_donors(branches[0], studies)
    blocks = {}
    for name, words in DECODINGS.items():
        if not branches[0].path(f"evaluation/aligned.{name}.jsonl").exists():
            continue
        before, afters = _answers(branches[0], "baseline", name), [_answers(b, "aligned", name) for b in branches]
        keep = [i for i, donor in enumerate(donors) if name != "shuffled" or donor != i]
        blocks[name] = block(before, afters, references, keep, words, settings)
        for metric, values in seed_values(afters, references).items():
            blocks[name]["aligned"][metric]["seeds"] = values
        if name == "temperature_1":
            found = finding_blocks(before, afters, references, words, settings)
            blocks["findings"] = {k.removeprefix(FINDING): b for k, b in found.items()}
    return blocks


def _studies(run: Run) -> list[Study]:
    studies = [s for s in read_records(run.path("studies.jsonl"), Study) if s.split == "test"]
    return studies[: run.recipe.evaluate.limit]


def _answers(run: Run, which: str, decoding: str) -> Answers:
    name = f"evaluation/{which}.{decoding}"
    texts = [row.text for row in read_records(run.path(f"{name}.jsonl"), Completion)]
    verdicts = read_records(run.path(f"{name}.verdicts.jsonl"), Verdict)
    judges = run.recipe.evaluate.judges
    studies = _studies(run)
    truth = [reference(run.recipe, s) for s in studies]
    counts = {**gold_counts(texts, truth, studies), **chexbert_counts(judges, run.recipe.judges, texts, truth)}
    return Answers(texts, {j: [v.score for v in verdicts if v.judge == j] for j in judges}, counts=counts)
