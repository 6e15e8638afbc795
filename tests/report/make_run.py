"""Builds a small synthetic run folder, close enough to a real one to look at: `python tests/report/make_run.py DIR`."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from chexalign import stats

PHRASES = {
    "Cardiomegaly": ("The heart is enlarged.", "The heart size is normal."),
    "Pleural Effusion": ("There is a small left pleural effusion.", "No pleural effusion is seen."),
    "Lung Opacity": ("Patchy opacity projects over the right lower zone.", "The lungs are clear."),
    "Atelectasis": ("Linear atelectasis is seen at the left base.", ""),
    "Edema": ("There is mild interstitial edema.", ""),
    "Consolidation": ("Consolidation is present in the right middle zone.", ""),
    "Pneumothorax": ("A small right apical pneumothorax is present.", "No pneumothorax."),
    "Lung Lesion": ("A nodule projects over the left upper zone.", ""),
    "Support Devices": ("A right central venous catheter ends in the SVC.", ""),
}
PREVALENCE = (0.30, 0.24, 0.22, 0.16, 0.10, 0.08, 0.05, 0.05, 0.14)
POLICIES = {"baseline": 0.55, "aligned": 0.68}
JUDGES = ("chexpert_rule_f1", "finding_f1", "rouge_l", "bleu4", "lc_finding_f1")
BOOT: dict[str, Any] = {"n_boot": 200, "seed": 0, "level": 0.9}
LABELS = tuple(PHRASES)


def write_json(path: Path, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, indent=1, allow_nan=False), encoding="utf-8")


def write_rows(path: Path, rows: list[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row, allow_nan=False) + "\n" for row in rows), encoding="utf-8")


def make_run(folder: Path, *, name: str = "iu_demo", n_studies: int = 60, seed: int = 0, lift: float = 0.0) -> Path:
    """Write a whole run folder and return it; `lift` makes the aligned policy better than usual."""
    truth = np.random.default_rng(7).random((n_studies, len(LABELS))) < np.array(
        PREVALENCE
    )  # the same studies for every seed
    rng = np.random.default_rng(seed)
    found = {}
    for decoding, bonus in (("temperature_1", 0.0), ("greedy", 0.05)):
        for policy, skill in POLICIES.items():
            right = rng.random(truth.shape) < skill + bonus + (lift if policy == "aligned" else 0)
            found[decoding, policy] = np.where(right, truth, rng.random(truth.shape) < 0.12)
    rows = [row for key in found for row in study_rows(*key, truth, found[key], rng)]
    write_rows(folder / "evaluation" / "per_study.jsonl", rows)
    write_json(folder / "results.json", results(name, rows, truth, found))
    write_json(folder / "examples.json", examples(folder, truth, found, rows))
    write_json(folder / "manifest.json", manifest(name, n_studies))
    write_json(folder / "pairs_summary.json", pairs_summary())
    write_logs(folder, rng)
    return folder


def study_rows(decoding: str, policy: str, truth: Any, found: Any, rng: Any) -> list[dict[str, Any]]:
    """`per_study.jsonl` rows of one policy under one decoding; the last study makes one judge abstain."""
    rows = []
    for i, (t, f) in enumerate(zip(truth, found, strict=True)):
        words, reference = len(text_of(f).split()), len(text_of(t).split())
        f1 = 1.0 if not (t | f).any() else 2 * float((t & f).sum()) / float(t.sum() + f.sum())
        strict = round(f1 * float(rng.uniform(0.75, 1.0)), 4)
        scores: dict[str, float | None] = {"chexpert_rule_f1": round(f1, 4), "finding_f1": strict}
        scores["rouge_l"] = round(float(rng.beta(5, 9)), 4)
        scores["bleu4"] = round(float(rng.beta(2, 12)), 4)
        scores["lc_finding_f1"] = None if i == len(truth) - 1 else round(strict / max(words / reference, 1), 4)
        row = {"study_id": f"s{i:04d}", "decoding": decoding, "policy": policy, "words": words}
        rows.append({**row, "reference_words": reference, "abnormal": bool(t.any()), "scores": scores})
    return rows


def text_of(row: Any) -> str:
    return " ".join(p for label, on in zip(LABELS, row, strict=True) if (p := PHRASES[label][0 if on else 1]))


def block(before: list[dict[str, Any]], after: list[dict[str, Any]], decoding: str) -> dict[str, Any]:
    """One block of results.json from the per-study rows of both policies, in the same order."""
    out: dict[str, Any] = {
        "n_studies": len(before),
        "decoding": decoding,
        "baseline": {},
        "aligned": {},
        "difference": {},
    }
    for metric in (*JUDGES, "words"):
        b, a = ([r["words"] if metric == "words" else r["scores"][metric] for r in rows] for rows in (before, after))
        cells = stats.mean_cell(b, **BOOT), stats.mean_cell(a, **BOOT), stats.paired_difference(b, a, **BOOT)
        put(out, metric, cells)
    lengths = {"baseline": before, "aligned": after}
    out["length"] = {name: float(np.mean([r["words"] for r in rows])) for name, rows in lengths.items()}
    out["length"]["reference"] = float(np.mean([r["reference_words"] for r in before]))
    return out


def put(out: dict[str, Any], metric: str, cells: Any) -> None:
    for side, cell in zip(("baseline", "aligned", "difference"), cells, strict=True):
        out[side][metric] = cell
    start, change = cells[0]["mean"], cells[2]["mean"]
    cells[2]["relative"] = change / start if start and change is not None else None


def counts(truth: Any, found: Any) -> Any:
    """True positives, false positives and false negatives per study and label."""
    return np.stack([truth & found, ~truth & found, truth & ~found], axis=1).astype(float)


def finding_block(truth: Any, before: Any, after: Any) -> dict[str, Any]:
    """Precision, recall and F1 of one finding; n counts the studies that have it."""
    n = int(truth.sum())
    out: dict[str, Any] = {
        "n_studies": n,
        "decoding": "temperature 1.0",
        "baseline": {},
        "aligned": {},
        "difference": {},
    }
    for metric, function in (("precision", stats.precision), ("recall", stats.recall), ("f1", stats.micro_f1)):
        cells = stats.corpus_cells((counts(truth, before), counts(truth, after)), function, **BOOT)
        put(out, metric, [{**cell, "n": n} for cell in cells])
    return out


def results(name: str, rows: list[dict[str, Any]], truth: Any, found: Any) -> dict[str, Any]:
    def pick(decoding: str, title: str, abnormal: bool = False) -> dict[str, Any]:
        keep = [r for r in rows if r["decoding"] == decoding and (r["abnormal"] or not abnormal)]
        before, after = ([r for r in keep if r["policy"] == p] for p in POLICIES)
        return block(before, after, title)

    out: dict[str, Any] = {
        "recipe": name,
        "level": 0.9,
        "n_bootstrap": 1000,
        "headline": ["chexpert_rule_f1", "finding_f1"],
    }
    out |= pick("temperature_1", "temperature 1.0")
    before, after = (counts(truth, found["temperature_1", policy]) for policy in POLICIES)
    for labels in ("13", "14", "5"):
        put(out, f"chexpert_rule_micro{labels}", stats.corpus_cells((before, after), stats.micro_f1, **BOOT))
        put(out, f"chexpert_rule_macro{labels}", stats.corpus_cells((before, after), stats.macro_f1, **BOOT))
    subsets = {"greedy": pick("greedy", "greedy"), "abnormal": pick("temperature_1", "temperature 1.0", True)}
    subsets["greedy_abnormal"] = pick("greedy", "greedy", True)
    for i, label in enumerate(LABELS):
        sides = [found["temperature_1", policy][:, i : i + 1] for policy in POLICIES]
        subsets[f"finding/{label}"] = finding_block(truth[:, i : i + 1], *sides)
    template = {m: {"mean": v, "low": v - 0.03, "high": v + 0.03, "n": len(truth), "abstained": 0} for m, v in
                (("chexpert_rule_f1", 0.782), ("finding_f1", 0.31), ("rouge_l", 0.29))}  # fmt: skip
    abnormal = {m: {**c, "mean": 0.0, "low": 0.0, "high": 0.0} for m, c in template.items() if m != "rouge_l"}
    shuffled = {m: {**c, "mean": 0.21, "low": 0.18, "high": 0.24} for m, c in template.items()}
    text = "The heart size is normal. The lungs are clear. No pleural effusion. No pneumothorax."
    out["controls"] = {"template": {"text": text, "scores": template, "abnormal_scores": abnormal}}
    out["controls"]["shuffled_images"] = {"scores": shuffled}
    subsets["shuffled"], part = (
        pick("temperature_1", "temperature 1.0"),
        {"mean": 0.05, "low": 0.01, "high": 0.09, "n": 60},
    )
    subsets["shuffled"]["difference"]["finding_f1"] = {"mean": 0.021, "low": 0.004, "high": 0.038, "n": 60}
    out["controls"]["shuffled_images"]["gain"] = {"finding_f1": part}
    warning = "The reports are poor: a fixed template that ignores the image scores higher on CheXpert-rule F1 (.782)."
    return {**out, "subsets": subsets, "warnings": [warning]}


def draw_chest(path: Path, row: Any, seed: int) -> None:
    """A crude radiograph at 256 px: thorax, lungs, heart, and a patch for each finding."""
    image = Image.new("L", (256, 256), 12)
    pen = ImageDraw.Draw(image)
    pen.ellipse((18, 8, 238, 300), fill=120)
    for left in (46, 140):
        pen.ellipse((left, 40, left + 72, 210), fill=48)
    heart = 46 if row[0] else 30
    pen.ellipse((128 - heart, 130, 132 + heart + 12, 220), fill=178)
    pen.rectangle((122, 20, 136, 250), fill=165)
    for i in range(9):
        pen.arc((30, 40 + 20 * i, 226, 120 + 20 * i), 200, 340, fill=92, width=3)
    for present, box in ((row[1], (136, 178, 220, 216)), (row[2], (60, 150, 100, 190)), (row[7], (170, 70, 186, 86))):
        if present:
            pen.ellipse(box, fill=170)
    noise = np.random.default_rng(seed).normal(0, 5, (256, 256))
    pixels = np.asarray(image.filter(ImageFilter.GaussianBlur(4)), dtype=float) + noise
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)).save(path, quality=80)


def marked(row: Any, other: Any) -> dict[str, Any]:
    """A text with its marks against the other text's findings."""
    text, marks = text_of(row), []
    for i, label in enumerate(LABELS):
        if row[i]:
            start = text.index(PHRASES[label][0])
            kind = "right" if other[i] else "wrong"
            marks.append({"start": start, "end": start + len(PHRASES[label][0]) - 1, "kind": kind, "label": label})
    return {"text": text, "marks": marks}


