"""What the branches of one entry, one per seed, do on the test split: the blocks of results.json, averaged over them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from chexalign.evaluation.answers import DECODINGS, Answers
from chexalign.evaluation.blocks import block, finding_blocks, seed_values
from chexalign.evaluation.controls import image_donors
from chexalign.evaluation.counting import chexbert_counts, gold_counts
from chexalign.evaluation.unread import counted
from chexalign.policies.presets import most_images
from chexalign.results import Block
from chexalign.run.folder import Run
from chexalign.run.task import reference

FINDING = "finding/"


def pooled_blocks(branches: Sequence[Run]) -> dict[str, Any]:
    """`temperature_1`, `greedy` and `shuffled` where they were decoded, and `findings`: one block each at temperature 1."""
    if len(branches) == 1:
        results = branches[0].results()
        measured = {"temperature_1": results.overall, **{k: results.subsets.get(k) for k in ("greedy", "shuffled")}}
        return {
            **{name: b.to_dict() for name, b in measured.items() if b},
            "findings": _by_finding(results.subsets),
        }
    recipe, studies = branches[0].recipe, branches[0].test_studies()
    settings, references = recipe.evaluate, [reference(recipe, s) for s in studies]
    donors = image_donors(studies, most_images(recipe))
    blocks: dict[str, Any] = {}
    for name, words in DECODINGS.items():
        if not branches[0].path(f"evaluation/aligned.{name}.jsonl").exists():
            continue
        before, afters = _answers(branches[0], "baseline", name), [_answers(b, "aligned", name) for b in branches]
        keep = [i for i, donor in enumerate(donors) if name != "shuffled" or donor != i]
        blocks[name] = block(before, afters, references, keep, words, settings).to_dict()
        for metric, values in seed_values(afters, references).items():
            blocks[name]["aligned"][metric]["seeds"] = values
        if name == "temperature_1":
            blocks["findings"] = _by_finding(finding_blocks(before, afters, references, words, settings))
    return blocks


def _by_finding(subsets: Mapping[str, Block]) -> dict[str, Any]:
    """The blocks of single findings, under the finding's name."""
    return {k.removeprefix(FINDING): b.to_dict() for k, b in subsets.items() if k.startswith(FINDING)}


def _answers(run: Run, which: str, decoding: str) -> Answers:
    name = f"evaluation/{which}.{decoding}"
    texts = [row.text for row in run.completions(name)]
    verdicts = run.verdicts(f"{name}.verdicts")
    judges = run.recipe.evaluate.judges
    studies = run.test_studies()
    truth = [reference(run.recipe, s) for s in studies]
    counts = {**gold_counts(texts, truth, studies), **chexbert_counts(judges, run.recipe.judges, texts, truth)}
    scores = {j: [v.score for v in verdicts if v.judge == j] for j in judges}
    return Answers(texts, scores, counts=counts, unread=counted(verdicts, judges))
