"""Stage `pairs`: the better against the worse report of each study → pairs.jsonl, with the summary of CheXalign's Table 8."""

from __future__ import annotations

import json
import statistics
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from rich.table import Table
from rich.text import Text

from chexalign.data.tags import wrapped
from chexalign.errors import WorkError
from chexalign.jsonl import atomic_write, write_json, write_records
from chexalign.policies.presets import wording_of
from chexalign.policies.prompt import in_words, messages
from chexalign.progress import console, say
from chexalign.records import Completion, Pair, Study
from chexalign.review.feedback import JUDGE, Feedback, read_feedback
from chexalign.run.folder import Run, StageResult
from chexalign.run.policies import open_policy, prompts_for
from chexalign.run.task import reference

Scored = tuple[Completion, float]


@dataclass(frozen=True)
class Choice:
    """What one study gives: the rejected completion, and the chosen one or None for the radiologist's own text."""

    chosen: Scored | None
    rejected: Scored


def best_and_worst(scored: Sequence[Scored], min_margin: float) -> tuple[Scored, Scored] | None:
    """The highest and the lowest scored completion, or None when they differ by no more than `min_margin`.

    Ties go to the lower sample index on both sides (CheXalign's released code).
    """
    best = max(scored, key=lambda cs: cs[1])
    worst = min(scored, key=lambda cs: cs[1])
    return (best, worst) if best[1] - worst[1] > min_margin else None


def best_worst(scored: Sequence[Scored], reference: str, min_margin: float) -> Choice | str:
    """CheXalign: the best completion against the worst."""
    found = best_and_worst(scored, min_margin)
    return Choice(*found) if found else TIED


def reference_loser(scored: Sequence[Scored], reference: str, min_margin: float) -> Choice | str:
    """RGRO: the radiologist's text against the one of the first two completions that the judge likes less; ties are dropped."""
    found = best_and_worst(scored[:2], min_margin)
    return _against(reference, found[1]) if found else TIED


def reference_worst(scored: Sequence[Scored], reference: str, min_margin: float) -> Choice | str:
    """The radiologist's text against the worst completion, whatever the margin."""
    return _against(reference, min(scored, key=lambda cs: cs[1]))


def _against(reference: str, rejected: Scored) -> Choice | str:
    return SAME if rejected[0].text.split() == reference.split() else Choice(None, rejected)


TIED = "tied"
TOO_FEW = "too few scored samples"
SAME = "the rejected text is the reference itself"
RULES: dict[str, Callable[[Sequence[Scored], str, float], Choice | str]] = {
    "best_worst": best_worst,
    "reference_loser": reference_loser,
    "reference_worst": reference_worst,
}


def make_pairs(run: Run) -> StageResult:
    """Build pairs by `pairs.rule` from the verdicts of `pairs.judge`; a completion without a score makes no pair."""
    settings = run.recipe.pairs
    studies = run.studies_by_id()
    scores = {v.key()[:2]: v.score for v in run.verdicts() if v.judge == settings.judge}
    groups: dict[str, list[Scored]] = defaultdict(list)
    for c in run.completions():
        known, score = groups[c.study_id], scores[c.key()]
        if score is not None:
            known.append((c, score))
    dropped: Counter[str] = Counter()
    kept: dict[str, Choice] = {}
    for i, group in groups.items():
        reference_text = reference(run.recipe, studies[i])
        choice = RULES[settings.rule](group, reference_text, settings.min_margin) if len(group) > 1 else TOO_FEW
        if isinstance(choice, Choice):
            kept[i] = choice
        else:
            dropped[choice] += 1
    heard = read_feedback(settings.feedback, studies) if settings.feedback else Feedback()
    if not kept and not heard.preferences:
        raise WorkError(
            f"no study has two reports that {settings.judge} tells apart; raise sample.n or change the judge"
        )
    pairs = _pair_rows(run, [studies[i] for i in kept], list(kept.values()))
    if settings.weight == "score_gap":
        pairs = [replace(p, weight=w) for p, w in zip(pairs, gap_weights(pairs), strict=True)]
    _save_summary(run, pairs, len(groups), dropped, heard)
    pairs += _feedback_rows(run, studies, heard)
    _export_trl(run, [studies[p.study_id] for p in pairs], pairs)
    write_records(run.path("pairs.jsonl"), pairs)
    lost = {f"feedback row {n}": heard.counts[n] for n in ("skipped", "replaced", "tied") if heard.counts[n]}
    return StageResult(len(groups) + heard.counts["rows"], len(pairs), {**dropped, **lost})


def gap_weights(pairs: Sequence[Pair]) -> list[float]:
    """Each pair's score difference over the mean of them all: (n,) → (n,) of mean 1.

    After MMedPO (Zhu et al. 2024), which weighs each pair's DPO loss by a clinical relevance from medical language models and
    visual tools. That ours is the difference by the run's own judge, and how it is scaled, is our choice.
    """
    gaps = [
        p.chosen_score - p.rejected_score for p in pairs if p.chosen_score is not None and p.rejected_score is not None
    ]
    assert len(gaps) == len(pairs), "the recipe allows these weights only where both texts were scored"
    return [g / statistics.fmean(gaps) for g in gaps]