def examples(folder: Path, truth: Any, found: Any, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    by_key = {(r["study_id"], r["policy"]): r["scores"] for r in rows if r["decoding"] == "temperature_1"}
    out = []
    for i in range(min(12, len(truth))):
        study, image = f"s{i:04d}", f"examples/s{i:04d}.jpg"
        draw_chest(folder / image, truth[i], i)
        row: dict[str, Any] = {
            "study_id": study,
            "split": "test",
            "decoding": "temperature_1",
            "image": image,
            "indication": "Shortness of breath, cough.",
        }
        row["reference"] = marked(truth[i], found["temperature_1", "aligned"][i])
        for mark in row["reference"]["marks"]:
            mark["kind"] = "right" if mark["kind"] == "right" else "missing"
        for policy in POLICIES:
            answer = found["temperature_1", policy][i]
            missing = [label for j, label in enumerate(LABELS) if truth[i][j] and not answer[j]]
            row[policy] = {**marked(answer, truth[i]), "missing": missing, "scores": by_key[study, policy]}
        out.append(row)
    return out


def manifest(name: str, n: int) -> dict[str, Any]:
    train = {"algorithm": {"type": "dpo", "beta": 0.1}, "learning_rate": 1e-4, "epochs": 2, "batch_size": 16}
    recipe = {"name": name, "seed": 0, "studies": {"source": "iu_xray", "root": "data/iu_xray"}, "train": train}
    recipe |= {
        "sample": {"n": 4, "temperature": 1.0, "max_new_tokens": 96},
        "pairs": {"judge": "lc_finding_f1", "min_gap": 0.05},
    }
    counts = {
        "studies": (3236, 2900, {"no frontal image": 214, "empty findings": 122}, 3.2),
        "warmup": (2315, 2315, {}, 912.0),
    }
    counts |= {"sample": (2315, 9260, {}, 640.5), "score": (9260, 9248, {"judge abstained": 12}, 81.0)}
    counts |= {"pairs": (9248, 1669, {"tie": 602, "abstained": 12}, 1.1), "train": (1669, 1669, {}, 4105.0)}
    counts |= {"evaluate": (n, n, {}, 131.0)}
    stages = {}
    for hour, (stage, (rows_in, rows_out, dropped, seconds)) in enumerate(counts.items(), 9):
        row = {"rows_in": rows_in, "rows_out": rows_out, "dropped": dropped, "seconds": seconds}
        stages[stage] = {**row, "finished": f"2025-11-22T{hour:02d}:14:00"}
    versions = {"python": "3.11.2", "torch": "2.6.0", "transformers": "5.10.0"}
    facts = {"versions": versions, "git": "2d278d3", "seeds": {"recipe": 0}, "judges": {judge: "1" for judge in JUDGES}}
    return {"chexalign": "0.1.0", "recipe": recipe, **facts, "stages": stages}


def pairs_summary() -> dict[str, Any]:
    chosen = {"score": {"mean": 0.713, "median": 0.75, "sd": 0.21}, "words": {"mean": 31.2, "median": 30.0, "sd": 8.1}}
    rejected = {
        "score": {"mean": 0.362, "median": 0.333, "sd": 0.24},
        "words": {"mean": 33.9, "median": 33.0, "sd": 9.4},
    }
    counts = {"n_studies": 2315, "n_pairs": 1669, "dropped_ties": 602, "dropped_abstained": 12, "dropped_share": 0.265}
    return {**counts, "judge": "lc_finding_f1", "chosen": chosen, "rejected": rejected}


def write_logs(folder: Path, rng: Any, n: int = 105) -> None:
    train, tower, report = [], [], []
    for step in range(1, n + 1):
        done, jitter = step / n, float(rng.normal(0, 0.04))
        margin = 1.4 * done + 2 * jitter
        row = {
            "step": step,
            "epoch": 2 * done,
            "loss": 0.69 - 0.3 * done + jitter,
            "lr": 1e-4 * (1 - done),
            "grad_norm": 1.1,
        }
        row |= {
            "margin": margin,
            "accuracy": min(1.0, 0.5 + 0.3 * done + jitter),
            "seconds": 0.4,
            "nll": 1.1 - 0.1 * done + jitter,
        }
        train.append({**row, "chosen_reward": 0.2 * done, "rejected_reward": 0.2 * done - margin})
        tower.append({"step": step, "loss": 0.5 * np.exp(-2 * done) + 0.2 + jitter / 3})
        report.append({"step": step, "loss": 3 * np.exp(-3 * done) + 1.1 + jitter})
        if step % 21 == 0:
            tower[-1] |= {"val_loss": 0.28 + 0.1 * (1 - done), "val_auc": 0.6 + 0.27 * done}
            report[-1] |= {"val_loss": 1.3 + (1 - done)}
    write_rows(folder / "train_log.jsonl", train)
    write_rows(folder / "warmup" / "tower_log.jsonl", tower)
    write_rows(folder / "warmup" / "report_log.jsonl", report)


if __name__ == "__main__":
    print(make_run(Path(sys.argv[1]), n_studies=400))
