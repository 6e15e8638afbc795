"""Numbers and sentences as a radiologist reads them: `.574`, `[.071, .112]`, "rose from … to …"; unknown is never 0."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Any

from chexalign.results import SIDES, Block

MINUS = "\u2212"
NARROW = "\u202f"
DASH = "\u2013"

# code name → (name inside a sentence, what it measures)
METRICS = {
    "chexpert_rule_f1": (
        "CheXpert-rule F1",
        "agreement with the reference report on the 13 CheXpert findings, read from both texts by rules",
    ),
    "chexpert_rule_macro_precision": (
        "CheXpert-rule macro precision",
        "rule labels: share of the stated findings that the reference has, mean over the findings that occur there",
    ),
    "chexpert_rule_macro_recall": (
        "CheXpert-rule macro recall",
        "rule labels: share of the reference's findings that are stated, mean over the findings that occur there",
    ),
    "chexpert_rule_macro_f1": (
        "CheXpert-rule macro F1",
        "rule labels: mean F1 of the findings that occur in the references (macro13 also counts those that do not, as 0)",
    ),
    "finding_f1": ("finding F1", "findings stated with the right status, side, zone and size"),
    "rouge_l": ("ROUGE-L", "longest sequence of words shared with the reference report"),
    "rouge_1": ("ROUGE-1", "words shared with the reference text"),
    "rouge_2": ("ROUGE-2", "pairs of words shared with the reference text"),
    "finding_consistency": (
        "finding consistency",
        "nothing in the impression that the findings section does not support, nothing urgent left out, read by rules",
    ),
    "chexbert_f1": ("CheXbert F1", "agreement with the reference report on the labels that CheXbert finds in both"),
    "chexbert_mean": (
        "CheXbert F1, mean of four",
        "mean of micro and macro F1 over 14 and over 5 labels (CheXalign)",
    ),
    **{
        f"chexbert_{kind}_{part}_14": (
            f"CheXbert {kind} {part}",
            f"CheXbert's 14 labels over the whole set, {kind} {part}",
        )
        for kind in ("micro", "macro")
        for part in ("precision", "recall")
    },
    **{
        f"corpus_bleu{n}": (
            f"corpus BLEU-{n}",
            "counts pooled over the whole set, as the papers do (COCO form, no smoothing)",
        )
        for n in (1, 2, 3, 4)
    },
    "bleu4": ("BLEU-4", "runs of one to four words shared with the reference report"),
    "green": ("GREEN", "matched findings against clinically significant errors, judged by a language model"),
    "words": ("words per report", "mean length of the generated report"),
}
_CORPUS = re.compile(r"(?P<stem>.+)_(?P<kind>micro|macro)_?(?P<count>\d+)")
CORPUS_NOTE = (
    "Micro and macro F1",
    "over the whole set: micro counts all findings together, macro gives each finding the same weight; "
    "14 labels are the 13 findings and No Finding, 5 are the main findings of CheXpert",
)


@dataclass(frozen=True)
class Cell:
    """One number with its bootstrap interval; `mean` is None where nobody could be scored."""

    mean: float | None = None
    low: float | None = None
    high: float | None = None
    n: int | None = None
    abstained: int | None = None
    relative: float | None = None
    unread: float | None = None  # sentences that the judge could not read
    unreadable: float | None = None  # reports that are none: refusals, other languages, nothing said


def number(value: Any) -> float | None:
    """The value when it is a finite number, else None."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)


def count(value: Any) -> int | None:
    """The value when it is a whole number, else None."""
    return value if isinstance(value, int) and not isinstance(value, bool) else None


FEWEST_STUDIES = 10  # below these neither an interval nor a direction is shown; our choice


def cell(block: Any, metric: str, n_studies: int | None = None) -> Cell:
    """The cell of `metric` in `{metric: cell}`; an empty cell where there is none.

    Below FEWEST_STUDIES it has no interval, and so no direction. They are counted by the cell's own `n`, or by `n_studies`
    where `n` counts something else (of one finding: the studies that have it).
    """
    row = block.get(metric) if isinstance(block, dict) else None
    if not isinstance(row, dict):
        return Cell()
    n = count(row.get("n"))
    studies = n if n_studies is None else n_studies
    ends = ("low", "high") if studies is None or studies >= FEWEST_STUDIES else ()
    numbers = {name: number(row.get(name)) for name in ("mean", *ends, "relative", "unread", "unreadable")}
    return Cell(n=n, abstained=count(row.get("abstained")), **numbers)


def sentence_name(metric: str) -> str:
    """The metric's name inside a sentence: `finding_f1` → "finding F1", `lc_…` → "…, length-controlled"."""
    if metric.startswith("lc_"):
        return f"{sentence_name(metric[3:])}, length-controlled"
    if metric in METRICS:
        return METRICS[metric][0]
    if parts := corpus_parts(metric):
        return f"{sentence_name(parts[0] + '_f1')}, {parts[1]} over {parts[2]} labels"
    return metric


