"""A run that left the bounds of train.watch: the page says so at its top, and marks the steps on the curves."""

import json

from make_run import make_run, write_rows

from chexalign.report.inputs import read_run
from chexalign.report.run.figures import ALARMS, TRAIN_PANELS, collapse_warnings, training_charts
from chexalign.report.run.page import write_page


def rows(alarms):
    base = {"loss": 0.1, "reward": 0.5, "kl": 0.1, "length_ratio": 1.0, "repetition": 0.0, "distinct": 0.9}
    base |= {"zero_reward_rate": 0.1, "no_signal": 0.2, "val_rouge_l": 0.4}
    return [{"step": i, **base, **{f"warn_{n}": 1 for n, steps in alarms.items() if i in steps}} for i in range(6)]


def told(folder, alarms, kept):
    write_rows(folder / "train_log.jsonl", rows(alarms))
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["stages"]["train"]["extra"] = {"stages": kept}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return read_run(folder)


def test_the_alarm_is_at_the_top_of_the_page_and_on_its_curves(tmp_path):
    folder = make_run(tmp_path / "run", n_studies=3)
    alarms = {"length": {3, 4, 5}, "distinct": {5}}
    run = told(folder, alarms, [{"best_round": 2}, {"best_round": 0}])
    line = (
        "Training may have collapsed: length at 3 of 6 steps, from step 3; distinct reports at 1 of 6 steps, from step 5. "
        "The saved weights are those after round 2, then those before any update, the best on the validation split."
    )
    assert collapse_warnings(run) == [line]
    assert line in write_page(folder).read_text()
    drawing = training_charts(run)[-1]
    assert "Crosses: out of the bounds of train.watch (length at 3 of 6 steps" in drawing.caption
    assert drawing.svg.count("#b00020") + drawing.svg.count("#B00020") >= 4  # one cross a step, and the legend's
    for panel in ("Reward of the samples", "Words over the", "4-grams, reports", "Groups whose rewards are", "KL from"):
        assert panel in json.dumps(drawing.svg)


def test_weights_kept_because_they_are_the_last_are_not_called_the_best(tmp_path):
    run = told(make_run(tmp_path / "run", n_studies=3), {"truncated": {1, 2}}, [{"best_round": 6}])
    manifest = json.loads((run.folder / "manifest.json").read_text())
    manifest.setdefault("recipe", {}).setdefault("train", {})["watch"] = {"keep": "last"}
    (run.folder / "manifest.json").write_text(json.dumps(manifest))
    assert collapse_warnings(read_run(run.folder)) == [
        "Training may have collapsed: samples cut at max_new_tokens at 2 of 6 steps, from step 1. "
        "The saved weights are those after round 6, the last ones, as train.watch.keep asks."
    ]


def test_a_quiet_run_has_no_warning(tmp_path):
    run = told(make_run(tmp_path / "run", n_studies=3), {}, [{"best_round": 4}])
    assert collapse_warnings(run) == [] and "Crosses" not in training_charts(run)[-1].caption
    (run.folder / "manifest.json").unlink()
    write_rows(run.folder / "train_log.jsonl", rows({"repetition": {0}}))
    assert collapse_warnings(read_run(run.folder)) == [
        "Training may have collapsed: repeated 4-grams at 1 of 6 steps, from step 0."
    ]


def test_each_bound_has_its_panel():
    shown = {code for lines in TRAIN_PANELS.values() for code in lines}
    assert set(ALARMS.values()) <= shown
