"""A dozen studies for the page: thumbnails, and reports with right, wrong and missing findings marked."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

from chexalign.data.images import load_image
from chexalign.evaluation.answers import WHICH, Answers, Evaluated, is_abnormal, label_set
from chexalign.jsonl import atomic_write, write_json
from chexalign.labels import Mention, find_mentions
from chexalign.policies.presets import most_images
from chexalign.records import Study
from chexalign.run.folder import Run
from chexalign.run.studies import image_root

THUMBNAIL = 320  # pixels, longest side
SIDES = {"left": ("left",), "right": ("right",), "bilateral": ("left", "right")}


def write_examples(run: Run, evaluated: Evaluated) -> None:
    """examples.json and examples/*.png. Studies are taken in file order, not by how well they went: three abnormal to one
    normal, so that the dozen shows findings."""
    decoding = "temperature_1"  # the headline's
    rows = []
    references = evaluated.references
    for i in _choose(references, run.recipe.report.examples):
        study = evaluated.studies[i]
        rows.append(
            {
                "study_id": study.study_id,
                "split": study.split,
                "decoding": decoding,
                "image": _thumbnail(run, study),
                "indication": study.indication,
                **({"findings": study.findings} if run.recipe.task == "impression" else {}),
                "reference": {
                    "text": references[i],
                    "marks": reference_marks(references[i], evaluated.of("aligned", decoding).texts[i]),
                },
                **{which: _answer(evaluated.of(which, decoding), i, references[i]) for which in WHICH},
            }
        )
    write_json(run.path("examples.json"), rows)


def _choose(references: Sequence[str], wanted: int) -> list[int]:
    abnormal = [i for i, text in enumerate(references) if is_abnormal(text)]
    normal = [i for i in range(len(references)) if i not in set(abnormal)]
    few = min(len(normal), max(wanted - len(abnormal), wanted // 4))
    return sorted([*abnormal[: wanted - few], *normal[:few]])


def _answer(answers: Answers, i: int, reference: str) -> dict[str, Any]:
    text, written = answers.texts[i], answers.written[i] if answers.written else None
    return {
        "text": text,
        **({} if written is None else {"written": written}),
        **({"facts": answers.facts[i]} if answers.facts and answers.facts[i] else {}),
        "marks": marks(text, reference),
        "missing": sorted(label_set(reference) - label_set(text) - {"No Finding"}),
        "scores": {judge: values[i] for judge, values in answers.scores.items()},
    }


def marks(text: str, reference: str) -> list[dict[str, Any]]:
    """Spans of a report's positive findings: right where the reference has the finding on that side, else wrong."""
    truth = _sides(reference)
    return [_mark(m, "right" if _agrees(m, truth) else "wrong") for m in find_mentions(text) if m.status != 0]


def reference_marks(reference: str, text: str) -> list[dict[str, Any]]:
    """Spans of the reference's positive findings: right where the aligned report has the finding at all, else missing."""
    stated = label_set(text)
    return [_mark(m, "right" if m.label in stated else "missing") for m in find_mentions(reference) if m.status != 0]


def _mark(mention: Mention, kind: str) -> dict[str, Any]:
    return {"start": mention.start, "end": mention.end, "kind": kind, "label": mention.label}


def _sides(text: str) -> dict[str, set[str]]:
    """Finding → the sides its positive mentions name; an empty set where none is named."""
    found: dict[str, set[str]] = {}
    for m in find_mentions(text):
        if m.status != 0:
            found.setdefault(m.label, set()).update(SIDES.get(m.side or "", ()))
    return found


def _agrees(mention: Mention, truth: dict[str, set[str]]) -> bool:
    sides, named = truth.get(mention.label), set(SIDES.get(mention.side or "", ()))
    return sides is not None and (not sides or not named or bool(sides & named))


def _thumbnail(run: Run, study: Study) -> str | None:
    if not study.images[: most_images(run.recipe)]:
        return None
    image = load_image(image_root(run), study.images[0][0])
    image.thumbnail((THUMBNAIL, THUMBNAIL))
    name = hashlib.blake2b(study.study_id.encode(), digest_size=8).hexdigest()  # an id may hold what a file name cannot
    path = run.path(f"examples/{name}.png")
    with atomic_write(path, "wb") as handle:
        image.save(handle, format="PNG")
    return f"examples/{name}.png"
