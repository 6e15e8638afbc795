"""The controls beside every gain: other studies' images, and one fixed report."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from chexalign import stats
from chexalign.evaluation.answers import SEED, WHICH, Evaluated
from chexalign.judges import from_recipe as load_judge
from chexalign.judges.contract import Judge
from chexalign.judges.registry import JUDGES
from chexalign.policies.prompt import Prompt
from chexalign.recipe.recipe import Evaluate, Recipe
from chexalign.records import Study
from chexalign.results import ShuffledControl, TemplateControl
from chexalign.run.task import reference
from chexalign.scorecard.constants import STATEMENTS, best_constant, needs_a_model

TEMPLATE_CANDIDATES = 60  # training reports among which the best fixed report is sought # our choice


def image_donors(studies: Sequence[Study], max_images: int) -> list[int]:
    """For each study another one with as many images, about half the list away; itself where there is no other."""
    groups: dict[int, list[int]] = {}
    for i, study in enumerate(studies):
        groups.setdefault(len(study.images[:max_images]), []).append(i)
    donors = list(range(len(studies)))
    for members in groups.values():
        shift = max(1, len(members) // 2)
        for k, i in enumerate(members):
            donors[i] = members[(k + shift) % len(members)]
    return donors


def with_other_images(prompts: Sequence[Prompt], donors: Sequence[int]) -> list[Prompt]:
    """The prompts, each with the images of its donor's: (n,), (n,) → (n,)."""
    return [Prompt(p.text, prompts[d].images, p.root) for p, d in zip(prompts, donors, strict=True)]


def _cells(scores: dict[str, list[float | None]], settings: Evaluate) -> dict[str, Any]:
    return {j: stats.mean_cell(v, settings.bootstrap, SEED, settings.level) for j, v in scores.items()}


def shuffled_control(evaluated: Evaluated, donors: Sequence[int], settings: Evaluate) -> ShuffledControl:
    """The aligned policy with other studies' images, how much the right ones add to its scores (`difference`), and to
    its gain over the baseline (`gain`); both paired, right − shuffled. The rest of the gain is language prior.

    A study that had to keep its own images counts as abstained.
    """
    baseline, aligned = (evaluated.of(which, "temperature_1").scores for which in WHICH)
    baseline_shuffled, aligned_shuffled = (
        {j: [v if donors[i] != i else None for i, v in enumerate(values)] for j, values in scores.items()}
        for scores in (evaluated.of(which, "shuffled").scores for which in WHICH)
    )
    boot = (settings.bootstrap, SEED, settings.level)
    gain = {}
    for j in settings.judges:
        without_images = stats.change(baseline_shuffled[j], aligned_shuffled[j])
        gain[j] = stats.paired_difference(without_images, stats.change(baseline[j], aligned[j]), *boot)
    return ShuffledControl(
        scores=_cells(aligned_shuffled, settings),
        difference={j: stats.paired_difference(aligned_shuffled[j], aligned[j], *boot) for j in settings.judges},
        gain=gain,
    )


def template_control(recipe: Recipe, train: Sequence[Study], evaluated: Evaluated) -> TemplateControl:
    """The best fixed report: of 60 training reports and some single statements, the one that agrees most with the reports.

    Agreement is by the first headline judge that needs nothing: 3,600 comparisons are too many for a language model.
    """
    settings, studies, references = recipe.evaluate, evaluated.studies, evaluated.references
    by_report = {reference(recipe, s): s for s in train}
    step = math.ceil(len(by_report) / TEMPLATE_CANDIDATES)
    candidates = sorted(by_report)[::step]
    candidate_studies = [by_report[text] for text in candidates]
    loaded = (load_judge(h, recipe.judges) for h in settings.headline if h in JUDGES)
    judge = next((j for j in loaded if not needs_a_model(j.name)), None) or load_judge(
        "chexpert_rule_f1", recipe.judges
    )

    def agreement(text: str) -> float:
        answers = judge.score([text] * len(candidates), candidates, candidate_studies)
        scores = [a.score for a in answers if a.score is not None]
        return sum(scores) / max(1, len(scores))

    text = max([*candidates, *STATEMENTS], key=agreement)
    scores = {
        name: [a.score for a in load_judge(name, recipe.judges).score([text] * len(studies), references, studies)]
        for name in settings.judges
    }
    abnormal = evaluated.abnormal()
    return TemplateControl(
        text=text,
        scores=_cells(scores, settings),
        abnormal_scores=_cells({k: [v[i] for i in abnormal] for k, v in scores.items()}, settings),
        constants=best_constants(judge, references, abnormal, candidates),
    )


def best_constants(
    judge: Judge, references: Sequence[str], abnormal: Sequence[int], reports: Sequence[str]
) -> dict[str, Any]:
    """{all, abnormal}: the constant text that earns most of the judge on those references, searched as the scorecard does.

    Searched in sight of the references: the most that ignoring every image was found to earn. {} without any reference.
    """
    parts = {"all": list(references), "abnormal": [references[i] for i in abnormal]}
    return {
        name: {"judge": judge.name, **best_constant(judge, texts, reports)} for name, texts in parts.items() if texts
    }
