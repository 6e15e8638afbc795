import json

import pytest

from chexalign.records import Completion, Pair, Study, Verdict

STUDY = Study("s1", "p1", "test", (("a/1.png", "frontal"),), findings='Heart "big" <b>\n', labels={"mesh": ["x"]})
COMPLETION = Completion("s1", 0, "Text é", -12.5, 3, "stop", "tiny", 7, (4, 5, 2))
VERDICT = Verdict("s1", 0, "rouge_l", None, "the reference is empty", {"a": [1]}, "1", 0.1)
PAIR = Pair("s1", "prompt", (("a/1.png", "frontal"),), "good", "bad", 0.9, 0.1, "rouge_l", (1, 2), (3,), -1.0, -2.0)


@pytest.mark.parametrize("record", [STUDY, COMPLETION, VERDICT, PAIR])
def test_json_round_trip(record):
    line = record.to_json()
    assert "\n" not in line
    assert type(record).from_json(line) == record


@pytest.mark.parametrize("record", [STUDY, COMPLETION, VERDICT, PAIR])
def test_records_are_frozen(record):
    with pytest.raises(AttributeError):
        record.study_id = "other"


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), "0.5", True])
def test_no_score_that_is_not_a_number(bad):
    with pytest.raises(ValueError, match="score"):
        Verdict("s", 0, "j", bad, None, {}, "1", 0.0)


def test_a_verdict_has_a_score_or_an_error():
    with pytest.raises(ValueError, match="exactly one"):
        Verdict("s", 0, "j", None, None, {}, "1", 0.0)
    with pytest.raises(ValueError, match="exactly one"):
        Verdict("s", 0, "j", 0.0, "failed", {}, "1", 0.0)


def test_unknown_and_missing_fields_are_named():
    row = json.loads(COMPLETION.to_json())
    with pytest.raises(ValueError, match="unknown field txet"):
        Completion.from_dict({**row, "txet": 1})
    del row["text"]
    with pytest.raises(ValueError, match="missing field text"):
        Completion.from_dict(row)


def test_split_is_checked():
    with pytest.raises(ValueError, match="split 'dev'"):
        Study("s", "p", "dev")
