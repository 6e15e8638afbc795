"""The stranger's test: each of its ways from the README exists, is as long as it says, and ends at the answer."""

import re
from pathlib import Path

import pytest
from tests.docs.blocks import ROOT

README, PAGE = ROOT / "README.md", ROOT / "docs/evidence/strangers-test.md"
LINK = re.compile(r"\]\(([^)\s#]+)(?:#[^)]*)?\)")


def targets(page: Path) -> set[Path]:
    return {(page.parent / link).resolve() for link in LINK.findall(page.read_text())}


def rows() -> list[list[str]]:
    """(question, way, clicks, answer) of each row of the table."""
    table = [line for line in PAGE.read_text().splitlines() if line.startswith("| ")][1:]
    return [[c.replace("\\|", "|").strip() for c in re.split(r"(?<!\\)\|", line)[1:-1]] for line in table]


def test_there_are_ten_questions_and_none_takes_more_than_two_clicks():
    assert len(rows()) == 10 and all(int(clicks) <= 2 for _, _, clicks, _ in rows())


@pytest.mark.parametrize("row", rows(), ids=lambda row: row[0])
def test_the_way_leads_to_the_answer(row):
    _, way, clicks, answer = row
    steps = [(PAGE.parent / link).resolve() for link in LINK.findall(way)]
    if clicks != "0":
        assert len(steps) == int(clicks)
        here = README
        for step in steps:
            assert step in targets(here), f"{here.name} has no link to {step.name}"
            here = step
    assert answer.strip("`") in steps[-1].read_text()
