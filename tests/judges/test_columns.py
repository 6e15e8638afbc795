"""Judges as a library: columns of any kind come in, missing texts abstain, a table goes out."""

import math

import pytest

from chexalign.errors import RecipeError
from chexalign.judges import load

REPORTS = ["Small left effusion.", None, "No pneumothorax.", "Clear lungs."]
REFERENCES = ["Left effusion.", "Normal chest.", math.nan, "Clear lungs."]


def columns():
    import datasets
    import numpy
    import pandas

    table = datasets.Dataset.from_dict({"report": REPORTS, "reference": [None if r != r else r for r in REFERENCES]})
    return {
        "list": (REPORTS, REFERENCES),
        "tuple": (tuple(REPORTS), tuple(REFERENCES)),
        "series": (pandas.Series(REPORTS), pandas.Series(REFERENCES)),
        "array": (numpy.array(REPORTS, dtype=object), numpy.array(REFERENCES, dtype=object)),
        "column": (table["report"], table["reference"]),
        "generator": ((r for r in REPORTS), (r for r in REFERENCES)),
    }


@pytest.mark.parametrize("line", ["finding_f1_weighted", "lc_rouge_l", "min(rouge_l, facts)", "format"])
def test_every_kind_of_column_gives_the_same_answers(line):
    judge = load(line)
    whole = judge.score([REPORTS[0], REPORTS[3]], [REFERENCES[0], REFERENCES[3]])
    for kind, (reports, references) in columns().items():
        found = judge.score(reports, references)
        assert [found[0], found[3]] == whole, kind
        assert [a.error for a in found[1:3]] == ["the report is missing (row 1)", "the reference is missing (row 2)"]


def test_the_table_has_a_row_per_report():
    found = load("rouge_l").score(REPORTS, REFERENCES)
    table = found.to_pandas()
    assert list(table.columns) == ["judge", "score", "error", "details"]
    assert table["score"].isna().tolist() == [False, True, True, False]
    assert table["score"].mean() == pytest.approx(found.mean) and found.abstained == 2
    assert found.scores[3] == 1.0


@pytest.mark.parametrize(
    ("reports", "says"), [("one text", "give a list of texts"), ([3], r"reports\[0\] is a int"), ([b"x"], "is a bytes")]
)
def test_what_is_no_column_of_texts_is_refused(reports, says):
    with pytest.raises(RecipeError, match=says):
        load("rouge_l").score(reports, ["x"])
