"""Runs side by side: the paired difference by hand, and what makes two runs not comparable."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from make_run import make_run, write_json, write_rows
from rich.console import Console

from chexalign.errors import WorkError
from chexalign.report.run.compare import ComparedRuns, compare_runs, headline


def tiny_run(folder: Path, scores: dict[str, float | None], **row: Any) -> Path:
    """A run with one judge and the aligned scores given by study."""
    cells = {"rouge_l": {"mean": 0.5, "low": 0.4, "high": 0.6, "n": len(scores), "abstained": 0}}
    write_json(
        folder / "results.json", {"headline": ["rouge_l"], "n_bootstrap": 50, "baseline": cells, "aligned": cells}
    )
    more = {"policy": "aligned", "decoding": "temperature_1", "words": 9, "reference_words": 9, **row}
    write_rows(
        folder / "evaluation" / "per_study.jsonl",
        [{"study_id": study, "scores": {"rouge_l": value}, **more} for study, value in scores.items()]
        + [{"study_id": study, "scores": {"rouge_l": 0.0}, **more, "decoding": "shuffled"} for study in scores],
    )
    return folder


def shown(compared: ComparedRuns, width: int = 120) -> str:
    console = Console(width=width, record=True, file=open("/dev/null", "w"))
    with console.file:
        console.print(compared.to_table())
    return console.export_text()


def test_difference_is_the_other_run_minus_the_first_on_shared_studies(tmp_path: Path) -> None:
    pairs = {f"s{i}": (0.2, 0.3) if i % 2 else (0.4, 0.6) for i in range(12)} | {"lost": (0.9, None)}
    a = tiny_run(tmp_path / "a", {s: x for s, (x, _) in pairs.items()} | {"only a": 0.0})
    b = tiny_run(tmp_path / "b", {s: y for s, (_, y) in pairs.items()} | {"only b": 1.0})
    compared = compare_runs([a, b])
    first, second = compared.rows
    assert (first.run, first.difference, first.is_first) == ("a", None, True)
    assert second.difference is not None
    assert second.difference.mean == pytest.approx((0.1 + 0.2) / 2)
    assert (second.difference.n, second.difference.abstained) == (12, 1)
    assert compared.n_shared == {"b": 13}
    assert compared.notes == ("only 13 studies are shared (14 in a, 14 in b)",)
    assert "▲ +.150" in shown(compared)


def test_below_ten_scored_studies_a_difference_has_neither_interval_nor_arrow(tmp_path: Path) -> None:
    """Nine studies whose gain is the same: the bootstrap interval would be one point above 0."""
    a, b = (tiny_run(tmp_path / name, {f"s{i}": x for i in range(9)}) for name, x in (("a", 0.2), ("b", 0.35)))
    compared = compare_runs([a, b])
    difference = compared.rows[1].difference
    assert difference is not None and (difference.low, difference.high) == (None, None)
    row = next(line for line in shown(compared).splitlines() if "+.150" in line)
    assert "▲" not in row and "[" not in row


def test_corpus_f1_is_paired_from_the_counts_of_each_study(tmp_path: Path) -> None:
    """Run a: tp 1, fn 1 (F1 2/3); run b: tp 2 (F1 1). Without counts in one of them there is nothing to pair."""
    found = {"a": [("tp", "Edema"), ("fn", "Fracture")], "b": [("tp", "Edema"), ("tp", "Fracture")]}
    folders = []
    for name, calls in found.items():
        folder = tiny_run(tmp_path / name, {"s1": 0.5, "s2": 0.5})
        path = folder / "evaluation" / "per_study.jsonl"
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        counts = [{kind: [label]} for kind, label in calls]
        write_rows(path, [{**row, "counts": {"chexpert_rule": counts[i % 2]}} for i, row in enumerate(rows)])
        results = json.loads((folder / "results.json").read_text())
        cells = {**results["aligned"], "chexpert_rule_micro13": {"mean": 0.5, "n": 2}}
        write_json(folder / "results.json", {**results, "baseline": cells, "aligned": cells})
        folders.append(folder)
    row = next(r for r in compare_runs(folders).rows if r.metric == "chexpert_rule_micro13" and not r.is_first)
    assert row.difference is not None
    assert row.difference.mean == pytest.approx(1 - 2 / 3)
    assert row.difference.low is None and row.difference.n == 2  # too few studies for an interval
    old = tiny_run(tmp_path / "old", {"s1": 0.5, "s2": 0.5})
    assert (
        next(r for r in compare_runs([*folders, old]).rows if r.run == "old" and r.metric != "rouge_l").difference
        is None
    )


def test_whole_runs(tmp_path: Path) -> None:
    runs = [make_run(tmp_path / name, n_studies=40, seed=i, lift=0.2 * i) for i, name in enumerate("ab")]
    compared = compare_runs([*runs, runs[1]])
    assert len(compared.rows) == 3 * 12 and len(set(compared.runs)) == 2
    text = shown(compared)
    assert "chexpert_rule_micro13" in text and "only" not in text


def test_runs_of_the_same_folder_name_are_told_apart(tmp_path: Path) -> None:
    runs = [tiny_run(tmp_path / name / "demo", {"s1": 0.1, "s2": 0.3}) for name in "ab"]
    assert compare_runs(runs).runs == (str(runs[0]), str(runs[1]))


@pytest.mark.parametrize("shared", [0, 1])
def test_fewer_than_two_shared_studies_are_refused(tmp_path: Path, shared: int) -> None:
    a = tiny_run(tmp_path / "a", {"s1": 0.2, "s2": 0.4})
    b = tiny_run(tmp_path / "b", {"s1" if shared else "t1": 0.2, "t2": 0.4})
    with pytest.raises(WorkError, match=f"a and b share {shared} evaluated studies"):
        compare_runs([a, b])


def test_one_run_an_unfinished_run_and_a_doubled_study_are_refused(tmp_path: Path) -> None:
    a = tiny_run(tmp_path / "a", {"s1": 0.2, "s2": 0.4})
    with pytest.raises(WorkError, match="at least two"):
        compare_runs([a])
    (tmp_path / "empty").mkdir()
    with pytest.raises(WorkError, match="no results.json"):
        compare_runs([a, tmp_path / "empty"])
    b = tiny_run(tmp_path / "b", {"s1": 0.2, "s2": 0.4})
    rows = b / "evaluation" / "per_study.jsonl"
    rows.write_text(rows.read_text() * 2)
    with pytest.raises(WorkError, match="study s1 twice"):
        compare_runs([a, b])
    rows.unlink()
    with pytest.raises(WorkError, match="per_study.jsonl is missing"):
        compare_runs([a, b])


def test_other_judges_and_other_references_are_noted(tmp_path: Path) -> None:
    a = tiny_run(tmp_path / "a", {"s1": 0.2, "s2": 0.4})
    b = tiny_run(tmp_path / "b", {"s1": 0.2, "s2": 0.4}, reference_words=12)
    for folder, version in ((a, "1"), (b, "2")):
        write_json(folder / "manifest.json", {"judges": {"rouge_l": version}})
    assert compare_runs([a, b]).notes == (
        "judge rouge_l has version 1 in a, 2 in b: their scores are not comparable",
        "2 shared studies have another reference report in b than in a",
    )


def test_a_judge_that_always_abstains_is_a_dash(tmp_path: Path) -> None:
    runs = [tiny_run(tmp_path / name, {"s1": None, "s2": None}) for name in "ab"]
    text = shown(compare_runs(runs))
    assert "nan" not in text.lower() and "None" not in text


def test_names_cannot_steer_the_terminal(tmp_path: Path) -> None:
    runs = [tiny_run(tmp_path / name, {"s1": 0.1, "s2": 0.3}) for name in ("[bold]a", "b\x1b[31m")]
    text = shown(compare_runs(runs))
    assert "[bold]a" in text and "\x1b" not in text


def test_headline_lines(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run", n_studies=40)
    lines = headline(folder)
    assert len(lines) == 3 and lines[0].startswith("On 40 held-out studies") and lines[2].startswith("Warning: ")
    assert json.loads((folder / "results.json").read_text())["warnings"][0] in lines[2]
