"""The door of every judge's `score`: lists, pandas Series or datasets columns come in, missing texts abstain, markup goes."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from chexalign.cleaning import clean
from chexalign.errors import RecipeError
from chexalign.judges.judgement import Judgement, Judgements

Ask = Callable[[list[int], list[str], list[str]], Sequence[Judgement]]


def texts_of(column: Iterable[Any], what: str) -> list[str | None]:
    """The texts of a list, tuple, array, pandas Series or datasets column; None where one is missing (None, NaN, NA).

    Raises RecipeError for one text in place of a column, and for an entry that is neither text nor missing.
    """
    if isinstance(column, str | bytes):
        raise RecipeError(f"{what} is one text; give a list of texts, one entry a report")
    return [_text(value, i, what) for i, value in enumerate(column)]


def _text(value: Any, i: int, what: str) -> str | None:
    if isinstance(value, str):
        return value
    if value is None or type(value).__name__ == "NAType" or (isinstance(value, float) and value != value):
        return None
    raise RecipeError(f"{what}[{i}] is a {type(value).__name__}, {str(value)[:40]!r}; a report is text, or None")


def judged(
    reports: Iterable[Any], references: Iterable[Any], ask: Ask, name: str = "", raw: bool = False
) -> Judgements:
    """One answer per row: rows with a missing text abstain, the others are asked together, cleaned unless `raw`.

    `ask` gets the rows' positions, reports and references. Raises ValueError when the columns differ in length.
    """
    report_texts, reference_texts = texts_of(reports, "reports"), texts_of(references, "references")
    if len(report_texts) != len(reference_texts):
        raise ValueError(f"{len(report_texts)} reports but {len(reference_texts)} references")
    tidy: Callable[[str], str] = str if raw else clean
    pairs = enumerate(zip(report_texts, reference_texts, strict=True))
    rows = [(i, tidy(a), tidy(b)) for i, (a, b) in pairs if a is not None and b is not None]
    positions, known, truth = [r[0] for r in rows], [r[1] for r in rows], [r[2] for r in rows]
    answers = dict(zip(positions, ask(positions, known, truth), strict=True))
    for i, report in enumerate(report_texts):
        if i not in answers:
            answers[i] = Judgement(None, f"the {'report' if report is None else 'reference'} is missing (row {i})")
    return Judgements((answers[i] for i in range(len(report_texts))), name)


def library_form(score: Callable[..., list[Judgement]], *, raw: bool = False) -> Callable[..., Judgements]:
    """A judge's `score` with this door before it. `raw` is for a judge of form, which must see the markup."""

    @functools.wraps(score)
    def whole(self: Any, reports: Iterable[Any], references: Iterable[Any], studies: Any = None) -> Judgements:
        column = reports if isinstance(reports, str) else list(reports)
        if studies is not None and len(studies) != len(column):
            raise ValueError(f"{len(column)} reports but {len(studies)} studies")

        def ask(rows: list[int], report_texts: list[str], reference_texts: list[str]) -> list[Judgement]:
            return score(self, report_texts, reference_texts, None if studies is None else [studies[i] for i in rows])

        return judged(column, references, ask, self.name, raw)

    return whole


raw_form = functools.partial(library_form, raw=True)
