"""CRIMSON's arithmetic by hand and by the published examples, and the judge around it."""

import json

import pytest

from chexalign.errors import Abstain
from chexalign.judges import load
from chexalign.judges.prompted.crimson import crimson, score_findings

WORDS = {"u": "urgent", "a": "actionable_not_urgent", "n": "not_actionable_not_urgent", "b": "benign_expected"}


def findings(truth, said, matched=(), attributes=()):
    """`truth` and `said` are letters of WORDS; R1 and P1 are the first; what is not matched is missing or false."""
    rows = [
        [{"id": f"{p}{i}", "finding": "x", "clinical_significance": WORDS[w]} for i, w in enumerate(t, 1)]
        for p, t in (("R", truth), ("P", said))
    ]
    pairs = [{"ref_id": r, "pred_id": p} for r, p in matched]
    errors = {
        "false_findings": [r["id"] for r in rows[1] if r["id"] not in {p for _, p in matched}],
        "missing_findings": [r["id"] for r in rows[0] if r["id"] not in {r for r, _ in matched}],
        "attribute_errors": [
            {"ref_id": r, "pred_id": p, "severity": s, "error_types": ["location"]} for r, p, s in attributes
        ],
    }
    return {"reference_findings": rows[0], "predicted_findings": rows[1], "matched_findings": pairs, "errors": errors}


ONE = [("R1", "P1")]


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (findings("", "a"), -1 / 3),  # golden: one actionable false finding on a normal reference
        (findings("a", "a", ONE, [("R1", "P1", "significant")]), 0.5),  # golden: .5 * .5 / (.5 + .5) of .5
        (findings("", ""), 1.0),
        (findings("b", ""), 1.0),  # only an expected finding was left out
        (findings("a", ""), 0.0),  # the normal text on an abnormal study
        (findings("ua", "u", ONE), 1 / 1.5),
        (findings("u", "uu", ONE), 0.0),
        (findings("a", "au", ONE), -0.5 / 1.5),  # x = 1 - .5
        (findings("a", "a", ONE, [("R1", "P1", "negligible")]), 1.0),
        (findings("u", "u", ONE, [("R1", "P1", "significant")] * 2), 0.5),
        (findings("u", "aa", [("R1", "P1"), ("R1", "P2")]), 1.0),  # one reference finding, split in two
        (findings("nn", "nb", ONE), 0.5),
    ],
)
def test_by_hand(answer, expected):
    score, details = score_findings(answer)
    assert score == pytest.approx(expected)
    assert -1 < score <= 1 and details["n_matched"] <= len(answer["reference_findings"])


def test_more_false_findings_never_help():
    scores = [score_findings(findings("ua", "u" + "a" * k, ONE))[0] for k in range(6)]
    assert scores == sorted(scores, reverse=True) and scores[0] > 0 > scores[-1]
    assert crimson(0, 1e6, 0, 1) > -1


BAD = [
    ({}, "no list 'reference_findings'"),
    ({**findings("a", "a", ONE), "errors": None}, "no object 'errors'"),
    ({**findings("a", "a", ONE), "matched_findings": [{"ref_id": "R9"}]}, "'R9', which is no finding"),
    ({**findings("a", "a", ONE), "matched_findings": [1]}, "'1', which is no finding"),
    ({**findings("a", "a"), "predicted_findings": []}, "'P1', which is no finding"),
    ({**findings("aa", ""), "reference_findings": findings("a", "")["reference_findings"] * 2}, "R1 twice"),
    (
        {**findings("a", ""), "reference_findings": [{"id": "R1", "clinical_significance": "grave"}]},
        "known clinical_significance",
    ),
    (findings("a", "a", ONE, [("R1", "P1", "awful")]), "attribute error without"),
]


@pytest.mark.parametrize(("answer", "why"), BAD)
def test_an_answer_that_leaves_something_open_is_a_parse_failure(answer, why):
    with pytest.raises(Abstain, match=f"^parse_failed: .*{why}"):
        score_findings(answer)


def test_the_judge_on_a_file_of_answers(tmp_path):
    path = tmp_path / "findings.jsonl"
    rows = [
        {"contains": ["small effusion"], "answer": findings("a", "a", ONE)},
        {"contains": ["clear"], "answer": "none"},
    ]
    path.write_text("\n".join(map(json.dumps, rows)))
    judge = load("crimson", answers=str(path))
    answers = judge.score(["Small effusion.", "Clear.", "", "x"], ["Effusion.", "Effusion.", "Effusion.", ""])
    assert [a.score for a in answers] == [1.0, None, -1.0, None]
    assert answers[1].error.startswith("parse_failed: no JSON object")
    assert answers[0].details["correct"] == 0.5 and judge.name.startswith("crimson[answers ")
