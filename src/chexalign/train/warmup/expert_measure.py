"""What an image–text expert can do on studies it has not seen: retrieval, and telling a report from the same one made wrong."""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from chexalign.data.images import load_image
from chexalign.judges.neural.two_towers import open_two_towers
from chexalign.labels import find_mentions
from chexalign.progress import say
from chexalign.records import Study
from chexalign.train.warmup.expert import statements

MOST = 500  # held-out studies to measure on
DENIALS = {  # finding → how its sentence reads when it is denied; "No …." for the others
    "Cardiomegaly": "The heart is normal in size.",
    "Edema": "No pulmonary edema.",
    "Lung Lesion": "No nodule.",
    "Lung Opacity": "No opacity.",
    "Support Devices": "No line or tube.",
}
SWAPPED = {"left": "right", "right": "left"}


def measure_expert(folder: Path, held_out: Sequence[Study], root: Path, seed: int) -> dict[str, Any]:
    """Retrieval of each image's report among all n, and the share of wrong versions that score below the true report.

    `same_findings` counts as a hit any report with the same statements: with many normal studies, reports are alike. Ties
    rank worst in retrieval and count half in the contrast.
    """
    studies = [s for s in held_out if s.images and s.findings.strip()]
    random.Random(seed).shuffle(studies)
    studies = studies[:MOST]
    if len(studies) < 2:
        return {"n": len(studies)}
    towers, rng = (
        open_two_towers(str(folder), download=False, trust_remote_code=False, device="auto"),
        random.Random(seed),
    )
    reports = [s.findings for s in studies]
    images, texts = towers.images([load_image(root, s.images[0][0]) for s in studies]), towers.texts(reports)
    out: dict[str, Any] = {"n": len(studies), "reports_cut": sum(c > towers.limit for c in towers.count(reports))}
    out |= retrieval(images @ texts.T, [statements(r) for r in reports])
    own = (images * texts).sum(1)
    for kind, edit in EDITS.items():
        changed = [(i, new) for i, r in enumerate(reports) if (new := edit(r, rng, reports)) and new != r]
        if changed:
            rows = [i for i, _ in changed]
            wrong = (images[rows] * towers.texts([new for _, new in changed])).sum(1)
            below = np.where(own[rows] == wrong, 0.5, own[rows] > wrong)
            out[f"contrast_{kind}"] = {"share": round(float(below.mean()), 4), "n": len(rows)}
    contrast = ", ".join(f"{k.removeprefix('contrast_')} {v['share']:.2f}" for k, v in out.items() if "contrast" in k)
    say(
        f"expert: R@1 {out['r_at_1']:.2f}, R@5 {out['r_at_5']:.2f}, median rank {out['median_rank']:g} of {out['n']} held-out "
        f"reports; R@1 {out['same_findings_r_at_1']:.2f} for the same findings; true report above a wrong one: {contrast}"
    )
    return out


def retrieval(scores: np.ndarray, says: Sequence[frozenset[str]]) -> dict[str, float]:
    """(n, n) scores, images in rows, each image's own report on the diagonal; `says` are the reports' statements."""
    n, own = len(scores), np.diag(scores)[:, None]
    rank = (scores >= own).sum(1)  # its own report counts once: 1 is the best
    same = np.array([[a == b for b in says] for a in says])
    best = np.where(same, scores, -np.inf).max(1, keepdims=True)
    rank_same = ((scores >= best) & ~same).sum(1) + 1
    return {
        "r_at_1": round(float((rank <= 1).mean()), 4),
        "r_at_5": round(float((rank <= 5).mean()), 4),
        "median_rank": float(np.median(rank)),
        "chance_r_at_1": round(1 / n, 4),
        "same_findings_r_at_1": round(float((rank_same <= 1).mean()), 4),
        "same_findings_chance_r_at_1": round(float(same.mean()), 4),
    }


# ---- reports made wrong in one finding; None where the report has nothing to change


def _sentences(text: str) -> list[str]:
    return re.split(r"(?<=[.!?])\s+", text.strip())


def _present(sentence: str) -> list[str]:
    return [m.label for m in find_mentions(sentence) if m.status == 1]


def swap_side(report: str, rng: random.Random, pool: Sequence[str]) -> str | None:
    """Left and right change places in one sentence that states a finding."""
    parts = _sentences(report)
    sided = [i for i, s in enumerate(parts) if _present(s) and re.search(r"\b(left|right)\b", s, re.I)]
    if not sided:
        return None
    i = rng.choice(sided)
    parts[i] = re.sub(r"\b(left|right)\b", lambda m: SWAPPED[m[0].lower()], parts[i], flags=re.I)
    return " ".join(parts)


def deny(report: str, rng: random.Random, pool: Sequence[str]) -> str | None:
    """One sentence that states a finding denies it instead."""
    parts = _sentences(report)
    stating = [i for i, s in enumerate(parts) if _present(s)]
    if not stating:
        return None
    i = rng.choice(stating)
    label = _present(parts[i])[0]
    parts[i] = DENIALS.get(label, f"No {label.lower()}.")
    return " ".join(parts)


def add_finding(report: str, rng: random.Random, pool: Sequence[str]) -> str | None:
    """A sentence of another report on findings that this one lacks; sentences that deny them go."""
    parts, have = _sentences(report), {m.label for m in find_mentions(report) if m.status == 1}
    for _ in range(20):
        new = rng.choice(_sentences(rng.choice(pool)))
        labels = set(_present(new))
        if labels and not labels & have:
            kept = [s for s in parts if not labels & {m.label for m in find_mentions(s)}]
            return " ".join([*kept, new])
    return None


EDITS = {"side": swap_side, "denied": deny, "added": add_finding}
