"""The scorecard: statistics by hand and against scipy, attacks, what is read, what is written, and what is never left out."""

import json

import numpy as np
import pytest
from scipy.stats import spearmanr
from typer.testing import CliRunner

from chexalign.cli.commands import app
from chexalign.errors import RecipeError, WorkError
from chexalign.judges import load
from chexalign.judges.contract import Judgement
from chexalign.judges.registry import JUDGES
from chexalign.report.scorecard.page import render
from chexalign.scorecard import agreement
from chexalign.scorecard import attacks as probes
from chexalign.scorecard.agreement import Rated, draws, preference, raters, spearman
from chexalign.scorecard.inputs import read_options, read_ratings, read_reports
from chexalign.scorecard.measure import cases, corpus, measure
from chexalign.scorecard.run import ScorecardSettings, run_scorecard
from chexalign.scorecard.summary import markdown

REPORTS = [
    f"{text} Finding {i}."
    for i, text in enumerate(
        [
            "Small left pleural effusion. Heart size is normal.",
            "The lungs are clear. No pneumothorax.",
            "Mild cardiomegaly. Right lower lobe opacity.",
            "No acute disease. The heart is normal.",
        ]
        * 6
    )
]


def rated(n=12):
    """Two reports per case: a copy, rated 5, and a wrong one, rated 1 to 3."""
    rows = []
    for i in range(n):
        reference = REPORTS[i]
        rows.append(Rated(f"case{i}", "good", reference, reference, 5.0, 0.0, (5.0, 5.0, 4.0)))
        rows.append(Rated(f"case{i}", "bad", reference, "Large right pneumothorax.", 1.0 + i % 3, 2.0, (1.0, 2.0, 1.0)))
    return rows


class Fixed:
    """A judge that gives these scores in turn."""

    name, version = "fixed", "1"

    def __init__(self, value):
        self.value = value

    def score(self, reports, references, studies=None):
        return [
            Judgement(v, None if v is not None else "why")
            for v in (self.value(a, b) for a, b in zip(reports, references, strict=True))
        ]


def test_rank_correlation_equals_scipy_with_ties():
    rng = np.random.default_rng(0)
    for _ in range(5):
        a, b = rng.integers(0, 5, 30).astype(float), rng.normal(size=30)
        assert spearman(a, b) == pytest.approx(spearmanr(a, b).statistic)
    assert np.isnan(spearman(np.ones(4), np.arange(4.0)))


def test_reports_of_one_case_are_drawn_together():
    for rows in draws(["a", "b", "a", "b", "c", "c"], 20):
        counts = np.bincount(rows, minlength=6)
        assert counts[0] == counts[2] and counts[1] == counts[3] and counts[4] == counts[5] and counts.sum() == 6


def test_preference_by_hand():
    """Case a right, case b wrong, case c tied (half), case d rated alike (left out): (1 + 0 + .5) / 3."""
    scores = {"a": (0.9, 0.1), "b": (0.2, 0.8), "c": (0.5, 0.5), "d": (0.1, 0.9)}
    kept = [
        (s, Rated(case, "x", "r", "t", rating))
        for case, pair in scores.items()
        for s, rating in zip(pair, (5.0, 5.0 if case == "d" else 1.0), strict=True)
    ]
    cell = preference(kept)
    assert cell["mean"] == pytest.approx(0.5) and cell["n"] == 3


def test_raters_against_the_mean_of_the_others():
    rows = [Rated(f"{i}", "x", "r", "t", 0.0, None, (float(i), float(i), float(-i))) for i in range(6)]
    assert raters(rows)["mean"] is None  # the mean of the first and the third is constant: no correlation
    agreed = [Rated(f"{i}", "x", "r", "t", 0.0, None, (float(i), float(i) + 1, float(i))) for i in range(6)]
    assert raters(agreed)["mean"] == pytest.approx(1)
    assert raters([Rated("a", "x", "r", "t", 1.0)]) is None


def test_an_abstention_is_counted_and_left_out():
    rows = rated(4)
    found = agreement.agreement([None, *(r.rating for r in rows[1:])], rows)
    assert found["abstained"] == 1 and found["n"] == 7 and found["rating"]["mean"] == pytest.approx(1)
    assert agreement.agreement([None] * 8, rows) == {"n": 0, "abstained": 8, "by_source": {}}


