"""A scorecard in words: what it answers, which attacks fool a judge, and the Markdown table."""

from __future__ import annotations

from typing import Any

from chexalign.judges.registry import JUDGES, LC

NAMED = 4  # attacks named in a line of the table


CONSTANT = "one constant text on abnormal studies"
TEMPLATE = "normal template on abnormal studies"


Card = dict[str, Any]


def rating_of(row: Card) -> float | None:
    """Mean agreement with people's ratings; None where the card was made without them."""
    return row.get("agreement", {}).get("rating", {}).get("mean")


def trust(row: Card) -> list[str]:
    """The attacks a judge falls for, in words."""
    fooled = [e["edit"] for e in row["edits"] if e["good"] is False]
    fooled += [c["case"] for c in row["cases"] if c["good"] is False and c["case"] not in fooled]
    abnormal = row["template"]["abnormal"]
    if None not in (abnormal["template"], abnormal["other"]) and abnormal["template"] >= abnormal["other"]:
        fooled.append(TEMPLATE)
    best = (row.get("constant") or {}).get("abnormal", {})
    if None not in (best.get("score"), best.get("other")) and best["score"] >= best["other"]:
        fooled.append(CONSTANT)
    return fooled


def answer(card: Card) -> list[str]:
    """Which judge to trust for what, in a few sentences, from the numbers of the card alone."""
    judged = [row for row in card["judges"] if rating_of(row) is not None]
    said = []
    if judged:
        best = judged[0]
        cell = best["agreement"]["rating"]
        said.append(
            f"{best['name']} agrees best with the radiologists: rank correlation with their mean rating {cell['mean']:.2f}, "
            f"{card['level']:.0%} interval {cell['low']:.2f} to {cell['high']:.2f} ({cell['n']} reports on "
            f"{card['n_cases']} cases)."
        )
        tied = [r["name"] for r in judged[1:] if (d := r.get("behind_best")) and d["low"] is not None and d["low"] <= 0]
        if tied:
            said.append(f"Not measurably worse: {', '.join(tied)}.")
        elif len(judged) > 1:
            said.append("Every other judge measured here is measurably worse.")
        plain = dict.fromkeys(row["name"].removeprefix(LC) for row in judged)
        said += [f"{name} {JUDGES[name].caveat}." for name in plain if name in JUDGES and JUDGES[name].caveat]
        if card["raters"] and card["raters"]["mean"] is not None:
            said.append(f"One radiologist against the mean of the others reaches {card['raters']['mean']:.2f}.")
    else:
        said.append("Agreement with radiologists was not measured: give --data DIR with rated reports.")
    sound = [row["name"] for row in card["judges"] if not trust(row) and any(e["good"] for e in row["edits"])]
    said.append(
        f"No attack tried here fools {', '.join(sound)}."
        if sound
        else "Every judge falls for at least one attack; see below."
    )
    hacked = [row["name"] for row in card["judges"] if TEMPLATE in trust(row)]
    if hacked:
        said.append(
            "On abnormal studies a fixed normal report earns as much as another radiologist's, or more, under "
            f"{', '.join(hacked)}: do not train on these alone."
        )
    paid = [row for row in card["judges"] if CONSTANT in trust(row)]
    if paid:
        worst = max(paid, key=lambda row: row["constant"]["abnormal"]["score"] - row["constant"]["abnormal"]["other"])
        cell = worst["constant"]["abnormal"]
        said.append(
            f"On abnormal studies one constant text earns as much as another patient's report, or more, under "
            f"{', '.join(row['name'] for row in paid)} (most under {worst['name']}: {cell['score']:.2f} against "
            f"{cell['other']:.2f}): a run must show its gain beside that constant."
        )
    if judged and (rate := judged[0]["speed"]["cached_references"] or judged[0]["speed"]["cold"]):
        said.append(f"{judged[0]['name']} scores {rate:,.0f} reports per second here, references cached, one process.")
    return said


def markdown(card: Card) -> str:
    """The tables for the docs."""
    head = "| judge | rating | significant errors | preference | abstained | reports/s | falls for |"
    lines = [*(f"- {s}" for s in card["answer"]), "", head, "|---" * 7 + "|"]
    for row in card["judges"]:
        found = row.get("agreement", {})
        cells = [_cell(found.get(key)) for key in ("rating", "significant_errors", "preference")]
        rate = row["speed"]["cached_references"] or row["speed"]["cold"]
        cells += [
            f"{found.get('abstained', 0) + row['reports_abstained']}",
            f"{rate:,.0f}" if rate else "–",
            _attacks(row),
        ]
        lines.append(f"| {row['name']} | {' | '.join(cells)} |")
    lines += _constants(card)
    lines += ["", *(f"- {u['judge']}: not available here: {u['why']}" for u in card["unavailable"])]
    return "\n".join(lines) + "\n"


def _constants(card: Card) -> list[str]:
    """The best constant text of each judge, and what another patient's report earns."""
    rows = [(row["name"], part, cell) for row in card["judges"] for part, cell in (row.get("constant") or {}).items()]
    head = ["", "| judge | studies | best constant text | earns | another patient's report |", "|---" * 5 + "|"]
    return (head if rows else []) + [
        f"| {name} | {part} | {_quoted(cell['text'])} | {_number(cell['score'])} | {_number(cell['other'])} |"
        for name, part, cell in rows
    ]


def _quoted(text: str | None) -> str:
    return "–" if text is None else text.replace("|", "/").replace("\n", " ")[:160]


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def _attacks(row: Card) -> str:
    """How many attacks fool the judge, and the first of them; the page has them all."""
    fooled = trust(row)
    shown = "; ".join(fooled[:NAMED]) + ("; …" if len(fooled) > NAMED else "")
    return f"{len(fooled)}: {shown}" if fooled else "none"


def _cell(found: dict[str, Any] | None) -> str:
    if not found or found.get("mean") is None:
        return "–"
    span = f" [{found['low']:.2f}, {found['high']:.2f}]" if found.get("low") is not None else ""
    return f"{found['mean']:.3f}{span}"
