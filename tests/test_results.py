"""results.json as records: what is written is what is read, in the order of the file."""

import json

import pytest

from chexalign.results import Block, Controls, Results, ShuffledControl, TemplateControl

CELL = {"mean": 0.5, "low": 0.4, "high": 0.6, "n": 3, "abstained": 0}
BLOCK = Block({"m": CELL}, {"m": CELL}, {"m": {**CELL, "relative": None}}, {"baseline": 4.0}, 3, "greedy")


def test_a_round_trip_keeps_every_part_and_the_order():
    results = Results(
        overall=BLOCK,
        recipe="r",
        task="findings",
        level=0.9,
        n_bootstrap=100,
        headline=("m",),
        subsets={"greedy": BLOCK, "finding/Edema": Block({"f1": CELL}, {"f1": CELL}, {"f1": CELL}, None, 3, "greedy")},
        controls=Controls(TemplateControl("text", {"m": CELL}, {"m": CELL}), ShuffledControl({"m": CELL})),
        grounding={"places": False},
        warnings=("few studies",),
    )
    row = json.loads(json.dumps(results.to_dict()))
    assert Results.from_dict(row) == results
    assert list(row)[:6] == ["recipe", "task", "level", "n_bootstrap", "headline", "baseline"]
    assert list(row)[-4:] == ["subsets", "controls", "grounding", "warnings"]
    assert "length" not in row["subsets"]["finding/Edema"]


def test_an_older_file_may_lack_parts_but_no_part_may_be_something_else():
    assert Results.from_dict({"baseline": {"m": CELL}}).overall.side("baseline") == {"m": CELL}
    with pytest.raises(ValueError, match="aligned must be an object, not list"):
        Results.from_dict({"aligned": [1]})
    with pytest.raises(ValueError, match="warnings must be a list"):
        Results.from_dict({"warnings": "few studies"})
