"""Where a policy looks against where the finding is: pointing game and share of attention, on studies with known places.

A finding's words are the sentence that names it. On the reference report both policies read the same words, so that what
differs is where they look; on their own reports they chose the words too. docs/use/grounding.md says what this is not.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from chexalign import stats
from chexalign.evaluation.answers import SEED, WHICH
from chexalign.evaluation.grounding.maps import write_maps
from chexalign.evaluation.grounding.pointing import METRICS, Grid, measure
from chexalign.evaluation.grounding.words import places, spell, statements
from chexalign.jsonl import atomic_write
from chexalign.policies.attention import NoMap, image_attention, image_token
from chexalign.policies.policy import Policy
from chexalign.policies.prompt import Prompt
from chexalign.progress import progress, say
from chexalign.recipe.recipe import Evaluate
from chexalign.records import Completion, Study
from chexalign.run.folder import Run
from chexalign.run.policies import open_policy, prompts_for
from chexalign.run.task import reference

BATCH = 8  # studies per forward pass: eager attention holds (studies, heads, length, length) # our choice
POLICIES = WHICH


@dataclass(frozen=True)
class Reading:
    """What one policy looked at while it read: a row per finding and way of reading, and its maps of the references."""

    rows: list[dict[str, Any]]
    maps: list[Grid]  # per study (T, rows, columns), on its reference report
    prompts: list[Prompt]
    references: list[tuple[int, ...]]  # token ids of the reference reports
    spelled: list[tuple[str, list[int]]]  # their text, and where each token ends in it


def _attention(policy: Policy, prompts: Sequence[Prompt], tokens: Sequence[Sequence[int]], label: str) -> list[Grid]:
    """Attention to each prompt's first image: (T, rows, columns)."""
    if not all(p.images for p in prompts):
        raise NoMap("the prompts show no image")
    maps: list[Grid] = []
    with progress(f"attention, {label}", len(prompts), "studies") as ticker:
        for i in range(0, len(prompts), BATCH):
            part = slice(i, i + BATCH)
            maps += [images[0].numpy() for images in image_attention(policy, prompts[part], tokens[part])]
            ticker.advance(len(prompts[part]))
    return maps


def _rows(
    policy: Policy, studies: Sequence[Study], tokens: Sequence[Sequence[int]], maps: Sequence[Grid], words: str
) -> list[dict[str, Any]]:
    """One row per finding that is stated and there. `words` is what of the report is read: its sentence or the others."""
    rows = []
    for study, written, attention in zip(studies, tokens, maps, strict=True):
        boxes = places(study)
        for label, statement in statements(*spell(policy, written)).items():
            if label not in boxes:
                continue
            chosen = list(statement.tokens)
            if words == "other_words":  # the last token ends the text
                chosen = [k for k in range(len(written) - 1) if k not in statement.tokens]
            scores = measure(attention[chosen].mean(0), boxes[label]) if chosen else None
            rows.append({"study_id": study.study_id, "label": label, "words": words, "scores": scores})
    return rows


def _written(policy: Policy, report: Completion) -> tuple[int, ...]:
    """The tokens that were sampled; those of the text where they are unknown, or hold a placeholder of images."""
    image = image_token(policy)
    return report.tokens if report.tokens and image not in report.tokens else policy.completion_ids(report.text)


def _read(
    run: Run, which: str, studies: Sequence[Study], donors: Sequence[int], own: Sequence[Completion], n: int
) -> Reading:
    """The policy `which` reads the first `n` studies: the references, on the right and on other images, and its own."""
    policy = open_policy(run, which)
    prompts = prompts_for(run, policy, studies)
    chosen, shown = studies[:n], prompts[:n]
    references = [policy.completion_ids(reference(run.recipe, s)) for s in chosen]
    maps = _attention(policy, shown, references, f"{which}, references")
    rows = _rows(policy, chosen, references, maps, "reference")
    rows += _rows(policy, chosen, references, maps, "other_words")
    if any(places(s) for s in chosen):
        moved = [i for i in range(n) if donors[i] != i]
        others = [Prompt(prompts[i].text, prompts[donors[i]].images, prompts[i].root) for i in moved]
        tokens = [references[i] for i in moved]
        other_maps = _attention(policy, others, tokens, f"{which}, other images")
        rows += _rows(policy, [studies[i] for i in moved], tokens, other_maps, "other_image")
        written = [_written(policy, report) for report in own[:n]]
        own_maps = _attention(policy, shown, written, f"{which}, own reports")
        rows += _rows(policy, chosen, written, own_maps, "own")
    spelled = [spell(policy, tokens) for tokens in references]
    return Reading([{**row, "policy": which} for row in rows], maps, shown, references, spelled)


def _read_stage(run: Run, stage: str, studies: Sequence[Study], aligned: Reading) -> list[dict[str, Any]]:
    """The rows of a policy between the two, which reads the references alone, as the aligned one did."""
    policy = open_policy(run, stage)
    maps = _attention(policy, aligned.prompts, aligned.references, f"{stage}, references")
    rows = _rows(policy, studies, aligned.references, maps, "reference")
    return [{**row, "policy": stage} for row in rows]