def _feedback_rows(run: Run, studies: Mapping[str, Study], heard: Feedback) -> list[Pair]:
    """A person's preferences as pairs: no score, no sampled ids and no log-prob; training tokenizes and scores both texts."""
    if not heard.preferences:
        return []
    weight, wanted = run.recipe.pairs.feedback_weight, [studies[p.study_id] for p in heard.preferences]
    prompts = prompts_for(run, open_policy(run, "baseline"), wanted)
    return [
        Pair(
            study_id=study.study_id,
            prompt=prompt.text,
            images=study.images[: len(prompt.images)],  # those that the policy was shown
            chosen=p.chosen,
            rejected=p.rejected,
            chosen_score=None,
            rejected_score=None,
            judge=JUDGE,
            weight=weight,
        )
        for study, prompt, p in zip(wanted, prompts, heard.preferences, strict=True)
    ]


def _pair_rows(run: Run, studies: Sequence[Study], kept: Sequence[Choice]) -> list[Pair]:
    """The radiologist's own text has no score, no sampled ids and no log-prob: training tokenizes and scores it."""
    prompts = prompts_for(run, open_policy(run, "baseline"), studies)
    return [
        Pair(
            study_id=study.study_id,
            prompt=prompt.text,
            images=study.images[: len(prompt.images)],  # those that the policy was shown
            chosen=choice.chosen[0].text if choice.chosen else reference(run.recipe, study),
            rejected=choice.rejected[0].text,
            chosen_score=choice.chosen[1] if choice.chosen else None,
            rejected_score=choice.rejected[1],
            judge=run.recipe.pairs.judge,
            chosen_tokens=choice.chosen[0].tokens if choice.chosen else (),
            rejected_tokens=choice.rejected[0].tokens,
            ref_chosen_logp=choice.chosen[0].logp if choice.chosen else None,
            ref_rejected_logp=choice.rejected[0].logp,
        )
        for study, prompt, choice in zip(studies, prompts, kept, strict=True)
    ]


def _export_trl(run: Run, studies: Sequence[Study], pairs: Sequence[Pair]) -> None:
    """pairs_trl.jsonl: TRL's conversational preference format (prompt, images, chosen, rejected), image paths as they are."""
    recipe = run.recipe
    form = wrapped if recipe.policy.wrap else str  # as the policy is to write it
    with atomic_write(run.path("pairs_trl.jsonl")) as handle:
        for study, pair in zip(studies, pairs, strict=True):
            turns = {
                "prompt": messages(study, wording_of(recipe), recipe.studies.max_images),
                "chosen": _assistant(form(pair.chosen)),
                "rejected": _assistant(form(pair.rejected)),
            }
            if not recipe.studies.max_images:  # a text model's template wants strings
                turns = {name: in_words(turn) for name, turn in turns.items()}
            row = {**turns, "images": [path for path, _ in pair.images]}
            handle.write(json.dumps(row, ensure_ascii=False) + "\n")


def _assistant(text: str) -> list[dict[str, Any]]:
    return [{"role": "assistant", "content": [{"type": "text", "text": text}]}]


def describe(values: Sequence[float]) -> dict[str, float]:
    """Mean, median and sample standard deviation (0 for a single value)."""
    return {
        "mean": statistics.fmean(values),
        "median": statistics.median(values),
        "sd": statistics.stdev(values) if len(values) > 1 else 0.0,
    }


def _save_summary(run: Run, pairs: Sequence[Pair], n_studies: int, dropped: Counter[str], heard: Feedback) -> None:
    """Table 8 of the judge's pairs; a person's are counted beside them."""
    settings = run.recipe.pairs
    summary: dict[str, Any] = {
        "judge": run.recipe.pairs.judge,
        "rule": run.recipe.pairs.rule,
        "n_studies": n_studies,
        "n_pairs": len(pairs),
        "dropped_ties": dropped[TIED],
        "dropped_abstained": dropped[TOO_FEW],
        "dropped_same": dropped[SAME],
        "dropped_share": 1 - len(pairs) / n_studies if n_studies else 0.0,
    }
    if settings.weight != "equal" and pairs:
        summary["weight"] = {"by": settings.weight, **describe([p.weight for p in pairs])}
    if settings.feedback:
        summary["n_feedback"] = len(heard.preferences)
        summary["feedback"] = {"file": str(settings.feedback), "weight": settings.feedback_weight, **heard.counts}
    title = Text(
        f"Preference pairs, {run.recipe.pairs.rule} by {run.recipe.pairs.judge}"
    )  # a judge's name may hold [ ]
    table = Table(title=title, title_justify="left")
    for column in ("", "score mean", "median", "sd", "words mean", "median", "sd"):
        table.add_column(column, justify="left" if not column else "right")
    for side in ("chosen", "rejected") if pairs else ():
        scores = [s for p in pairs if (s := getattr(p, f"{side}_score")) is not None]  # a radiologist's text has none
        words = describe([len(getattr(p, side).split()) for p in pairs])
        summary[side] = {**({"score": describe(scores)} if scores else {}), "words": words}
        shown = [f"{v:.3f}" for v in describe(scores).values()] if scores else ["–"] * 3
        table.add_row(side, *shown, *(f"{v:.1f}" for v in words.values()))
    console.print(table)
    console.print(
        f"{len(pairs)} pairs from {n_studies} studies; {summary['dropped_share']:.1%} dropped"
        f" ({dropped[TIED]} tied, {dropped[TOO_FEW]} with fewer than two scores, {dropped[SAME]} the reference itself)"
    )
    if settings.feedback:
        c = heard.counts
        say(
            f"feedback: {len(heard.preferences)} pairs of weight {settings.feedback_weight:g} from {c['rows']} rows of "
            f"{settings.feedback} ({c['tied']} tied, {c['replaced']} replaced by a later row, {c['skipped']} skipped)"
        )
    write_json(run.path("pairs_summary.json"), summary)
