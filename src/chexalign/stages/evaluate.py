"""Stage `evaluate`: baseline against aligned on held-out studies → results.json, with controls that ignore the image."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

from chexalign.errors import WorkError
from chexalign.evaluation.answers import DECODINGS, WHICH, Answers, Decoded, Evaluated, is_abnormal
from chexalign.evaluation.blocks import block, finding_blocks
from chexalign.evaluation.controls import image_donors, shuffled_control, template_control, with_other_images
from chexalign.evaluation.counting import chexbert_counts, counts_of, facts_line, facts_read, gold_counts, row_counts
from chexalign.evaluation.examples import write_examples
from chexalign.evaluation.grounding import ground
from chexalign.evaluation.over_optimisation import measure
from chexalign.evaluation.unread import counted
from chexalign.evaluation.warnings import warnings_for
from chexalign.jsonl import atomic_write, write_json
from chexalign.policies import engines
from chexalign.policies.presets import most_images
from chexalign.recipe.recipe import Evaluate
from chexalign.records import Completion, Study
from chexalign.results import Block, Controls, Results
from chexalign.run.folder import Run, StageResult
from chexalign.run.policies import open_policy, prompts_for
from chexalign.run.task import reference
from chexalign.stages.sample import Sampling, generate_to
from chexalign.stages.score import judge_to

BATCH = 128  # studies per batch, at one report each
COMPARED = (("temperature_1", ""), ("greedy", "greedy_"))  # decoding, how its subsets' names begin


def evaluate(run: Run) -> StageResult:
    """Generate, judge and compare both policies on the test split."""
    settings = run.recipe.evaluate
    studies = run.test_studies()
    if not studies:
        raise WorkError("no test study to evaluate on; raise studies.test_share or studies.n")
    donors = image_donors(studies, most_images(run.recipe))
    completions: dict[Decoded, list[Completion]] = {}
    for policy in (*WHICH, *stages_kept(run), *(["untuned"] if settings.untuned else [])):
        completions |= _generate(run, policy, studies, donors)
    answers = {decoded: _judge(run, decoded, studies, rows) for decoded, rows in completions.items()}
    evaluated = Evaluated(studies, [reference(run.recipe, s) for s in studies], answers)
    results = _results(run, evaluated, donors)
    if settings.grounding:
        own = {policy: completions[Decoded(policy, "temperature_1")] for policy in WHICH}
        results = replace(results, grounding=ground(run, studies, own, donors, stages_kept(run)))
    results = replace(results, warnings=tuple(warnings_for(results, _cut_share(completions))))
    _write_per_study(run, evaluated)
    write_examples(run, evaluated)
    gaming = measure(run.recipe, evaluated, most_images(run.recipe))
    write_json(run.path("evaluation/over_optimisation.json"), gaming)
    write_json(run.path("results.json"), results.to_dict())
    return StageResult(len(studies), sum(map(len, completions.values())), {})


def stages_kept(run: Run) -> list[str]:
    """The stages of online training whose best weights were kept: all but the last, whose weights are the aligned policy.

    An arm of a sweep is held against the others by its end alone.
    """
    if run.trunk:
        return []
    return sorted(p.name for p in run.path("stages").glob("stage_*") if (p / "config.json").is_file())


def _decodings(settings: Evaluate, images: bool) -> dict[str, float]:
    """Name → temperature. The shuffled control decodes at temperature 1 too, with the seed of the right images."""
    return {
        "temperature_1": 1.0,
        **({"greedy": 0.0} if settings.greedy else {}),
        **({"shuffled": 1.0} if settings.shuffled_images and images else {}),
    }


def _generate(run: Run, name: str, studies: Sequence[Study], donors: Sequence[int]) -> dict[Decoded, list[Completion]]:
    """What the policy called `name` writes on the studies, in every decoding."""
    policy = open_policy(run, name)
    engines.attach(policy, run.recipe.evaluate.engine, run.recipe.studies.max_images)
    prompts = prompts_for(run, policy, studies)
    images = any(p.images for p in prompts)
    rows = {}
    for decoding, temperature in _decodings(run.recipe.evaluate, images and name in WHICH).items():
        sampling = Sampling(
            n=1,
            temperature=temperature,
            max_new_tokens=run.recipe.sample.max_new_tokens,
            batch_size=BATCH,
            seed=run.recipe.seed + 1,
        )
        shown = with_other_images(prompts, donors) if decoding == "shuffled" else prompts
        path, label = run.path(f"evaluation/{name}.{decoding}.jsonl"), f"{name}, {decoding.replace('_', ' ')}"
        rows[Decoded(name, decoding)] = generate_to(path, policy, studies, shown, sampling, label)
    return rows


def _judge(run: Run, decoded: Decoded, studies: Sequence[Study], rows: Sequence[Completion]) -> Answers:
    judges, name = run.recipe.evaluate.judges, ".".join(decoded)
    by_id = {s.study_id: s for s in studies}
    verdicts = judge_to(run, f"evaluation/{name}.verdicts.jsonl", rows, by_id, judges, f"judging {name}")
    by_judge = {j: [v.score for v in verdicts if v.judge == j] for j in judges}
    texts, truth = [r.text for r in rows], [reference(run.recipe, s) for s in studies]
    counts = {**gold_counts(texts, truth, studies), **chexbert_counts(judges, run.recipe.judges, texts, truth)}
    facts = tuple(facts_read(v.details) for v in verdicts if v.judge == facts_line(judges))
    return Answers(texts, by_judge, tuple(r.written for r in rows), facts, counts, counted(verdicts, judges))


def _results(run: Run, evaluated: Evaluated, donors: Sequence[int]) -> Results:
    """All comparisons and controls; warnings and grounding come after."""
    settings, recipe = run.recipe.evaluate, run.recipe
    subsets = dict(_subsets(evaluated, stages_kept(run), settings))
    template = template_control(recipe, run.studies("train"), evaluated)
    shuffled = None
    if evaluated.has("aligned", "shuffled"):
        shuffled = shuffled_control(evaluated, donors, settings)
        moved = [i for i, donor in enumerate(donors) if donor != i]
        subsets["shuffled"] = _block(evaluated, "shuffled", moved, settings)
    return Results(
        overall=_block(evaluated, "temperature_1", evaluated.everyone(), settings),
        recipe=recipe.name,
        task=recipe.task,
        level=settings.level,
        n_bootstrap=settings.bootstrap,
        headline=tuple(settings.headline),
        subsets=subsets,
        controls=Controls(template, shuffled),
    )


def _block(evaluated: Evaluated, decoding: str, keep: Sequence[int], settings: Evaluate) -> Block:
    return block(*evaluated.pair(decoding), evaluated.references, keep, DECODINGS[decoding], settings)


def _subsets(evaluated: Evaluated, stages: Sequence[str], settings: Evaluate) -> Iterator[tuple[str, Block]]:
    """The blocks beside the headline's, by name, in the order of results.json."""
    abnormal = evaluated.abnormal()
    yield "abnormal", _block(evaluated, "temperature_1", abnormal, settings)
    if settings.greedy:
        yield "greedy", _block(evaluated, "greedy", evaluated.everyone(), settings)
        yield "greedy_abnormal", _block(evaluated, "greedy", abnormal, settings)
    steps = list(pairwise(("baseline", *stages, "aligned"))) if stages else []
    yield from _step_blocks(evaluated, {f"stage_{n}": step for n, step in enumerate(steps, start=1)}, settings)
    yield from _step_blocks(evaluated, {"warmup": ("untuned", "baseline")}, settings)
    everyone = evaluated.pair("temperature_1")
    yield from finding_blocks(*everyone, evaluated.references, DECODINGS["temperature_1"], settings).items()