def ground(
    run: Run,
    studies: Sequence[Study],
    own: Mapping[str, Sequence[Completion]],
    donors: Sequence[int],
    stages: Sequence[str] = (),
) -> dict[str, Any]:
    """The block `grounding` of results.json, evaluation/grounding.jsonl, and the maps of a few studies for the page.

    `own` holds each policy's reports on the studies, `donors` for each study another one whose image it gets as a control.
    `stages` are policies between the two, of which only the attention on the reference reports is read.
    A policy whose attention cannot be laid over its images gives `{"abstained": why}`.
    """
    wanted = run.recipe.evaluate.grounding
    n = len(studies) if wanted is True else min(len(studies), int(wanted))
    chosen = studies[:n]
    try:
        readings = {which: _read(run, which, studies, donors, own[which], n) for which in POLICIES}
        rows = [row for reading in readings.values() for row in reading.rows]
        for stage in stages:
            rows += _read_stage(run, stage, chosen, readings["aligned"])
    except NoMap as error:
        say(f"grounding: {error}")
        return {"abstained": str(error)}
    with atomic_write(run.path("evaluation/grounding.jsonl")) as handle:
        handle.writelines(json.dumps(row, allow_nan=False) + "\n" for row in rows)
    spelled = readings["aligned"].spelled
    maps = {which: reading.maps for which, reading in readings.items()}
    write_maps(run, chosen, spelled, [statements(*s) for s in spelled], maps)
    return {
        "n_studies": n,
        "grid": list(maps["baseline"][0].shape[1:]),
        **(_blocks(run.recipe.evaluate, chosen, rows, stages) if rows else {"places": False}),
    }


def _blocks(
    settings: Evaluate, studies: Sequence[Study], rows: Sequence[dict[str, Any]], stages: Sequence[str]
) -> dict[str, Any]:
    """The scores by what was read, with bootstrap intervals over studies, and what each stage changed."""
    boot = (settings.bootstrap, SEED, settings.level)
    values = {
        (words, which, metric): _per_study(studies, rows, words, which, metric)
        for words in ("reference", "own", "other_words", "other_image")
        for which in (*POLICIES, *stages)
        for metric in METRICS
    }

    def block(words: str, before: str = "baseline", after: str = "aligned") -> dict[str, Any]:
        sides = zip(POLICIES, (before, after), strict=True)
        out = {p: {m: stats.mean_cell(values[words, which, m], *boot) for m in METRICS} for p, which in sides}
        changes = {
            m: stats.paired_difference(values[words, before, m], values[words, after, m], *boot) for m in METRICS[:3]
        }
        return {**out, "difference": changes}

    def above(words: str) -> dict[str, Any]:
        """How much more the finding's own words on the right image score, study by study."""
        return {
            p: {m: stats.paired_difference(values[words, p, m], values["reference", p, m], *boot) for m in METRICS[:3]}
            for p in POLICIES
        }

    controls = {words: {**block(words), "above": above(words)} for words in ("other_words", "other_image")}
    steps = list(pairwise(["baseline", *stages, "aligned"])) if stages else []
    return {
        "places": True,
        **block("reference"),
        **{f"stage_{n}": block("reference", *step) for n, step in enumerate(steps, start=1)},
        "controls": controls,
        "own": block("own"),
        "findings": _by_finding(rows),
        "counts": _counts(studies, rows),
    }


def _per_study(
    studies: Sequence[Study], rows: Sequence[dict[str, Any]], words: str, which: str, metric: str
) -> list[float | None]:
    """The mean over a study's findings; None where none could be scored."""
    scores: dict[str, list[float]] = {}
    for row in rows:
        if (row["words"], row["policy"]) == (words, which) and row["scores"]:
            scores.setdefault(row["study_id"], []).append(row["scores"][metric])
    return [float(np.mean(v)) if (v := scores.get(s.study_id)) else None for s in studies]


def _by_finding(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Per finding, on the reference reports: means over studies, without intervals (n is small)."""
    out: dict[str, Any] = {}
    for label in sorted({r["label"] for r in rows if r["words"] == "reference"}):
        for which in POLICIES:
            mine = [
                r["scores"]
                for r in rows
                if (r["words"], r["policy"], r["label"]) == ("reference", which, label) and r["scores"]
            ]
            out.setdefault(label, {})[which] = {"n": len(mine)} | {
                m: float(np.mean([s[m] for s in mine])) if mine else None for m in METRICS
            }
    return out


def _counts(studies: Sequence[Study], rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """How many findings have a known place, and how many of them were stated, by report; the rest is left out."""
    stated = Counter(r["policy"] if r["words"] == "own" else r["words"] for r in rows if r["policy"] == "baseline")
    stated |= Counter(r["policy"] for r in rows if r["words"] == "own")
    there = sum(len(places(s)) for s in studies)
    return {"placed": there, **{name: stated[name] for name in ("reference", *POLICIES)}}
