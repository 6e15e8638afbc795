"""The controls beside every gain: other studies' images, and one fixed report."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from chexalign import stats
from chexalign.evaluation.answers import SEED, WHICH, Answers, is_abnormal
from chexalign.judges import from_recipe as load_judge
from chexalign.judges.registry import JUDGES
from chexalign.policies.presets import most_images
from chexalign.policies.prompt import Prompt
from chexalign.records import Study
from chexalign.run.folder import Run
from chexalign.run.task import reference

TEMPLATE_CANDIDATES = 60  # training reports among which the best fixed report is sought


def image_donors(run: Run, studies: Sequence[Study]) -> list[int]:
    """For each study another one with as many images, about half the list away; itself where there is no other."""
    groups: dict[int, list[int]] = {}
    most = most_images(run.recipe)
    for i, study in enumerate(studies):
        groups.setdefault(len(study.images[:most]), []).append(i)
    donors = list(range(len(studies)))
    for members in groups.values():
        shift = max(1, len(members) // 2)
        for k, i in enumerate(members):
            donors[i] = members[(k + shift) % len(members)]
    return donors


def _with_other_images(prompts: Sequence[Prompt], donors: Sequence[int]) -> list[Prompt]:
    return [Prompt(p.text, prompts[d].images, p.root) for p, d in zip(prompts, donors, strict=True)]


def _cells(run: Run, scores: dict[str, list[float | None]]) -> dict[str, Any]:
    settings = run.recipe.evaluate
    return {j: stats.mean_cell(v, settings.bootstrap, SEED, settings.level) for j, v in scores.items()}


def _shuffled_control(run: Run, answers: dict[tuple[str, str], Answers], donors: Sequence[int]) -> dict[str, Any]:
    """The aligned policy with other studies' images, how much the right ones add to its scores (`difference`), and to
    its gain over the baseline (`gain`); both paired, right − shuffled. The rest of the gain is language prior.

    A study that had to keep its own images counts as abstained.
    """
    settings = run.recipe.evaluate
    before, real = (answers[w, "temperature_1"].scores for w in WHICH)
    start, blind = (
        {j: [v if donors[i] != i else None for i, v in enumerate(values)] for j, values in scores.items()}
        for scores in (answers[w, "shuffled"].scores for w in WHICH)
    )
    boot = (settings.bootstrap, SEED, settings.level)
    return {
        "scores": _cells(run, blind),
        "difference": {j: stats.paired_difference(blind[j], real[j], *boot) for j in settings.judges},
        "gain": {
            j: stats.paired_difference(stats.change(start[j], blind[j]), stats.change(before[j], real[j]), *boot)
            for j in settings.judges
        },
    }


def _template_control(run: Run, everyone: Sequence[Study], studies: Sequence[Study]) -> dict[str, Any]:
    """The best fixed report: of 60 training reports, the one that agrees most with the others.

    Agreement is by the first headline judge that needs nothing: 3,600 comparisons are too many for a language model.
    """
    written = {reference(run.recipe, s): s for s in everyone if s.split == "train"}
    candidates = sorted(written)[:: -(-len(written) // TEMPLATE_CANDIDATES)]
    pool = [written[t] for t in candidates]
    references = [reference(run.recipe, s) for s in studies]
    cheap = (h for h in run.recipe.evaluate.headline if h in JUDGES and JUDGES[h].needs == "nothing")
    judge = load_judge(next(cheap, "chexpert_rule_f1"), run.recipe.judges)

    def agreement(text: str) -> float:
        scores = [a.score for a in judge.score([text] * len(pool), candidates, pool) if a.score is not None]
        return sum(scores) / max(1, len(scores))

    text = max(candidates, key=agreement)
    scores = {
        name: [a.score for a in load_judge(name, run.recipe.judges).score([text] * len(studies), references, studies)]
        for name in run.recipe.evaluate.judges
    }
    abnormal = [i for i, r in enumerate(references) if is_abnormal(r)]
    return {
        "text": text,
        "scores": _cells(run, scores),
        "abnormal_scores": _cells(run, {k: [v[i] for i in abnormal] for k, v in scores.items()}),
    }
