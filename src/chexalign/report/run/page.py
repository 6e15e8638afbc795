"""Writes `report.html`: one self-contained page from the files of a run folder; no scripts, no network."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from markupsafe import Markup

from chexalign.report import wording
from chexalign.report.inputs import RunFiles, image_uri, is_drawn, mapping, read_run
from chexalign.report.render import fill, put
from chexalign.report.run import figures, tables
from chexalign.report.run.gaming import gaming_section
from chexalign.report.run.grounding import grounding_section
from chexalign.report.run.highlight import KINDS, MEANINGS, highlight, read_marks
from chexalign.report.run.stages import stage_tables
from chexalign.results import Block, Results

TEXTS = {"reference": "Reference report", "baseline": "Baseline model", "aligned": "Aligned model"}


@dataclass(frozen=True)
class ExampleText:
    """One of the three texts of an example study, ready to show."""

    title: str
    body: Markup
    missing: tuple[str, ...]
    scores: tuple[tuple[str, str], ...]
    facts: tuple[tuple[str, str], ...]  # label and the facts that decide it, where the judge `facts` was asked
    written: str  # with the tags and the markup that were taken away; empty where there were none


@dataclass(frozen=True)
class Example:
    """One study: the image, why it was taken, and three texts."""

    study_id: str
    origin: str
    indication: str
    findings: str  # what an impression is written from; empty where the findings are what is written
    image: str | None
    image_note: str
    texts: tuple[ExampleText, ...]


def write_page(run_dir: Path) -> Path:
    """Write `run_dir/report.html` in one step and return its path. Raises WorkError where nothing can be reported."""
    return put(run_dir / "report.html", render(read_run(run_dir)))


def render(run: RunFiles) -> str:
    """The page as text; the same files give the same page."""
    return fill("run.html.j2", **_summary(run), **_evidence(run), **_provenance(run))


def _summary(run: RunFiles) -> dict[str, Any]:
    """The title, the headline sentences and the warnings."""
    results, manifest = run.results or Results(Block()), run.manifest or {}
    recipe = mapping(manifest.get("recipe"))
    sentences = []
    for metric in results.headline:
        symbol, meaning = tables.SYMBOLS[wording.verdict(wording.cell(results.overall.difference, metric))]
        note = wording.metric_note(metric)
        text = wording.headline(metric, results.overall, results.level)
        sentences.append({"symbol": symbol, "meaning": meaning, "text": text, "note": note})
    return {
        "name": str(recipe.get("name") or results.recipe or run.folder.name),
        "sentences": sentences,
        "has_results": run.results is not None,
        "warnings": [*results.warnings, *figures.collapse_warnings(run)],
        "level": wording.percent(wording.number(results.level) or 0.9),
        "fewest": wording.FEWEST_STUDIES,
        "n_bootstrap": wording.whole(wording.count(results.n_bootstrap)),
        "is_drawn": is_drawn(manifest),
        "decoding": str(results.overall.decoding or "decoding not recorded"),
    }


def _evidence(run: RunFiles) -> dict[str, Any]:
    """Score tables, findings, charts, pairs and examples."""
    results = run.results or Results(Block())
    blocks = tables.score_tables(results) if run.results is not None else []
    n = wording.count(results.overall.n_studies)
    findings = tables.findings(results.subsets, n)
    codes = {row.code for block in blocks for row in block.rows}
    notes = {wording.metric_name(c): note for c in sorted(codes) if (note := wording.metric_note(c))}
    if any(wording.corpus_parts(c) for c in codes):
        notes[wording.CORPUS_NOTE[0]] = wording.CORPUS_NOTE[1]
    return {
        "blocks": blocks,
        "has_flags": any(value.flag for block in blocks for row in block.rows for value in row.controls),
        "notes": notes,
        "gains": tables.gain_rows(results),
        "stage_tables": stage_tables(results),
        "gaming": gaming_section(run.over_optimisation),
        "template_text": results.controls.template.text,
        "constants": tables.constant_rows(results.controls.template.constants),
        "findings": findings,
        "chexbert_findings": tables.findings(results.subsets, n, tables.CHEXBERT),
        "finding_chart": figures.finding_chart(findings),
        "lengths": figures.length_charts(run),
        "curves": figures.training_charts(run),
        "pairs": _pairs(run.pairs),
        "reward": str(mapping(mapping(mapping(run.manifest or {}).get("recipe")).get("train")).get("reward") or ""),
        "grounding": grounding_section(run),
        "examples": None if run.examples is None else [_example(run.folder, mapping(row)) for row in run.examples],
        "kinds": [(kind, KINDS[kind], MEANINGS[kind]) for kind in MEANINGS if kind in _kinds(run.examples or [])],
    }


def _pairs(pairs: dict[str, Any] | None) -> dict[str, Any] | None:
    if pairs is None:
        return None
    counts = ("n_studies", "n_pairs", "dropped_ties", "dropped_abstained", "n_feedback")
    facts: dict[str, Any] = {name: wording.whole(wording.count(pairs.get(name))) for name in counts}
    facts["has_feedback"] = bool(wording.count(pairs.get("n_feedback")))
    facts["dropped_share"] = wording.percent(wording.number(pairs.get("dropped_share")), digits=1)
    return {**facts, "judge": str(pairs.get("judge") or wording.DASH), "rows": tables.pair_rows(pairs)}


def _example(folder: Path, row: dict[str, Any]) -> Example:
    name = row.get("image")
    image = image_uri(folder, name) if isinstance(name, str) and name else None
    note = f"{name} is missing or not a PNG or JPEG" if name else "no image was kept for this study"
    return Example(
        study_id=str(row.get("study_id", "")),
        origin=", ".join(_origin(row)),
        indication=str(row.get("indication") or ""),
        findings=str(row.get("findings") or ""),
        image=image,
        image_note="" if image else note,
        texts=tuple(_example_text(title, row.get(part)) for part, title in TEXTS.items()),
    )


def _kinds(rows: list[Any]) -> set[str]:
    """The kinds of marks the examples use; findings listed as missing count too."""
    parts = [mapping(mapping(row).get(name)) for row in rows for name in TEXTS]
    kinds = {mark.kind for part in parts for mark in read_marks(part.get("marks"), len(str(part.get("text") or "")))}
    return kinds | {"missing"} if any(part.get("missing") for part in parts) else kinds


def _origin(row: dict[str, Any]) -> list[str]:
    """Where the texts come from: "test set", "decoding: greedy"."""
    parts = {"split": "{} set", "decoding": "decoding: {}"}
    return [form.format(str(row[name]).replace("_", " ")) for name, form in parts.items() if row.get(name)]


def _example_text(title: str, part: Any) -> ExampleText:
    part = mapping(part)
    shown = ((wording.metric_name(k), _example_score(v)) for k, v in mapping(part.get("scores")).items())
    missing = tuple(str(label) for label in part.get("missing") or [])
    body, written = highlight(str(part.get("text") or ""), part.get("marks")), str(part.get("written") or "")
    facts = tuple((str(label), "; ".join(map(str, said))) for label, said in mapping(part.get("facts")).items())
    return ExampleText(title, body, missing, tuple(shown), facts, written)


def _example_score(value: Any) -> str:
    known = wording.number(value)
    return "abstained" if known is None else wording.score(known)


def _provenance(run: RunFiles) -> dict[str, Any]:
    """What was run, with what, and how to run it again."""
    manifest = run.manifest or {}
    recipe = mapping(manifest.get("recipe"))
    facts = {name: manifest.get(name) for name in ("versions", "seeds", "judges")}
    return {
        "has_manifest": run.manifest is not None,
        "recipe": yaml.safe_dump(recipe, sort_keys=False, allow_unicode=True, width=100) if recipe else "",
        "facts": {k: {str(n): str(v) for n, v in f.items()} for k, f in facts.items() if isinstance(f, dict)},
        "version": str(manifest.get("chexalign") or "unknown"),
        "git": str(manifest.get("git") or "not recorded"),
        "stages": tables.stage_rows(manifest),
        "command": f"chexalign run {shlex.quote(str(recipe.get('name') or 'RECIPE.yaml'))}",
    }
