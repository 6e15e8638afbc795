"""Where a policy looks against where the finding is: pointing game and share of attention, on studies with known places.

A finding's words are the sentence that names it. On the reference report both policies read the same words, so that what
differs is where they look; on their own reports they chose the words too. docs/use/grounding.md says what this is not.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from chexalign import stats
from chexalign.evaluation.answers import SEED
from chexalign.evaluation.grounding.maps import write_maps
from chexalign.evaluation.grounding.pointing import METRICS, Grid, measure
from chexalign.evaluation.grounding.words import places, spell, statements
from chexalign.jsonl import atomic_write
from chexalign.policies.attention import NoMap, image_attention, image_token
from chexalign.policies.policy import Policy
from chexalign.policies.prompt import Prompt
from chexalign.progress import progress, say
from chexalign.records import Completion, Study
from chexalign.run.folder import Run
from chexalign.run.policies import open_policy, prompts_for
from chexalign.run.task import reference

BATCH = 8  # studies per forward pass: eager attention holds (studies, heads, length, length) # our choice
POLICIES = ("baseline", "aligned")
# ---- words


# ---- one policy


def _read(policy: Policy, prompts: Sequence[Prompt], tokens: Sequence[Sequence[int]], label: str) -> list[Grid]:
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
        for label, said in statements(*spell(policy, written)).items():
            if label not in boxes:
                continue
            chosen = list(said.tokens)
            if words == "other_words":  # the last token ends the text
                chosen = [k for k in range(len(written) - 1) if k not in said.tokens]
            scores = measure(attention[chosen].mean(0), boxes[label]) if chosen else None
            rows.append({"study_id": study.study_id, "label": label, "words": words, "scores": scores})
    return rows


def _written(policy: Policy, report: Completion) -> tuple[int, ...]:
    """The tokens that were sampled; those of the text where they are unknown, or hold a placeholder of images."""
    image = image_token(policy)
    return report.tokens if report.tokens and image not in report.tokens else policy.completion_ids(report.text)


# ---- the run


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
    asked = run.recipe.evaluate.grounding
    kept = range(len(studies)) if asked is True else range(min(len(studies), int(asked)))
    chosen, rows, maps = [studies[i] for i in kept], list[dict[str, Any]](), dict[str, list[Grid]]()
    try:
        for which in POLICIES:
            policy = open_policy(run, which)
            seen = prompts_for(run, policy, studies)
            prompts = [seen[i] for i in kept]
            swapped = [Prompt(seen[i].text, seen[donors[i]].images, seen[i].root) for i in kept]
            told = [policy.completion_ids(reference(run.recipe, s)) for s in chosen]
            wrote = [_written(policy, own[which][i]) for i in kept]
            maps[which] = _read(policy, prompts, told, f"{which}, references")
            found = _rows(policy, chosen, told, maps[which], "reference")
            found += _rows(policy, chosen, told, maps[which], "other_words")
            if any(places(s) for s in chosen):
                moved = [k for k, i in enumerate(kept) if donors[i] != i]
                those, said = [chosen[k] for k in moved], [told[k] for k in moved]
                blind = _read(policy, [swapped[k] for k in moved], said, f"{which}, other images")
                found += _rows(policy, those, said, blind, "other_image")
                seen_own = _read(policy, prompts, wrote, f"{which}, own reports")
                found += _rows(policy, chosen, wrote, seen_own, "own")
            rows += [{**row, "policy": which} for row in found]
        spelled = [spell(policy, tokens) for tokens in told]
        for which in stages:
            policy = open_policy(run, which)
            seen_there = _read(policy, prompts, told, f"{which}, references")
            rows += [{**row, "policy": which} for row in _rows(policy, chosen, told, seen_there, "reference")]
    except NoMap as error:
        say(f"grounding: {error}")
        return {"abstained": str(error)}
    with atomic_write(run.path("evaluation/grounding.jsonl")) as handle:
        handle.writelines(json.dumps(row, allow_nan=False) + "\n" for row in rows)
    write_maps(run, chosen, spelled, [statements(*s) for s in spelled], maps, places)
    grid = list(maps["baseline"][0].shape[1:])
    return {
        "n_studies": len(chosen),
        "grid": grid,
        **(_blocks(run, chosen, rows, stages) if rows else {"places": False}),
    }


def _blocks(
    run: Run, studies: Sequence[Study], rows: Sequence[dict[str, Any]], stages: Sequence[str]
) -> dict[str, Any]:
    settings = run.recipe.evaluate
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
    found: dict[str, list[float]] = {}
    for row in rows:
        if (row["words"], row["policy"]) == (words, which) and row["scores"]:
            found.setdefault(row["study_id"], []).append(row["scores"][metric])
    return [float(np.mean(v)) if (v := found.get(s.study_id)) else None for s in studies]


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
