"""A scorecard in words: what it answers, which attacks fool a judge, and the Markdown table."""

from __future__ import annotations

from typing import Any

from chexalign.judges.registry import JUDGES, LC

NAMED = 4  # attacks named in a line of the table


TEMPLATE = "normal template on abnormal studies"


Card = dict[str, Any]


def rating_of(row: Card) -> float | None:
    return row.get("agreement", {}).get("rating", {}).get("mean")


def trust(row: Card) -> list[str]:
    """The attacks a judge falls for, in words."""
    fooled = [e["edit"] for e in row["edits"] if e["good"] is False]
    fooled += [c["case"] for c in row["cases"] if c["good"] is False and c["case"] not in fooled]
    abnormal = row["template"]["abnormal"]
    if None not in (abnormal["template"], abnormal["other"]) and abnormal["template"] >= abnormal["other"]:
        fooled.append(TEMPLATE)
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
    lines += ["", *(f"- {u['judge']}: not available here: {u['why']}" for u in card["unavailable"])]
    return "\n".join(lines) + "\n"


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
