"""Stage `studies`: a source's rows → studies.jsonl, with every unusable row named and counted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from chexalign.data import (
    Drops,
    check_leakage,
    is_drawn,
    labels_alone,
    source_entry,
    unit_hash,
)
from chexalign.data.language import language_warning
from chexalign.data.read import read_studies
from chexalign.errors import RecipeError, WorkError
from chexalign.jsonl import atomic_write, write_json, write_records
from chexalign.progress import progress, say
from chexalign.recipe.recipe import Recipe
from chexalign.records import SPLITS, Study
from chexalign.run.folder import LABELLED, Run, StageResult
from chexalign.run.task import missing_section, reference
from chexalign.stages.study_images import usable_images

SHOWN = 10  # dropped rows printed; all of them are in studies_dropped.txt


def make_studies(run: Run) -> StageResult:
    """Read the sources, drop what cannot be used with one line each, refuse patient leakage, write studies.jsonl."""
    settings, drops = run.recipe.studies, Drops()
    check_reports(run.recipe)
    with progress("reading studies", settings.n, "studies") as ticker:
        candidates = []
        for study in read_studies(settings, run.recipe.seed, run.dir, drops):
            candidates.append(study)
            ticker.advance()
    rows_in = len(candidates) + drops.reasons.total()
    with_text = _with_text(_in_drawn_order(candidates, run), run, drops)
    usable = usable_images(with_text, min(len(candidates), settings.n or len(candidates)), run, drops)
    check_leakage(usable)
    labelled, studies = [s for s in usable if labels_alone(s)], [s for s in usable if not labels_alone(s)]
    if labelled:
        drops.note(
            f"images with labels and no report: they teach the warm-up's tower alone ({LABELLED})", len(labelled)
        )
        write_records(run.path(LABELLED), sorted(labelled, key=Study.key))
    _report(run, drops, studies)
    for split in needed_splits(run.recipe):
        if not any(s.split == split for s in studies):
            raise WorkError(
                f"no usable {split} study among {len(studies)} from {names_of(run.recipe)}; {_remedy(studies)}"
            )
    write_records(run.path("studies.jsonl"), sorted(studies, key=Study.key))
    return StageResult(rows_in, len(usable), dict(drops.reasons))


def check_reports(recipe: Recipe) -> None:
    """Raise RecipeError where no source brings reports: there is nothing to learn to write."""
    if not any(source_entry(part.source).has_reports for part in recipe.studies.parts()):
        raise RecipeError(
            f"{names_of(recipe)} brings labels and no reports: nothing can be written; add a source under `sources`"
        )


def needed_splits(recipe: Recipe) -> tuple[str, ...]:
    """Training and test always; validation where a warm-up stops early on it."""
    return ("train", "val", "test") if recipe.warmup else ("train", "test")


def names_of(recipe: Recipe) -> str:
    """The sources of a recipe, for messages: more than one where parts are joined."""
    return ", ".join(part.source or "" for part in recipe.studies.parts())


def _remedy(studies: list[Study]) -> str:
    if not studies:
        return "see what was dropped"
    return "raise studies.n or the split's share, see what was dropped, or let us split by patient: studies.split_by=patient"


def _in_drawn_order(studies: list[Study], run: Run) -> list[Study]:
    """When only some studies are wanted, patients come in a seeded random order and each patient's studies stay together."""
    if run.recipe.studies.n is None or is_drawn(run.recipe.studies):
        return studies
    return sorted(studies, key=lambda s: unit_hash("draw", run.recipe.seed, s.patient_id))


def _with_text(studies: list[Study], run: Run, drops: Drops) -> Iterator[Study]:
    """The studies whose texts can be used, each id once."""
    seen = set()
    for study in studies:
        where = drops.where(study.study_id)
        if study.study_id in seen:
            line = f"{where}: a second row with this id; give each study its own id"
            drops.add("duplicate study id", line, study.split)
            continue
        seen.add(study.study_id)
        if not labels_alone(study) and (lost := _lost_section(run.recipe, study)):
            drops.add(lost[0], f"{where}: {lost[1]}; add it or remove the row", study.split)
            continue
        yield study


def _lost_section(recipe: Recipe, study: Study) -> tuple[str, str] | None:
    """(reason, what to say) where the study has not the texts that the task or the recipe asks for."""
    if lost := missing_section(recipe, study):
        reason = "empty reference" if lost == recipe.task else f"no {lost}"
        return reason, f"no {lost} text to {'judge against' if lost == recipe.task else 'write it from'}"
    asked = next((name for name in recipe.studies.require if not getattr(study, name).strip()), None)
    return None if asked is None else (f"no {asked}", f"no {asked}, which studies.require asks for")


def _report(run: Run, drops: Drops, studies: list[Study]) -> None:
    """Say what was dropped and what was remarked; every line in studies_dropped.txt, all counts in studies_counts.json."""
    if warning := language_warning([reference(run.recipe, s) for s in studies]):
        say(f"warning: {warning}")
    for remark, n in drops.notes.most_common(SHOWN):
        say(f"note: {remark} ({n:,})")
    write_json(run.path("studies_counts.json"), counts_of(run.recipe, drops, studies))
    if not drops.lines:
        return
    path = run.path("studies_dropped.txt")
    with atomic_write(path) as handle:
        handle.write("\n".join(drops.lines) + "\n")
    for line in drops.lines[:SHOWN]:
        say(f"dropped: {line}")
    counts = ", ".join(f"{n} {reason}" for reason, n in drops.reasons.most_common())
    say(f"dropped {len(drops.lines)} rows ({counts}); all lines in {path}")


def counts_of(recipe: Recipe, drops: Drops, studies: list[Study]) -> dict[str, object]:
    """What is counted (study or image), kept and dropped per split, and the remarks; "unknown": before its split was."""
    kept = Counter(s.split for s in studies)
    dropped = {}
    for reason, n in drops.reasons.most_common():
        by_split = {s: drops.by_split[reason, s] for s in SPLITS if drops.by_split[reason, s]}
        unknown = n - sum(by_split.values())
        dropped[reason] = by_split | ({"unknown": unknown} if unknown else {})
    return {
        "sources": names_of(recipe),
        "unit": recipe.studies.unit,
        "text": recipe.task,
        "kept": {s: kept[s] for s in SPLITS},
        "dropped": dropped,
        "notes": dict(drops.notes.most_common()),
    }
