"""Stage `evaluate`: baseline against aligned on held-out studies → results.json, with controls that ignore the image."""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from chexalign.errors import WorkError
from chexalign.evaluation.answers import WHICH, Answers, is_abnormal
from chexalign.evaluation.blocks import block, finding_blocks
from chexalign.evaluation.controls import (
    _shuffled_control,
    _template_control,
    _with_other_images,
    image_donors,
)
from chexalign.evaluation.counting import chexbert_counts, counts_of, facts_line, facts_read, gold_counts, row_counts
from chexalign.evaluation.examples import write_examples
from chexalign.evaluation.grounding import ground
from chexalign.evaluation.warnings import warnings_for
from chexalign.jsonl import atomic_write, read_records, write_json
from chexalign.policies import engines
from chexalign.recipe.recipe import Evaluate
from chexalign.records import Completion, Study
from chexalign.run.folder import Run, StageResult
from chexalign.run.policies import open_policy, prompts_for
from chexalign.run.task import reference
from chexalign.stages.sample import generate_to
from chexalign.stages.score import judge_to

BATCH = 128  # studies per batch, at one report each


def evaluate(run: Run) -> StageResult:
    """Generate, judge and compare both policies on the test split."""
    settings = run.recipe.evaluate
    everyone = read_records(run.path("studies.jsonl"), Study)
    studies = [s for s in everyone if s.split == "test"][: settings.limit]
    if not studies:
        raise WorkError("no test study to evaluate on; raise studies.test_share or studies.n")
    references = [reference(run.recipe, s) for s in studies]
    rows: dict[tuple[str, str], list[Completion]] = {}
    for which in (*WHICH, *stages_kept(run), *(["untuned"] if settings.untuned else [])):
        rows |= _generate(run, which, studies)
    answers = {key: _judge(run, key, studies, found) for key, found in rows.items()}
    results = _results(run, studies, references, answers)
    results["controls"] = {"template": _template_control(run, everyone, studies)}
    if ("aligned", "shuffled") in answers:
        donors = image_donors(run, studies)
        results["controls"]["shuffled_images"] = _shuffled_control(run, answers, donors)
        blind = answers["baseline", "shuffled"], answers["aligned", "shuffled"]
        moved = [i for i, donor in enumerate(donors) if donor != i]
        results["subsets"]["shuffled"] = block(*blind, references, moved, "temperature 1.0", settings)
    if run.recipe.evaluate.grounding:
        own = {which: rows[which, "temperature_1"] for which in ("baseline", "aligned")}
        results["grounding"] = ground(run, studies, own, image_donors(run, studies), stages_kept(run))
    cut = [
        r for (which, decoding), found in rows.items() if which == "aligned" for r in found if decoding != "shuffled"
    ]
    results["warnings"] = warnings_for(results, sum(r.finish_reason == "length" for r in cut) / len(cut))
    _write_per_study(run, studies, answers)
    write_examples(run, studies, answers)
    write_json(run.path("results.json"), results)
    return StageResult(len(studies), sum(map(len, rows.values())), {})


def _decodings(run: Run, images: bool) -> dict[str, float]:
    """Name → temperature. The shuffled control decodes at temperature 1 too, with the seed of the right images."""
    settings = run.recipe.evaluate
    return {
        "temperature_1": 1.0,
        **({"greedy": 0.0} if settings.greedy else {}),
        **({"shuffled": 1.0} if settings.shuffled_images and images else {}),
    }


def stages_kept(run: Run) -> list[str]:
    """The stages of online training whose best weights were kept: all but the last, whose weights are the aligned policy.

    An arm of a sweep is held against the others by its end alone.
    """
    return (
        [] if run.trunk else sorted(p.name for p in run.path("stages").glob("stage_*") if (p / "config.json").is_file())
    )


def _stage_blocks(
    answers: dict[tuple[str, str], Answers], references: list[str], kept: Sequence[str], settings: Evaluate
) -> dict[str, Any]:
    """What each stage has brought over the one before it, paired; the first is held against the baseline."""
    steps, found = ["baseline", *kept, "aligned"], {}
    for decoding, prefix, words in (("temperature_1", "", "temperature 1.0"), ("greedy", "greedy_", "greedy")):
        for number, (before, after) in enumerate(pairwise(steps), start=1):
            if kept and (after, decoding) in answers:
                pair = answers[before, decoding], answers[after, decoding]
                found[f"{prefix}stage_{number}"] = block(*pair, references, range(len(references)), words, settings)
    return found


