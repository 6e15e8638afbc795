"""The table of what each stage of online training brought, and the lines that mark its onsets in the curves."""

import json

from make_run import make_run, write_json, write_rows
from test_report_page import Page

from chexalign.report.run.page import write_page
from chexalign.report.run.stages import stage_tables
from chexalign.results import Results


def cell(mean, low, high):
    return {"mean": mean, "low": low, "high": high, "n": 60, "abstained": 0}


def block(before, after, change):
    return {"baseline": {"finding_f1": before}, "aligned": {"finding_f1": after}, "difference": {"finding_f1": change}}


def test_all_policies_stand_side_by_side_with_each_stages_own_change():
    sft, middle, last = cell(0.5, 0.45, 0.55), cell(0.6, 0.55, 0.65), cell(0.58, 0.5, 0.6)
    one, two = block(sft, middle, cell(0.1, 0.05, 0.15)), block(middle, last, cell(-0.02, -0.06, 0.02))
    (table,) = stage_tables(Results.from_dict({"subsets": {"abnormal": one, "stage_1": one, "stage_2": two}}))
    assert table.title == "Stage by stage, temperature 1"
    assert (table.policies, table.steps) == (
        ("Baseline", "After stage 1", "Aligned"),
        ("Stage 1 brought", "Stage 2 brought"),
    )
    (row,) = table.rows
    assert [v.mean for v in row.values] == [".500", ".600", ".580"]
    assert [(c.difference.mean, c.meaning) for c in row.changes] == [("+.100", "up"), ("−.020", "no measurable change")]
    alone = Results.from_dict({"subsets": {"abnormal": one}})
    assert stage_tables(alone) == [] and stage_tables(Results.from_dict({})) == []


def test_the_page_shows_the_table_and_where_stages_and_clinical_rewards_begin(tmp_path):
    folder = make_run(tmp_path / "run")
    results = json.loads((folder / "results.json").read_text())
    stage = {k: results[k] for k in ("baseline", "aligned", "difference")}
    results["subsets"] |= {"greedy_stage_1": stage, "greedy_stage_2": stage}
    write_json(folder / "results.json", results)
    clinical = "reward/every(4, chexpert_rule_f1)"
    rows = [{"step": i, "loss": 0.0, "stage": 1 + i // 5, clinical: 0.6 * (i % 4 == 3)} for i in range(10)]
    write_rows(folder / "train_log.jsonl", [{**r, "val_finding_f1": 0.5} for r in rows])
    text = Page(write_page(folder).read_text()).text
    assert "Stage by stage, greedy decoding" in text and "After stage 1" in text
    assert "Dotted lines: every(4, chexpert_rule_f1) from step 3; stage 2 from step 5." in text
