"""How the pages are written: explanations hold no measurement and no date, and no sentence is a chain of semicolons."""

import re

import pytest
from tests.docs.blocks import FENCE, PAGES, ROOT

EXPLAINING = [p for p in PAGES if "evidence" not in p.parts and p.name != "README.md"]
DATE = re.compile(r"\b20\d\d-\d\d-\d\d\b")
INTERVAL = re.compile(r"\[[+−-]?\.\d+, [+−-]?\.\d+\]")


def prose(page):
    """The page without code blocks and links' targets."""
    return re.sub(r"\]\([^)]*\)", "]", FENCE.sub("", page.read_text()))


def sentences(page):
    """Sentences and table cells, without code in backticks."""
    text = re.sub(r"`[^`]*`", "CODE", prose(page))
    paragraphs = re.split(r"\n\s*\n|\n(?=\s*[-|\d]+[ .])|^#+ .*$", text, flags=re.M)
    for paragraph in paragraphs:
        yield from re.split(r"(?<=[.:?])\s+|\s\|\s", " ".join(paragraph.split()))


@pytest.mark.parametrize("page", EXPLAINING, ids=lambda p: str(p.relative_to(ROOT)))
def test_explanations_hold_no_date_and_no_interval(page):
    assert DATE.findall(prose(page)) == [] and INTERVAL.findall(prose(page)) == []


@pytest.mark.parametrize("page", EXPLAINING, ids=lambda p: str(p.relative_to(ROOT)))
def test_no_sentence_is_a_chain(page):
    assert [s for s in sentences(page) if s.count(";") > 1 or len(s.split()) > 45] == []
