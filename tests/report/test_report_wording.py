"""Numbers and sentences, by hand."""

from __future__ import annotations

from typing import Any

import pytest

from chexalign.report import wording
from chexalign.report.wording import Cell
from chexalign.results import Block


@pytest.mark.parametrize(
    ("value", "text", "signed"),
    [
        (0.5741, ".574", "+.574"),
        (1.0, "1.000", "+1.000"),
        (0.0, ".000", ".000"),
        (-0.0001, ".000", ".000"),
        (-0.0119, "−.012", "−.012"),
        (0.9996, "1.000", "+1.000"),
        (None, "–", "–"),
    ],
)
def test_score(value: float | None, text: str, signed: str) -> None:
    assert (wording.score(value), wording.score(value, signed=True)) == (text, signed)


def test_words_keep_their_leading_zero_and_one_decimal() -> None:
    assert wording.score(31.24, "words") == "31.2"
    assert wording.score(-0.5, "words", signed=True) == "−0.5"


def test_interval_never_shows_an_end_as_0_that_is_not() -> None:
    assert wording.interval(0.0712, 0.1118) == "[.071, .112]"
    assert wording.interval(0.0003, 0.0021) == "[.0003, .0021]"
    assert wording.interval(-1.12, -0.03, "words") == "[−1.12, −0.03]"
    assert wording.interval(0.0, 0.5) == "[.000, .500]"
    assert wording.interval(None, 0.5) == "–"


def test_other_numbers() -> None:
    assert wording.percent(0.144, signed=True).replace("\u202f", " ") == "+14 %"
    assert wording.percent(-0.001, signed=True).replace("\u202f", " ") == "0 %"
    assert [wording.duration(s) for s in (None, 3.21, 75, 912, 4105)] == ["–", "3.2 s", "75 s", "15 min", "1 h 08 min"]
    assert [wording.number(v) for v in (True, float("nan"), float("inf"), "1", 2)] == [None, None, None, None, 2.0]


def test_names() -> None:
    assert wording.metric_name("lc_finding_f1") == "Finding F1, length-controlled"
    assert wording.metric_name("chexpert_rule_micro13") == "CheXpert-rule F1, micro over 13 labels"
    assert wording.metric_name("bertscore[minilm-l6:L6]") == "bertscore[minilm-l6:L6]"


@pytest.mark.parametrize(
    ("low", "high", "outcome"), [(0.01, 0.2, "up"), (-0.2, -0.01, "down"), (-0.1, 0.1, "same"), (0.0, 0.1, "same")]
)
def test_verdict(low: float, high: float, outcome: str) -> None:
    assert wording.verdict(Cell(0.0, low, high)) == outcome
    assert wording.verdict(Cell(0.1)) == "unknown"


def results(before: float | None, after: float | None, change: tuple[Any, Any, Any], **more: Any) -> Block:
    mean, low, high = change
    difference = {"mean": mean, "low": low, "high": high, "n": 400, **more}
    sides = {"baseline": {"finding_f1": {"mean": before}}, "aligned": {"finding_f1": {"mean": after}}}
    return Block(**sides, difference={"finding_f1": difference}, n_studies=400)


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        (
            results(0.574, 0.656, (0.082, 0.071, 0.112), relative=0.143),
            "On 400 held-out studies the aligned model's finding F1 rose from .574 to .656"
            " (+.082, 90 % interval .071 to .112; +14 %).",
        ),
        (
            results(0.574, 0.526, (-0.048, -0.071, -0.012), n=397),
            "On 400 held-out studies (397 with a score) the aligned model's finding F1 fell from .574 to .526"
            " (−.048, 90 % interval −.071 to −.012).",
        ),
        (
            results(0.574, 0.576, (0.002, -0.01, 0.014)),
            "On 400 held-out studies the aligned model's finding F1 did not change measurably: .574 before, .576 after"
            " (+.002, 90 % interval −.010 to .014).",
        ),
        (
            results(None, 0.5, (None, None, None)),
            "On 400 held-out studies the finding F1 of the two models could not be compared:"
            " no study has a score for both.",
        ),
        (
            results(0.4, 0.5, (0.1, None, None)),
            "On 400 held-out studies the aligned model's finding F1 went from .400 to .500;"
            " how sure that is was not measured.",
        ),
    ],
)
def test_headline(given: Block, sentence: str) -> None:
    assert wording.headline("finding_f1", given, 0.9).replace("\u202f", " ") == sentence


def test_headline_without_anything() -> None:
    assert wording.headline("finding_f1", Block()).startswith(
        "On the held-out studies the finding F1 of the two models could not"
    )
