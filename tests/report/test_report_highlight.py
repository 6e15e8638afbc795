"""Marks: every character of the text appears once and escaped, whatever the offsets."""

from __future__ import annotations

import html
import re

from hypothesis import given
from hypothesis import strategies as st

from chexalign.report.run.highlight import KINDS, highlight


def mark(start: object, end: object, kind: str = "right", label: str = "") -> dict[str, object]:
    return {"start": start, "end": end, "kind": kind, "label": label}


def bare(markup: str) -> str:
    """The text without tags and without what the marks add."""
    return html.unescape(re.sub(r"<[^>]*>", "", re.sub(r"<span.*?</span>", "", markup)))


def test_one_mark_by_hand() -> None:
    shown = highlight("No big heart.", [mark(3, 12, "wrong", "Cardiomegaly")])
    assert shown == (
        'No <mark class="wrong" title="wrong: Cardiomegaly">big heart</mark>'
        '<span class="symbol wrong" aria-hidden="true">✗</span><span class="sr"> (wrong: Cardiomegaly) </span>.'
    )


def test_nested_and_overlapping_marks_take_the_strongest_style_and_end_once_each() -> None:
    shown = highlight("abcdefgh", [mark(0, 6, "right", "A"), mark(2, 4, "uncertain", "B"), mark(3, 8, "wrong", "C")])
    assert re.findall(r'<mark class="(\w+)"[^>]*>(\w+)', shown) == [
        ("right", "ab"), ("uncertain", "c"), ("wrong", "d"), ("wrong", "ef"), ("wrong", "gh"),
    ]  # fmt: skip
    assert [shown.count(f">{KINDS[kind]}<") for kind in ("right", "uncertain", "wrong")] == [1, 1, 1]


def test_bad_offsets_are_clipped_or_left_out() -> None:
    rows = [mark(-5, 2), mark(3, 99), mark(2, 2), mark(4, 1), mark("0", 3), mark(True, 3), mark(None, 3), mark(1.0, 3)]
    assert re.findall(r"<mark[^>]*>(\w+)", highlight("abcd", rows)) == ["ab", "d"]
    assert highlight("abcd", [mark(0, 2, "sideways"), "nonsense", None]) == "abcd"
    assert highlight("abcd", None) == highlight("abcd", "marks") == "abcd"
    assert highlight("", [mark(0, 5)]) == ""


def test_identical_marks_are_said_once() -> None:
    assert highlight("abcd", [mark(0, 2, "right", "A")] * 3).count("✓") == 1


offsets = st.integers(-3, 30)
marks = st.builds(mark, offsets, offsets, st.sampled_from([*KINDS, "other"]), st.sampled_from(["", "A", "<b>", '"']))


@given(st.text(alphabet="ab<>&\"' \né肺", max_size=25), st.lists(marks, max_size=6))
def test_text_survives_any_marks(text: str, rows: list[dict[str, object]]) -> None:
    shown = highlight(text, rows)
    assert bare(shown) == text
    assert not re.search(r"<(?!/?(mark|span)[ >])", shown)