def test_a_ranking_test_passes_fails_or_abstains():
    tests = [
        {
            "id": "1",
            "category": "c",
            "ground_truth": "r",
            "candidates": {"C1": {"text": "aa"}, "C2": {"text": "b"}},
            "expected_ranking": rule,
        }
        for rule in ("C1 > C2", "C1 < C2", "C1 = C2", ["C1 > C2", "C1 = C2"])
    ]
    by_length = Fixed(lambda a, b: len(a) / 10)
    assert [t["passed"] for t in agreement.ranking_tests(by_length, tests)] == [True, False, False, False]
    silent = Fixed(lambda a, b: None)
    assert [t["passed"] for t in agreement.ranking_tests(silent, tests)] == [None] * 4


def test_edits_by_hand():
    text = "Small left effusion. The heart is mildly enlarged. No pneumothorax."
    edit = {name: e(text) for name, (e, _) in probes.EDITS.items()}
    assert edit["left and right swapped"] == text.replace("left", "right")
    assert (
        edit["mild and severe, small and large swapped"]
        == "large left effusion. The heart is severely enlarged. No pneumothorax."
    )
    assert edit["first finding denied"].startswith("There is no pleural effusion. The heart")
    assert edit["first finding left out"] == "The heart is mildly enlarged. No pneumothorax."
    assert edit["large pneumothorax added"] == f"{text} There is a large right pneumothorax."
    assert edit["sentences in reverse order"].startswith("No pneumothorax. The heart")
    assert sorted(edit["words shuffled"].split()) == sorted(text.split())
    normal = "The lungs are clear."
    for name in (
        "left and right swapped",
        "first finding denied",
        "first finding left out",
        "sentences in reverse order",
    ):
        assert probes.EDITS[name][0](normal) is None
    assert probes.invent("Small pneumothorax.") is None


def test_the_attacks_tell_a_judge_of_findings_from_a_judge_of_words():
    good = {c["case"]: c["good"] for c in cases(load("finding_f1_weighted"))}
    words = {c["case"]: c["good"] for c in cases(load("rouge_l"))}
    assert all(good.values())
    assert not words["denial, one sentence"] and not words["correct paraphrase"] and words["identity"]


def test_the_corpus_attacks_catch_what_they_should():
    edits = {e["edit"]: e for e in corpus(Fixed(lambda a, b: 1.0), REPORTS)["edits"]}
    assert edits["words shuffled"]["good"] is False and edits["a full stop"]["good"] is False
    longer = {e["edit"]: e for e in corpus(Fixed(lambda a, b: len(a) / 1000), REPORTS)["edits"]}
    assert longer["twice over"]["good"] is False and longer["five normal sentences added"]["good"] is False
    assert all(e["good"] is None for e in corpus(Fixed(lambda a, b: None), REPORTS)["edits"])


def test_a_judge_that_copies_the_ratings_agrees_fully():
    rows = rated()
    known = {(r.report, r.reference): r.rating for r in rows}
    found = measure(Fixed(lambda a, b: known.get((a, b), 0.0)), rows, [], REPORTS)
    cell = found["agreement"]["rating"]
    assert cell["mean"] == cell["low"] == cell["high"] == pytest.approx(1)
    assert found["agreement"]["preference"]["mean"] == 1 and found["speed"]["cold"] > 0


@pytest.fixture
def folder(tmp_path):
    lines = [
        json.dumps(
            {
                "case": r.case,
                "source": r.source,
                "reference": r.reference,
                "report": r.report,
                "rating_mean": r.rating,
                "significant_errors_mean": r.significant_errors,
                "raters": [{"rating": m} for m in r.raters],
            }
        )
        for r in rated()
    ]
    bad = [
        "{",
        json.dumps({"reference": "", "report": "x", "rating_mean": 1}),
        json.dumps({"reference": "r", "report": "x"}),
    ]
    (tmp_path / "rated.jsonl").write_text("\n".join([*lines, *bad]), encoding="utf-8")
    return tmp_path


