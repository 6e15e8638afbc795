"""Stage `pairs`: the best against the worst report of each study → pairs.jsonl, with the summary of CheXalign's Table 8."""

from __future__ import annotations

import json
import statistics
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from rich.table import Table
from rich.text import Text

from chexalign.errors import WorkError
from chexalign.jsonl import atomic_write, read_records, write_json, write_records
from chexalign.policies.open import open_policy, prompts_for, wording_of
from chexalign.policies.prompt import messages
from chexalign.progress import console
from chexalign.records import Completion, Pair, Study, Verdict
from chexalign.run import Run, StageResult


def best_and_worst(
    scored: Sequence[tuple[Completion, float]], min_margin: float
) -> tuple[tuple[Completion, float], tuple[Completion, float]] | None:
    """The highest and the lowest scored completion, or None when they differ by no more than `min_margin`.

    Ties go to the lower sample index on both sides (CheXalign's released code).
    """
    best = max(scored, key=lambda cs: cs[1])
    worst = min(scored, key=lambda cs: cs[1])
    return (best, worst) if best[1] - worst[1] > min_margin else None


def make_pairs(run: Run) -> StageResult:
    """Build pairs from the verdicts of `pairs.judge`; a completion without a score makes no pair."""
    settings = run.recipe.pairs
    studies = {s.study_id: s for s in read_records(run.path("studies.jsonl"), Study)}
    verdicts = read_records(run.path("verdicts.jsonl"), Verdict)
    scores = {v.key()[:2]: v.score for v in verdicts if v.judge == settings.judge}
    groups: dict[str, list[tuple[Completion, float]]] = defaultdict(list)
    abstained: dict[str, int] = defaultdict(int)
    for c in read_records(run.path("completions.jsonl"), Completion):
        score = scores[c.key()]
        if score is None:
            abstained[c.study_id] += 1
        else:
            groups[c.study_id].append((c, score))
    chosen = {i: best_and_worst(g, settings.min_margin) for i, g in groups.items() if len(g) > 1}
    kept = {i: pair for i, pair in chosen.items() if pair is not None}
    seen = len(groups.keys() | abstained.keys())
    dropped = {"tied": sum(p is None for p in chosen.values()), "too few scored samples": seen - len(chosen)}
    if not kept:
        raise WorkError(
            f"no study has two reports that {settings.judge} tells apart; raise sample.n or change the judge"
        )
    pairs = _pair_rows(run, [studies[i] for i in kept], list(kept.values()))
    _export_trl(run, [studies[p.study_id] for p in pairs], pairs)
    _save_summary(run, pairs, seen, dropped)
    write_records(run.path("pairs.jsonl"), pairs)
    return StageResult(seen, len(pairs), {k: n for k, n in dropped.items() if n})


def _pair_rows(run: Run, studies: Sequence[Study], kept: Sequence[Any]) -> list[Pair]:
    prompts = prompts_for(run, open_policy(run, "baseline"), studies)
    return [
        Pair(
            study_id=study.study_id,
            prompt=prompt.text,
            images=study.images[: run.recipe.studies.max_images],
            chosen=best[0].text,
            rejected=worst[0].text,
            chosen_score=best[1],
            rejected_score=worst[1],
            judge=run.recipe.pairs.judge,
            chosen_tokens=best[0].tokens,
            rejected_tokens=worst[0].tokens,
            ref_chosen_logp=best[0].logp,
            ref_rejected_logp=worst[0].logp,
        )
        for study, prompt, (best, worst) in zip(studies, prompts, kept, strict=True)
    ]


def _export_trl(run: Run, studies: Sequence[Study], pairs: Sequence[Pair]) -> None:
    """pairs_trl.jsonl: TRL's conversational preference format (prompt, images, chosen, rejected), image paths as they are."""
    recipe = run.recipe
    with atomic_write(run.path("pairs_trl.jsonl")) as handle:
        for study, pair in zip(studies, pairs, strict=True):
            row = {
                "prompt": messages(study, wording_of(recipe.policy), recipe.studies.max_images),
                "images": [path for path, _ in pair.images],
                "chosen": _assistant(pair.chosen),
                "rejected": _assistant(pair.rejected),
            }
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


def _save_summary(run: Run, pairs: Sequence[Pair], n_studies: int, dropped: dict[str, int]) -> None:
    summary: dict[str, Any] = {
        "judge": run.recipe.pairs.judge,
        "n_studies": n_studies,
        "n_pairs": len(pairs),
        "dropped_ties": dropped["tied"],
        "dropped_abstained": dropped["too few scored samples"],
        "dropped_share": 1 - len(pairs) / n_studies,
    }
    title = Text(f"Preference pairs by {run.recipe.pairs.judge} (CheXalign, Table 8)")  # a judge's name may hold [ ]
    table = Table(title=title, title_justify="left")
    for column in ("", "score mean", "median", "sd", "words mean", "median", "sd"):
        table.add_column(column, justify="left" if not column else "right")
    for side in ("chosen", "rejected"):
        score = describe([getattr(p, f"{side}_score") for p in pairs])
        words = describe([len(getattr(p, side).split()) for p in pairs])
        summary[side] = {"score": score, "words": words}
        table.add_row(side, *(f"{v:.3f}" for v in score.values()), *(f"{v:.1f}" for v in words.values()))
    console.print(table)
    console.print(
        f"{len(pairs)} pairs from {n_studies} studies; {summary['dropped_share']:.1%} dropped"
        f" ({dropped['tied']} tied, {dropped['too few scored samples']} with fewer than two scores)"
    )
    write_json(run.path("pairs_summary.json"), summary)
