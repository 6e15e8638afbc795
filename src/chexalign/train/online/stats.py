"""What a round looks like: numbers for the log, and which of them are out of bounds."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from chexalign.judges.contract import Judgement
from chexalign.labels import label_report
from chexalign.labels.f1 import label_counts
from chexalign.recipe.online import Watch
from chexalign.train.online.rollout import Samples

NGRAM = 4  # words


def repetition(text: str) -> float:
    """Share of 4-grams of words that the text has already had; 0 for a text with none."""
    words = text.lower().split()
    grams = [tuple(words[i : i + NGRAM]) for i in range(len(words) - NGRAM + 1)]
    return 1 - len(set(grams)) / len(grams) if grams else 0.0


def text_stats(groups: Sequence[Samples]) -> dict[str, float]:
    """Means over a round's samples. `entropy` is the mean −log π of the sampled tokens: its one-sample estimate, in nats."""
    samples = [(s, text, g.asked.reference) for g in groups for s, text in zip(g.sampled, g.texts, strict=True)]
    texts = [text for _, text, _ in samples]
    tokens = sum(len(s.tokens) for s, *_ in samples)
    return {
        "length": tokens / len(samples),
        "length_ratio": statistics.fmean(len(t.split()) / max(1, len(r.split())) for _, t, r in samples),
        "truncated": sum(s.finish_reason == "length" for s, *_ in samples) / len(samples),
        "entropy": -sum(s.logp for s, *_ in samples) / tokens,
        "repetition": statistics.fmean(map(repetition, texts)),
        "distinct": len(set(texts)) / len(texts),
    }


def reward_stats(answers: Sequence[Sequence[Judgement]]) -> dict[str, float]:
    """Reward, its parts and their coverage (share of samples scored), and how much the groups say.

    `advantage_spread` is the mean over groups of the rewards' sd, `zero_reward_rate` the share of groups whose rewards are
    all exactly 0, `no_signal` the share whose rewards are all equal. What nothing could be scored for is left out.
    """
    flat = [a for group in answers for a in group]
    parts: dict[str, list[float | None]] = defaultdict(list)
    for answer in flat:
        for name, score in {"": answer.score, **part_scores(answer.details)}.items():
            parts[name].append(score)
    row: dict[str, float] = {}
    for name, values in parts.items():
        given, suffix = [v for v in values if v is not None], f"/{name}" if name else ""
        row["coverage" + suffix] = len(given) / len(flat)
        if given:
            row["reward" + suffix] = statistics.fmean(given)
    groups = [[a.score for a in group if a.score is not None] for group in answers]
    groups = [g for g in groups if g]
    row["abstained"] = 1 - row["coverage"]
    if groups:
        row["advantage_spread"] = statistics.fmean(statistics.stdev(g) if len(g) > 1 else 0.0 for g in groups)
        row["zero_reward_rate"] = sum(not any(g) for g in groups) / len(groups)
        row["no_signal"] = sum(len(set(g)) == 1 for g in groups) / len(groups)
    return row


def finding_stats(pairs: Sequence[tuple[str, str]]) -> dict[str, float]:
    """Rule labels of (report, reference) pairs: F1 of every finding that occurs, macro precision and recall over those.

    Precision stands beside recall because a recall-seeking reward pays for over-calling. 0 where nothing was called.
    """
    rows = [(label_report(report), label_report(reference)) for report, reference in pairs]
    counts = label_counts([a for a, _ in rows], [b for _, b in rows])
    present = {label: c for label, c in counts.items() if c[2]}
    if not present:
        return {}
    return {
        "val_precision": statistics.fmean(hit / called if called else 0.0 for hit, called, _ in present.values()),
        "val_recall": statistics.fmean(hit / there for hit, _, there in present.values()),
        **{f"val_f1/{label}": 2 * hit / (called + there) for label, (hit, called, there) in present.items()},
    }


def part_scores(details: dict[str, Any]) -> dict[str, float | None]:
    """The score of every part of a combined judge, by its name, at any depth."""
    found: dict[str, float | None] = {}
    for name, part in details.get("parts", {}).items():
        found |= {name: part["score"], **part_scores(part["details"])}
    return found


def out_of_bounds(row: dict[str, float], watch: Watch) -> dict[str, str]:
    """What of a round's numbers has left the recipe's bounds: name → one line."""
    low, high = watch.length
    ratio, repeated, distinct, cut = (row[k] for k in ("length_ratio", "repetition", "distinct", "truncated"))
    lines = {
        "length": (not low <= ratio <= high, f"samples are {ratio:.2f} times as long as their references"),
        "repetition": (repeated > watch.repetition, f"{repeated:.0%} of 4-word sequences are repeated in their report"),
        "distinct": (distinct < watch.distinct, f"only {distinct:.0%} of the reports differ from the others"),
        "truncated": (cut > watch.truncated, f"{cut:.0%} of the samples are cut at max_new_tokens"),
    }
    return {name: line for name, (wrong, line) in lines.items() if wrong}
