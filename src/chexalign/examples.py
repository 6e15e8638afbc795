"""A dozen studies for the page: thumbnails, and reports with right, wrong and missing findings marked."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from chexalign.data.images import load_image
from chexalign.jsonl import atomic_write, write_json
from chexalign.judges.labels import find_mentions
from chexalign.records import Study
from chexalign.results import Answers, is_abnormal, label_set
from chexalign.run import Run
from chexalign.studies import image_root

THUMBNAIL = 320  # pixels, longest side


def write_examples(run: Run, studies: Sequence[Study], answers: dict[tuple[str, str], Answers]) -> None:
    """examples.json and examples/*.png. Studies are taken in file order, not by how well they went: three abnormal to one
    normal, so that the dozen shows findings."""
    decoding = "greedy" if ("aligned", "greedy") in answers else "temperature_1"
    rows = []
    for i in _choose(studies, run.recipe.report.examples):
        study = studies[i]
        rows.append(
            {
                "study_id": study.study_id,
                "split": study.split,
                "decoding": decoding,
                "image": _thumbnail(run, study),
                "indication": study.indication,
                "reference": {"text": study.findings, "marks": _marks(study.findings, None)},
                **{w: _answer(answers[w, decoding], i, study.findings) for w in ("baseline", "aligned")},
            }
        )
    write_json(run.path("examples.json"), rows)


def _choose(studies: Sequence[Study], wanted: int) -> list[int]:
    abnormal = [i for i, s in enumerate(studies) if is_abnormal(s.findings)]
    normal = [i for i in range(len(studies)) if i not in set(abnormal)]
    few = min(len(normal), max(wanted - len(abnormal), wanted // 4))
    return sorted([*abnormal[: wanted - few], *normal[:few]])


def _answer(found: Answers, i: int, reference: str) -> dict[str, Any]:
    text = found.texts[i]
    return {
        "text": text,
        "marks": _marks(text, label_set(reference)),
        "missing": sorted(label_set(reference) - label_set(text) - {"No Finding"}),
        "scores": {judge: values[i] for judge, values in found.scores.items()},
    }


def _marks(text: str, truth: frozenset[str] | None) -> list[dict[str, Any]]:
    """Spans of positive findings: right or wrong by the reference's labels; in the reference itself, all are right."""
    return [
        {
            "start": m.start,
            "end": m.end,
            "kind": "right" if truth is None or m.label in truth else "wrong",
            "label": m.label,
        }
        for m in find_mentions(text)
        if m.status != 0
    ]


def _thumbnail(run: Run, study: Study) -> str | None:
    if not study.images:
        return None
    image = load_image(image_root(run), study.images[0][0])
    image.thumbnail((THUMBNAIL, THUMBNAIL))
    safe = "".join(c if c.isalnum() or c in "-_" else "_" for c in study.study_id)
    path = run.path(f"examples/{safe}.png")
    with atomic_write(path, "wb") as handle:
        image.save(handle, format="PNG")
    return f"examples/{safe}.png"