def corpus_parts(metric: str) -> tuple[str, str, str] | None:
    """`chexpert_rule_micro13` → ("chexpert_rule", "micro", "13"); None for a mean of per-study scores."""
    found = _CORPUS.fullmatch(metric)
    return (found["stem"], found["kind"], found["count"]) if found else None


def metric_name(metric: str) -> str:
    """The same name at the start of a table row."""
    name = sentence_name(metric)
    return name if name == metric else name[0].upper() + name[1:]


def metric_note(metric: str) -> str:
    """What the metric measures, in one line; empty where this page does not know it."""
    if metric.startswith("lc_"):
        note = metric_note(metric[3:])
        return f"{note}; reports longer than the reference are marked down" if note else ""
    return METRICS.get(metric, ("", ""))[1]


def score(value: float | None, metric: str = "", *, signed: bool = False, digits: int | None = None) -> str:
    """`.574`, `1.000`, `−.012`, `+.082`; words with one decimal; an unknown number is a dash."""
    if value is None:
        return DASH
    places = digits if digits is not None else 1 if metric == "words" else 3
    text = f"{abs(value):.{places}f}"
    is_zero = not text.strip("0.")
    sign = "" if is_zero else MINUS if value < 0 else "+" if signed else ""
    return sign + (text if metric == "words" else text.removeprefix("0"))


def bounds(low: float, high: float, metric: str = "") -> tuple[str, str]:
    """Both ends of an interval, with more decimals where an end that is not 0 would be printed as 0."""
    for digits in range(1 if metric == "words" else 3, 7):
        texts = score(low, metric, digits=digits), score(high, metric, digits=digits)
        if all(value == 0 or text.strip("0.") for value, text in zip((low, high), texts, strict=True)):
            break
    return texts


def interval(low: float | None, high: float | None, metric: str = "") -> str:
    """`[.071, .112]`; a dash where there is none."""
    return DASH if low is None or high is None else "[{}, {}]".format(*bounds(low, high, metric))


def percent(share: float | None, *, signed: bool = False, digits: int = 0) -> str:
    """`14 %`, `+14 %`, `−3 %` with a narrow space that does not break."""
    if share is None:
        return DASH
    text = f"{abs(100 * share):.{digits}f}"
    sign = "" if not text.strip("0.") else MINUS if share < 0 else "+" if signed else ""
    return f"{sign}{text}{NARROW}%"


def duration(seconds: float | None) -> str:
    """`8 s`, `12 min`, `1 h 05 min`."""
    if seconds is None:
        return DASH
    if seconds < 100:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


def whole(value: int | None) -> str:
    """`12 400` with a narrow space between thousands; a dash where unknown."""
    return DASH if value is None else f"{value:,}".replace(",", NARROW)


def verdict(difference: Cell) -> str:
    """ "up" or "down" where the interval excludes 0, "same" where it does not, "unknown" without an interval."""
    if difference.low is None or difference.high is None:
        return "unknown"
    return "up" if difference.low > 0 else "down" if difference.high < 0 else "same"


def headline(metric: str, block: Block, level: Any = None) -> str:
    """One sentence: what happened to `metric` between the baseline and the aligned model, with an interval of `level`."""
    before, after, change = (cell(block.side(side), metric) for side in SIDES)
    name = sentence_name(metric)
    n = count(block.n_studies)
    where = f"On {whole(n)} held-out studies" if n is not None else "On the held-out studies"
    if n is not None and change.n is not None and change.n < n:
        where += f" ({whole(change.n)} with a score)"
    if before.mean is None or after.mean is None or change.mean is None:
        return f"{where} the {name} of the two models could not be compared: no study has a score for both."
    start, end = score(before.mean), score(after.mean)
    if any(k is not None and k < FEWEST_STUDIES for k in (n, change.n)):
        return f"{where} the {name} was {start} before and {end} after: too few studies to say what changed."
    if change.low is None or change.high is None:
        return f"{where} the aligned model's {name} went from {start} to {end}; how sure that is was not measured."
    low, high = bounds(change.low, change.high)
    relative = f"; {percent(change.relative, signed=True)}" if change.relative is not None else ""
    sureness = percent(number(level) or 0.9)
    numbers = f"{score(change.mean, signed=True)}, {sureness} interval {low} to {high}{relative}"
    outcome = verdict(change)
    if outcome == "same":
        return f"{where} the aligned model's {name} did not change measurably: {start} before, {end} after ({numbers})."
    verb = "rose" if outcome == "up" else "fell"
    return f"{where} the aligned model's {name} {verb} from {start} to {end} ({numbers})."
