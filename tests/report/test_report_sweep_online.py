"""The page of an online sweep: seeds beside means, precision beside recall, curves of every setting, and what did not move."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from make_run import make_run, write_json
from test_report_page import ATTACKS, Page

from chexalign.report.sweep.curves import RAREST, _points, online_charts, zero_rows
from chexalign.report.sweep.page import render, summary, tables_of, write_sweep_page

MACRO = [f"chexpert_rule_macro_{part}" for part in ("precision", "recall", "f1")]
SUPPORT = {"Pleural Effusion": 30, "Fracture": 2, "Pneumonia": 4, "Edema": 9, "Lung Lesion": 6, "Pneumothorax": 7}


def cell(mean: float, *seeds: float) -> dict[str, Any]:
    known = {"mean": mean, "low": mean - 0.02, "high": mean + 0.02, "n": 40, "abstained": 0}
    return {**known, **({"seeds": list(seeds)} if seeds else {})}


def curve(*means: float, width: float = 0.0) -> dict[str, Any]:
    low, high = [m - width for m in means], [m + width for m in means]
    return {"rounds": list(range(len(means))), "mean": list(means), "low": low, "high": high, "n": [2] * len(means)}


def entry(name: str, algorithm: str, score: float, best: int = 3, **more: Any) -> dict[str, Any]:
    label = name.replace(" ", "_")
    runs = [{"label": f"{label}-seed{s}", "seed": s, "reason": None, "stages": [{"best_round": best}]} for s in (0, 1)]
    names = ["finding_f1", *MACRO, "words"]
    after = {m: cell(score + i / 10, score - 0.01, score + 0.03) for i, m in enumerate(names)}
    change = {m: cell(score - 0.4) for m in names}
    block = {"baseline": {m: cell(0.4) for m in names}, "aligned": after, "difference": change, "n_studies": 40}
    curves = {"reward": curve(0.1, 0.2, 0.3, width=0.05), "zero_reward_rate": curve(0.9, 0.5, 0.2)}
    curves |= {"val_finding_f1": curve(0.4, 0.5), "val_precision": curve(0.3, 0.2), "val_recall": curve(0.3, 0.6)}
    curves |= {f"val_f1/{label}": curve(0.0, 0.3) for label in SUPPORT}
    return {
        "label": label, "name": name, "algorithm": algorithm, "given": {"algorithm": algorithm, "reward": "facts"},
        "settings": {"watch": {"judge": "rouge_l"}}, "reason": None, "picked": None, "runs": runs, "curves": curves,
        "validation": {"finding_f1": cell(score, score - 0.01, score + 0.01), "words": cell(30.0)},
        "difference": {"finding_f1": cell(0.1)}, "test": {"temperature_1": block, "findings": {}},
        "train": {"seconds": 90.0, "seconds_per_round": 7.5, "seconds_per_epoch": None, "relative": None}, **more,
    }  # fmt: skip


@pytest.fixture
def found() -> dict[str, Any]:
    rows = [
        entry("FactS + GRPO", "grpo", 0.41, best=0),
        entry("OraPO 400", "orapo", 0.52, picked="winner"),
        {**entry("SFT", "sft", 0.45), "curves": {}, "runs": [{"label": "SFT-seed0", "seed": 0, "reason": None}]},
    ]
    head = {
        "recipe": "s",
        "select": "finding_f1",
        "pair_judge": None,
        "level": 0.9,
        "n_pairs": None,
        "n_validation": 20,
    }
    head |= {
        "samples": 1,
        "reference_words": 30.0,
        "headline": ["finding_f1"],
        "judges": ["finding_f1"],
        "seeds": [0, 1],
    }
    baseline = {"finding_f1": cell(0.4), "words": cell(31.0)}
    return {**head, "baseline": baseline, "winner": "OraPO_400", "finding_support": SUPPORT, "entries": rows}


@pytest.fixture
def swept(tmp_path: Path, found: dict[str, Any]) -> Path:
    found["entries"] = found["entries"][1:]
    for row in found["entries"]:
        for arm in row["runs"]:
            make_run(tmp_path / "sweep" / arm["label"], name=arm["label"], n_studies=8)
    write_json(tmp_path / "sweep.json", found)
    return tmp_path


def test_precision_stands_beside_recall_and_seeds_below_the_mean(tmp_path: Path, found: dict[str, Any]) -> None:
    text = Page(render(tmp_path, found)).text
    assert "Every setting on the test split" in text and "once per seed (0, 1)" in text
    assert "Finding F1 Macro precision Macro recall Macro F1 Words per report" in text
    assert "OraPO 400 .520 .510 to .550" in text and "grpo" not in text
    assert "GRPO 1 7.5 s per round" in text and "preference pairs" not in text


def test_a_setting_that_never_moved_is_told(tmp_path: Path, found: dict[str, Any]) -> None:
    note = "FactS + GRPO: in 2 of 2 trainings no round was better than the start by rouge_l on the validation studies"
    assert note in Page(render(tmp_path, found)).text
    write_json(tmp_path / "sweep.json", found)
    assert any(note in line for line in summary(tmp_path)) and note in tables_of(tmp_path)
    assert "OraPO 400: in" not in tables_of(tmp_path)


def test_a_second_stage_that_changed_nothing_is_told(tmp_path: Path, found: dict[str, Any]) -> None:
    orapo = next(e for e in found["entries"] if e["name"] == "OraPO 400")
    orapo["runs"][0]["stages"] = [{"best_round": 14}, {"best_round": 0}]
    orapo["runs"][1]["stages"] = [{"best_round": 0}, {"best_round": 14}]
    write_json(tmp_path / "sweep.json", found)
    told = [line for line in tables_of(tmp_path).splitlines() if "OraPO 400: in" in line]
    assert len(told) == 1 and "in 1 of 2 trainings no round of stage 2 was better than the start" in told[0]


def test_the_markdown_tables_hold_every_number(tmp_path: Path, found: dict[str, Any]) -> None:
    found["entries"][1]["name"] = "a | b"
    write_json(tmp_path / "sweep.json", found)
    text = tables_of(tmp_path)
    rows = [re.split(r"(?<!\\) ?\| ?", line)[1:-1] for line in text.splitlines() if line.startswith("|")]
    assert {len(row) for row in rows} == {6}
    assert rows[0] == ["Setting", "Finding F1", "Macro precision", "Macro recall", "Macro F1", "Words per report"]
    assert rows[2][:2] == ["Baseline", ".400"] and rows[4][:2] == [r"a \| b", ".520 (.510 to .550)"]
    changes = [row for row in rows if row[0] == r"a \| b"][1]
    assert changes[1] == "▲ +.120 [.100, .140]"


def test_curves_show_every_online_setting_and_the_rarest_findings(found: dict[str, Any]) -> None:
    charts = online_charts(found, [(e["name"], e) for e in found["entries"]])
    assert [c.title for c in charts] == [
        "Samples while training",
        "Validation",
        "The rarest findings, F1 on validation",
    ]
    for chart in charts:
        assert f">{'OraPO 400'}</text>" in str(chart.svg) and ">SFT</text>" not in str(chart.svg)
        assert "mean of 2 seeds" in chart.caption
    assert charts[1].caption.startswith("One report per study, greedy.")
    for entry, heat in zip(found["entries"][:2], (1.0, 0.5), strict=True):
        entry["settings"]["watch"]["temperature"] = heat
    told = online_charts(found, [(e["name"], e) for e in found["entries"]])[1].caption
    assert told.startswith("One report per study, at temperature 0.5 or at temperature 1.")
    rare = re.findall(r">([A-Z][A-Za-z ]+ \(\d+\))</text>", str(charts[2].svg))
    assert len(rare) == RAREST and rare[0] == "Pneumonia (4)" and "Fracture (2)" not in rare  # two studies say nothing
    assert ">Macro precision</text>" in str(charts[1].svg) and ">Macro recall</text>" in str(charts[1].svg)
    assert online_charts(found, [("SFT", found["entries"][2])]) == []


def test_smoothing_is_the_mean_of_the_rounds_before() -> None:
    points = _points(curve(1.0, 2.0, 6.0, width=0.5), 2)
    assert points["rounds"] == [0, 1, 2] and points["mean"] == [1.0, 1.5, 4.0] and points["high"] == [1.5, 2.0, 4.5]
    assert _points({"rounds": [0, 1], "mean": [None, 1.0], "low": [None, 1.0], "high": [None, 1.0]}, 1)["rounds"] == [1]


def test_every_evaluated_training_has_its_page_and_the_tables_lie_beside(swept: Path) -> None:
    page = write_sweep_page(swept)
    pages = sorted(p.parent.name for p in swept.glob("sweep/*/report.html"))
    assert len(pages) == 3 and (swept / "sweep.md").read_text() == tables_of(swept)
    links = [a.get("href") or "" for t, a in Page(page.read_text()).tags if t == "a"]
    assert all((swept / link).is_file() for link in links if not link.startswith("#"))


@pytest.mark.parametrize("attack", ATTACKS)
def test_names_are_escaped(tmp_path: Path, found: dict[str, Any], attack: str) -> None:
    found = json.loads(json.dumps(found))
    found["entries"][0] |= {"name": attack}
    found["finding_support"] = {attack: 4}
    found["entries"][0]["curves"][f"val_f1/{attack}"] = curve(0.1, 0.2)
    html = render(tmp_path, found)
    assert attack == "{{ 7*7 }}" or attack not in html
    assert attack in Page(html).text


def test_the_zero_reward_table_has_a_number_per_seed_and_says_never() -> None:
    seeds = [{"start": 0.8, "end": 0.2, "halved": 9}, {"start": 0.75, "end": 0.5, "halved": None}]
    assert zero_rows([("OraPO", {"zero_rewards": seeds}), ("SFT", {"zero_rewards": []})]) == [
        ("OraPO", ".80, .75", ".20, .50", "9, never")
    ]
    assert zero_rows([("GRPO", {"zero_rewards": [{"start": 0.0, "end": 0.0, "halved": None}]})]) == []