def _untuned_blocks(
    answers: dict[tuple[str, str], Answers], references: list[str], settings: Evaluate
) -> dict[str, Any]:
    """What the warm-up has brought: the baseline held against the model it came from, paired."""
    found = {}
    for decoding, prefix, words in (("temperature_1", "", "temperature 1.0"), ("greedy", "greedy_", "greedy")):
        if ("untuned", decoding) in answers:
            pair = answers["untuned", decoding], answers["baseline", decoding]
            found[f"{prefix}warmup"] = block(*pair, references, range(len(references)), words, settings)
    return found


def _generate(run: Run, which: str, studies: Sequence[Study]) -> dict[tuple[str, str], list[Completion]]:
    policy = open_policy(run, which)
    engines.attach(policy, run.recipe.evaluate.engine, run.recipe.studies.max_images)
    prompts = prompts_for(run, policy, studies)
    rows = {}
    images = any(p.images for p in prompts)
    for decoding, temperature in _decodings(run, images and which in WHICH).items():
        rows[which, decoding] = generate_to(
            run.path(f"evaluation/{which}.{decoding}.jsonl"),
            policy,
            studies,
            _with_other_images(prompts, image_donors(run, studies)) if decoding == "shuffled" else prompts,
            label=f"{which}, {decoding.replace('_', ' ')}",
            seed=run.recipe.seed + 1,
            n=1,
            temperature=temperature,
            top_p=1.0,
            max_new_tokens=run.recipe.sample.max_new_tokens,
            batch_size=BATCH,
        )
    return rows


def _judge(run: Run, key: tuple[str, str], studies: Sequence[Study], rows: Sequence[Completion]) -> Answers:
    judges = run.recipe.evaluate.judges
    name = ".".join(key)
    by_id = {s.study_id: s for s in studies}
    verdicts = judge_to(run, f"evaluation/{name}.verdicts.jsonl", rows, by_id, judges, f"judging {name}")
    by_judge = {j: [v.score for v in verdicts if v.judge == j] for j in judges}
    texts, truth = [r.text for r in rows], [reference(run.recipe, s) for s in studies]
    counts = {**gold_counts(texts, truth, studies), **chexbert_counts(judges, run.recipe.judges, texts, truth)}
    facts = tuple(facts_read(v.details) for v in verdicts if v.judge == facts_line(judges))
    return Answers(texts, by_judge, tuple(r.written for r in rows), facts, counts)


def _results(
    run: Run, studies: Sequence[Study], references: list[str], answers: dict[tuple[str, str], Answers]
) -> dict:
    settings, n = run.recipe.evaluate, len(studies)
    abnormal = [i for i in range(n) if is_abnormal(references[i], studies[i])]
    hot = answers["baseline", "temperature_1"], answers["aligned", "temperature_1"]
    subsets = {"abnormal": block(*hot, references, abnormal, "temperature 1.0", settings)}
    if settings.greedy:
        cold = answers["baseline", "greedy"], answers["aligned", "greedy"]
        subsets["greedy"] = block(*cold, references, range(n), "greedy", settings)
        subsets["greedy_abnormal"] = block(*cold, references, abnormal, "greedy", settings)
    subsets |= _stage_blocks(answers, references, stages_kept(run), settings)
    subsets |= _untuned_blocks(answers, references, settings)
    subsets |= finding_blocks(*hot, references, "temperature 1.0", settings)
    return {
        "recipe": run.recipe.name,
        "task": run.recipe.task,
        "level": settings.level,
        "n_bootstrap": settings.bootstrap,
        "headline": list(settings.headline),
        **block(*hot, references, range(n), "temperature 1.0", settings),
        "subsets": subsets,
    }


def _write_per_study(run: Run, studies: Sequence[Study], answers: dict[tuple[str, str], Answers]) -> None:
    """evaluation/per_study.jsonl: one row per study, policy and decoding, for the page and for `compare`."""
    with atomic_write(run.path("evaluation/per_study.jsonl")) as handle:
        references = [reference(run.recipe, s) for s in studies]
        for (which, decoding), found in answers.items():
            counts = counts_of(found, references)
            for i, study in enumerate(studies):
                told = reference(run.recipe, study)
                row = {
                    "study_id": study.study_id,
                    "decoding": decoding,
                    "policy": which,
                    "words": len(found.texts[i].split()),
                    "reference_words": len(told.split()),
                    "abnormal": is_abnormal(told, study),
                    "scores": {j: v[i] for j, v in found.scores.items()},
                    "counts": row_counts(counts, i),
                }
                handle.write(json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n")
