"""The sweep's page: the answer first, every setting with its failure, escaped, and nothing outside its folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from make_run import make_run, write_json
from test_report_page import ATTACKS, Page

from chexalign.errors import WorkError
from chexalign.report.sweep.page import render, summary, write_sweep_page

SELECT = "lc_finding_f1"


def cell(mean: float, width: float = 0.02) -> dict[str, Any]:
    return {"mean": mean, "low": mean - width, "high": mean + width, "n": 90, "abstained": 0}


def entry(label: str, algorithm: str, score: float | None, words: float = 30.0, **more: Any) -> dict[str, Any]:
    given = {"algorithm": algorithm, "beta": 0.1, "lr": 2e-4}
    row = {"label": label, "algorithm": algorithm, "given": given, "reason": None, "picked": None, "test": None}
    row["runs"] = [{"label": label, "seed": 0, "reason": more.get("reason")}]
    cells = {} if score is None else {SELECT: cell(score), "finding_f1": cell(score + 0.05), "words": cell(words, 1)}
    change = {} if score is None else {SELECT: cell(score - 0.47), "finding_f1": cell(score - 0.47)}
    train = None if score is None else {"seconds_per_epoch": 30.0, "relative": 1.0, "steps": 9, "seconds": 40.0}
    return {**row, "validation": cells, "difference": change, "train": train, **more}


@pytest.fixture
def swept(tmp_path: Path) -> Path:
    winner = make_run(tmp_path / "sweep/kto-beta0.1", name="s.kto-beta0.1", n_studies=40, lift=0.3)
    make_run(tmp_path / "sweep/dpo-beta0.1", name="s.dpo-beta0.1", n_studies=40, seed=1)
    results = json.loads((winner / "results.json").read_text())
    wanted = ("baseline", "aligned", "difference", "length", "n_studies", "decoding")
    test = {
        "temperature_1": {k: results[k] for k in wanted},
        "greedy": {k: results["subsets"]["greedy"][k] for k in wanted},
        "findings": {k[8:]: b for k, b in results["subsets"].items() if k.startswith("finding/")},
    }
    slow = {"seconds_per_epoch": 42.0, "relative": 1.4, "steps": 9, "seconds": 50.0}
    rows = [
        entry("dpo-beta0.1", "dpo", 0.50, picked="algorithm", test=test),
        entry("dpo-beta9", "dpo", 0.41, words=55.0),
        entry("kto-beta0.1", "kto", 0.53, picked="winner", test=test, train=slow),
        entry("ipo-tau1", "ipo", None, reason="the gradient of step 3 is not finite; lower the learning rate"),
    ]
    head = {"recipe": "s", "select": SELECT, "pair_judge": "finding_f1", "level": 0.9, "n_bootstrap": 200}
    counts = {"n_pairs": 2032, "n_validation": 90, "samples": 4, "reference_words": 34.8, "headline": ["finding_f1"]}
    counts |= {"judges": ["chexpert_rule_f1", "finding_f1", "rouge_l"], "seeds": [], "finding_support": {}}
    baseline = {SELECT: cell(0.47), "finding_f1": cell(0.51), "words": cell(33.0, 1)}
    found = {**head, **counts, "baseline": baseline, "winner": "kto-beta0.1", "entries": rows}
    write_json(tmp_path / "sweep.json", found)
    return tmp_path


def edit(folder: Path, change: Any) -> None:
    found = json.loads((folder / "sweep.json").read_text())
    change(found)
    write_json(folder / "sweep.json", found)


def html_of(folder: Path) -> str:
    return render(folder, json.loads((folder / "sweep.json").read_text()))


def page(folder: Path) -> Page:
    return Page(html_of(folder))


def test_the_answer_comes_first(swept: Path) -> None:
    text = page(swept).text
    answer = "Of 4 settings, KTO, beta 0.1, lr 0.0002 has the best finding F1, length-controlled on the validation split: .530"
    assert answer in text and "the baseline has .470" in text
    assert text.index(answer) < text.index("The best of each algorithm on the test split")
    assert "On 40 held-out studies the aligned model's finding F1 rose from" in text
    assert "Its reports have" in text and "2 032 preference pairs" in text


def test_every_setting_is_shown_and_the_failed_one_says_why(swept: Path) -> None:
    text = page(swept).text
    assert "Failed. the gradient of step 3 is not finite; lower the learning rate" in text
    assert "1 of 4 settings failed while training: ipo-tau1." in text
    assert "best of all" in text and "best DPO" in text and "55.0" in text


def test_time_is_shown_relative_to_dpo_beside_the_papers(swept: Path) -> None:
    text = page(swept).text
    assert "KTO 1 42 s per epoch 1.40 2.2" in text and "DPO 2 30 s per epoch 1.00 1.0" in text
    edit(swept, lambda f: [e.update(train=None) for e in f["entries"]])
    assert "No setting was timed." in page(swept).text


def test_figure_3_has_one_chart_per_metric_with_a_marker_per_algorithm(swept: Path) -> None:
    html = html_of(swept)
    shown = Page(html)
    labels = [a.get("aria-label") or "" for t, a in shown.tags if t == "svg"]
    assert sum("for every entry of the sweep" in label for label in labels) == 2
    for name in ("DPO", "KTO", "baseline", "reference length", "best"):
        assert f">{name}</text>" in html, name
    assert ">IPO</text>" not in html  # it failed: there is no point to mark


def test_the_page_is_self_contained_and_the_same_for_the_same_files(swept: Path) -> None:
    first = write_sweep_page(swept).read_bytes()
    assert first.decode() == html_of(swept)
    shown = Page(first.decode())
    assert not [t for t, _ in shown.tags if t in ("script", "link", "iframe")] and not shown.open
    assert any("default-src 'none'" in (a.get("content") or "") for t, a in shown.tags if t == "meta")
    links = [a.get("href") or "" for t, a in shown.tags if t == "a" and not (a.get("href") or "").startswith("#")]
    assert links and all((swept / link).is_file() for link in links)


@pytest.mark.parametrize("attack", ATTACKS)
def test_text_from_the_files_is_escaped(swept: Path, attack: str) -> None:
    def change(found: dict[str, Any]) -> None:
        found["recipe"] = found["select"] = attack
        found["entries"][3] |= {"label": attack, "algorithm": attack, "reason": attack, "given": {attack: attack}}

    edit(swept, change)
    html = html_of(swept)
    assert attack == "{{ 7*7 }}" or attack not in html
    assert attack in Page(html).text


@pytest.mark.parametrize("label", ["../outside", "/etc", "", ".."])
def test_a_label_that_leaves_the_folder_is_refused(swept: Path, label: str) -> None:
    edit(swept, lambda f: f["entries"][0]["runs"][0].update(label=label))
    with pytest.raises(WorkError, match="outside its folder"):
        write_sweep_page(swept)


def test_no_gain_is_a_warning(swept: Path) -> None:
    edit(swept, lambda f: f["entries"][2]["difference"].update({SELECT: cell(0.01)}))
    assert "Not even the best setting raised the finding F1, length-controlled measurably" in page(swept).text
    assert any(line.startswith("Warning: Not even") for line in summary(swept))


def test_the_terminal_gets_the_same_answer(swept: Path) -> None:
    lines = summary(swept)
    assert lines[0].startswith("Of 4 settings, KTO") and any("▲ On 40 held-out studies" in line for line in lines)


def test_a_folder_without_a_sweep_is_refused(tmp_path: Path) -> None:
    with pytest.raises(WorkError, match="run `chexalign sweep` first"):
        write_sweep_page(tmp_path)