def test_bad_rows_are_named_and_good_ones_survive(folder):
    rows, tests, problems = read_ratings(folder)
    assert rows == rated() and tests == []
    assert len(problems) == 3 and problems[0].startswith("rated.jsonl, line 25: invalid JSON")
    assert "rating_mean must be a number" in problems[2]
    with pytest.raises(WorkError, match="is no folder"):
        read_ratings(folder / "nowhere")


def test_reports_come_from_a_file_or_the_phantom(tmp_path):
    path = tmp_path / "texts.jsonl"
    path.write_text("\n".join(json.dumps({"findings": t}) for t in REPORTS), encoding="utf-8")
    assert sorted(read_reports(str(path), 24)) == sorted(REPORTS)
    assert len(read_reports("phantom", 20)) == 20
    with pytest.raises(WorkError, match="needs 20"):
        path.write_text(json.dumps({"text": "one"}), encoding="utf-8")
        read_reports(str(path), 24)
    with pytest.raises(WorkError, match="give openi, phantom or a JSON-lines file"):
        read_reports("nothing", 24)


def test_options_are_read_or_refused(tmp_path):
    path = tmp_path / "options.yaml"
    path.write_text("green: {model: x}\n", encoding="utf-8")
    assert read_options(path) == {"green": {"model": "x"}} and read_options(None) == {}
    path.write_text("[1]", encoding="utf-8")
    with pytest.raises(RecipeError, match="options by judge name"):
        read_options(path)


def test_the_command_writes_page_table_and_numbers(folder, tmp_path):
    reports = tmp_path / "texts.txt"
    reports.write_text("\n".join(json.dumps({"text": t + " <b>&"}) for t in REPORTS), encoding="utf-8")
    out = tmp_path / "card"
    call = [
        "scorecard",
        "--judges",
        "finding_f1_weighted,rouge_l,green",
        "--data",
        str(folder),
        "--reports",
        str(reports),
    ]
    done = CliRunner().invoke(app, [*call, "--out", str(out), "--n", "24"])
    assert done.exit_code == 0, done.output
    card = json.loads((out / "scorecard.json").read_text(encoding="utf-8"))
    assert {j["name"] for j in card["judges"]} == {"finding_f1_weighted", "rouge_l"}
    assert [u["judge"] for u in card["unavailable"]] == ["green"] and card["unavailable"][0]["why"]
    page = (out / "scorecard.html").read_text(encoding="utf-8")
    assert page.count("<script") == 0 and "default-src 'none'" in page and "rated.jsonl, line 25" in page
    assert card["answer"][0] in page.replace("&#39;", "'")
    table = (out / "scorecard.md").read_text(encoding="utf-8")
    assert "| finding_f1_weighted |" in table and "- green: not available here" in table


def test_without_ratings_the_page_says_so_and_text_is_escaped(tmp_path):
    card = run_scorecard(ScorecardSettings(["finding_f1"], None, "phantom", 20, tmp_path, {}), lambda line: None)
    card["unavailable"].append({"judge": "<b>x</b>", "why": "<script>alert(1)</script>"})
    page = render(card)
    assert "Not measured: no rated reports" in page and "<script" not in page and "&lt;b&gt;x" in page
    assert "was not measured" in card["answer"][0] and "| finding_f1 |" in markdown(card)


def test_every_judge_of_the_table_is_measured_or_listed(tmp_path, monkeypatch):
    import chexalign.scorecard.run as module

    monkeypatch.setattr(module, "measure", lambda judge, *rest: {"name": judge.name, **EMPTY})
    card = run_scorecard(ScorecardSettings(None, None, "phantom", 20, tmp_path, {}), lambda line: None)
    listed = {j["line"] for j in card["judges"]} | {u["judge"] for u in card["unavailable"]}
    assert set(JUDGES) <= listed


EMPTY = {
    "version": "1",
    "speed": {"n": 0, "cold": None, "cached_references": None},
    "cases": [],
    "edits": [],
    "reports_abstained": 0,
    "template": {name: {"n": 0, "template": None, "other": None} for name in ("all", "abnormal")},
}


def test_an_unknown_judge_is_refused_with_the_nearest_name(tmp_path):
    with pytest.raises(RecipeError, match="did you mean rouge_l"):
        run_scorecard(ScorecardSettings(["rougel"], None, "phantom", 20, tmp_path, {}), lambda line: None)