def _step_blocks(
    evaluated: Evaluated, steps: Mapping[str, tuple[str, str]], settings: Evaluate
) -> Iterator[tuple[str, Block]]:
    """What each step (name → policy before, policy after) has brought, paired, where both policies were decoded so."""
    for decoding, prefix in COMPARED:
        for name, (before, after) in steps.items():
            if evaluated.has(before, decoding) and evaluated.has(after, decoding):
                pair = evaluated.pair(decoding, before, after)
                words, everyone = DECODINGS[decoding], evaluated.everyone()
                yield f"{prefix}{name}", block(*pair, evaluated.references, everyone, words, settings)


def _cut_share(completions: Mapping[Decoded, Sequence[Completion]]) -> float:
    """The share of the aligned policy's reports on the right images that were cut at sample.max_new_tokens."""
    own = [
        r
        for (policy, decoding), rows in completions.items()
        if policy == "aligned"
        for r in rows
        if decoding != "shuffled"
    ]
    return sum(r.finish_reason == "length" for r in own) / len(own)


def _write_per_study(run: Run, evaluated: Evaluated) -> None:
    """evaluation/per_study.jsonl: one row per study, policy and decoding, for the page and for `compare`."""
    with atomic_write(run.path("evaluation/per_study.jsonl")) as handle:
        for (policy, decoding), answers in evaluated.answers.items():
            counts = counts_of(answers, evaluated.references)
            for i, (study, text) in enumerate(zip(evaluated.studies, evaluated.references, strict=True)):
                row: dict[str, Any] = {
                    "study_id": study.study_id,
                    "decoding": decoding,
                    "policy": policy,
                    "words": len(answers.texts[i].split()),
                    "reference_words": len(text.split()),
                    "abnormal": is_abnormal(text, study),
                    "scores": {j: v[i] for j, v in answers.scores.items()},
                    "counts": row_counts(counts, i),
                }
                handle.write(json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n")
