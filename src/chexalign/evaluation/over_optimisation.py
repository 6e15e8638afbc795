"""Signs that a policy has learnt to please its judge: repetition, claims it cannot know, a gain that other judges do not see.

Written to evaluation/over_optimisation.json by the stage `evaluate`. Every number is a mean over the test studies at
temperature 1 with a bootstrap interval; differences are paired by study.
"""

from __future__ import annotations

import re
import statistics
from collections.abc import Sequence
from typing import Any

from chexalign import stats
from chexalign.evaluation.answers import SEED, Answers, Evaluated
from chexalign.judges import from_recipe
from chexalign.judges.line import leaf_names, split_name
from chexalign.recipe.recipe import Recipe
from chexalign.records import Study
from chexalign.train.online.stats import repetition

PRIOR = "prior"  # the view of an earlier image (data/views.py)
_SENTENCE = re.compile(r"[^.;!?\n]+(?:[.;!?]+|\n+|\Z)")
_EARLIER = r"(?:prior|previous|earlier)"
_NO_EARLIER = re.compile(rf"\b(?:no|not|without)\b[^.;\n]{{0,30}}\b(?:{_EARLIER}|comparison)\b[^.;\n]*", re.IGNORECASE)
_CHANGES = (  # words that say how something was before # our choice
    "unchanged", "interval", "intervally", "stable", "new", "newly", "no longer", r"redemonstrat\w+", r"again (?:seen|noted)",
    r"compared (?:to|with)", "in comparison", rf"since (?:the )?(?:{_EARLIER}|last)", r"improv(?:ed|ing|ement)", r"worsen\w*",
    r"progress(?:ed|ion)", r"persist\w*", r"ha(?:s|ve) (?:resolved|cleared|decreased|increased)",
    rf"{_EARLIER} (?:exam\w*|stud(?:y|ies)|radiographs?|films?|x-?rays?|imaging|ct)",
)  # fmt: skip
_CHANGE = re.compile(rf"\b(?:{'|'.join(_CHANGES)})\b", re.IGNORECASE)

Cells = dict[str, stats.Cell]
Boot = tuple[int, int, float]


def sentences(text: str) -> list[str]:
    """The sentences of a text, each with its end."""
    return [s for s in _SENTENCE.findall(text) if any(c.isalnum() for c in s)]


def without_duplicates(text: str) -> str:
    """The text without sentences that it has already had (case, spaces and marks aside); unchanged when there are none."""
    found = sentences(text)
    if len({_bare(s) for s in found}) == len(found):
        return text
    kept = [s for i, s in enumerate(found) if _bare(s) not in {_bare(earlier) for earlier in found[:i]}]
    return "".join(kept).strip()


def duplicated(text: str) -> float:
    """Share of a text's sentences that it has already had; 0 for a text without sentences."""
    found = sentences(text)
    return 1 - len({_bare(s) for s in found}) / len(found) if found else 0.0


def _bare(sentence: str) -> str:
    return " ".join(re.findall(r"\w+", sentence.lower()))


def claims_change(text: str) -> bool:
    """True when a text says how something has changed, or names an earlier examination, other than to say there is none."""
    return bool(_CHANGE.search(_NO_EARLIER.sub(" ", text)))


def saw_earlier(study: Study, most_images: int) -> bool:
    """True when one of the images that the policy was shown is of an earlier examination."""
    return any(view == PRIOR for _, view in study.images[:most_images])


def trained_on(recipe: Recipe) -> list[str]:
    """The plain judges that training looked at: those of the reward, or the one that made the pairs."""
    lines = recipe.train.rewards if recipe.train.online else (recipe.pairs.judge,)
    return sorted({split_name(name)[0] for line in lines for name in leaf_names(line)})


def measure(recipe: Recipe, evaluated: Evaluated, most_images: int) -> dict[str, Any]:
    """All of it for the baseline and the aligned policy: JSON values, no NaN. `most_images` of a study were shown."""
    studies, pair = evaluated.studies, evaluated.pair("temperature_1")
    settings, boot = recipe.evaluate, (recipe.evaluate.bootstrap, SEED, recipe.evaluate.level)
    alone = [not saw_earlier(study, most_images) for study in studies]
    seen = trained_on(recipe)
    return {
        "level": settings.level,
        "n_bootstrap": settings.bootstrap,
        "n_studies": len(studies),
        "trained_on": seen,
        "signs": {
            "repeated_4grams": _paired([[repetition(t) for t in a.texts] for a in pair], boot),
            "duplicated_sentences": _paired([[duplicated(t) for t in a.texts] for a in pair], boot),
            "change_without_earlier_image": _paired(
                [[float(claims_change(t)) if b else None for t, b in zip(a.texts, alone, strict=True)] for a in pair],
                boot,
            ),
        },
        "judges": [_judge_row(line, pair, seen, boot) for line in pair[0].scores],
        "without_duplicates": _without_duplicates(recipe, evaluated, boot),
    }


def _paired(values: Sequence[stats.Values], boot: Boot) -> Cells:
    before, after = values
    return {
        "baseline": stats.mean_cell(before, *boot),
        "aligned": stats.mean_cell(after, *boot),
        "difference": stats.paired_difference(before, after, *boot),
    }


def _judge_row(line: str, pair: tuple[Answers, Answers], seen: Sequence[str], boot: Boot) -> dict[str, Any]:
    """A judge's gain in standard deviations of its baseline scores, so that judges can be held beside each other."""
    before, after = pair[0].scores[line], pair[1].scores[line]
    known = [s for s in before if s is not None]
    spread = statistics.pstdev(known) if known else 0.0
    change = stats.change(before, after)
    scaled = [None if c is None or not spread else c / spread for c in change]
    names = {split_name(name)[0] for name in leaf_names(line)}
    return {"judge": line, "seen": bool(names & set(seen)), "gain_in_sd": stats.mean_cell(scaled, *boot)}


def _without_duplicates(recipe: Recipe, evaluated: Evaluated, boot: Boot) -> dict[str, Cells]:
    """Judge → its score of the aligned reports as written, without repeated sentences, and the difference.

    Only reports that change are judged again.
    """
    aligned, studies = evaluated.of("aligned", "temperature_1"), evaluated.studies
    short = [without_duplicates(t) for t in aligned.texts]
    changed = [i for i, text in enumerate(short) if text != aligned.texts[i]]
    found = {}
    for line in recipe.evaluate.judges:
        scores = list(aligned.scores[line])
        if changed:
            judge = from_recipe(line, recipe.judges)
            rows = (
                [short[i] for i in changed],
                [evaluated.references[i] for i in changed],
                [studies[i] for i in changed],
            )
            for i, answer in zip(changed, judge.score(*rows), strict=True):
                scores[i] = answer.score
        cells = _paired((aligned.scores[line], scores), boot)
        found[line] = {
            "as_written": cells["baseline"],
            "deduplicated": cells["aligned"],
            "difference": cells["difference"],
        }
    return found
