"""The rule labeller against text gold on OpenI: python benchmarks/labeller_openi.py

Gold 1: the curators' MeSH headings of 3,832 reports, mapped to the 13 findings below. The tables were tuned on errors
of the `tuned` half alone (seed 0); `held_out` is the honest number. Gold 2, where ../shared/data/iu_xray is at hand:
manual labels by NCBI of the same reports, 8 shared classes. Uncertain counts as absent, as neither gold has it. Writes
benchmarks/results/labeller_openi.json.
"""

from __future__ import annotations

import csv
import json
import platform
import random
import re
import time
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from chexalign import stats
from chexalign.data.openi import read_openi
from chexalign.labels import FINDINGS, label_report, positive_set, tables
from chexalign.records import Study

HERE = Path(__file__).resolve().parent
GOLD14 = HERE.parents[1] / "shared" / "data" / "iu_xray" / "labels_gold14.csv"
SEED = 0
BOOT: dict[str, Any] = {"n_boot": 1000, "seed": 0, "level": 0.9}
TEXT_ONLY = "Enlarged Cardiomediastinum"  # MeSH codes an enlarged heart shadow here too, CheXpert does not

# What a MeSH heading such as "Opacity/lung/base/left" says in CheXpert's terms: how it begins, in lower case.
MESH = {
    "Enlarged Cardiomediastinum": r"mediastinum/.*(prominent|enlarged)|cardiac shadow/.*(enlarged|prominent)",
    "Cardiomegaly": r"cardiomegaly|cardiac shadow/.*(enlarged|borderline)",
    "Lung Opacity": r"opacity(/(lung|retrocardiac|pulm)|$)|airspace disease|infiltrate|density/(lung|retro)"
    r"|cicatrix/lung|markings/.*interstitial|lung diseases, interstitial|lung/.*interstitial",
    "Lung Lesion": r"nodule|mass|cavitation",
    "Edema": r"pulmonary edema|pulmonary congestion|heart failure",
    "Consolidation": r"consolidation",
    "Pneumonia": r"pneumonia",
    "Atelectasis": r"pulmonary atelectasis",
    "Pneumothorax": r"pneumothorax|hydropneumothorax|hemopneumothorax",
    "Pleural Effusion": r"pleural effusion|hydropneumothorax|hemothorax",
    "Pleural Other": r"thickening/pleura|pleura/",
    "Fracture": r"fractures, bone",
    "Support Devices": r"catheters, indwelling|tube, inserted|implanted medical device|medical device|stents"
    r"|surgical instruments|spinal fusion|sutures",
}
GOLD14_CLASSES = {
    "Cardiomegaly": ("Cardiomegaly",),
    "Atelectasis": ("Atelectasis",),
    "Pleural Effusion": ("Effusion",),
    "Lung Lesion": ("Nodule", "Mass"),
    "Edema": ("Edema",),
    "Pneumonia": ("Pneumonia",),
    "Consolidation": ("Consolidation",),
    "Pneumothorax": ("Pneumothorax",),
}


def text_of(study: Study) -> str:
    return f"{study.findings} {study.impression}".strip()


def indexed_studies() -> list[Study]:
    """The reports with a text and with headings."""
    studies = read_openi(None, lambda patient_id: "test")
    return [s for s in studies if text_of(s) and s.labels["mesh"] and "No Indexing" not in s.labels["mesh"]]


def mesh_gold(study: Study) -> frozenset[str]:
    headings = [heading.lower() for heading in study.labels["mesh"]]
    return frozenset(label for label, pattern in MESH.items() if any(re.match(pattern, h) for h in headings))


def halves(studies: Sequence[Study]) -> dict[str, frozenset[str]]:
    ids = sorted(s.study_id for s in studies)
    random.Random(SEED).shuffle(ids)
    middle = len(ids) // 2
    return {"tuned": frozenset(ids[:middle]), "held_out": frozenset(ids[middle:]), "all": frozenset(ids)}


def agreement(
    predicted: Sequence[frozenset[str]], gold: Sequence[frozenset[str]], labels: Sequence[str]
) -> dict[str, Any]:
    counts = stats.confusion(predicted, gold, labels)
    out: dict[str, Any] = {"n": len(gold)}
    for name, metric in (("micro_f1", stats.micro_f1), ("macro_f1", stats.macro_f1)):
        out[name] = stats.corpus_cells((counts, counts), metric, **BOOT)[0]
    out["per_class"] = {}
    for k, label in enumerate(labels):
        true, false, missed = (int(c) for c in counts.sum(0)[:, k])
        f1 = 2 * true / (2 * true + false + missed) if true + false + missed else None
        out["per_class"][label] = {"f1": f1, "tp": true, "fp": false, "fn": missed}
    return out


def read_gold14(path: Path) -> dict[str, frozenset[str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return {
            row["filename"]: frozenset(
                k for k, columns in GOLD14_CLASSES.items() if any(row[c] == "1" for c in columns)
            )
            for row in csv.DictReader(file)
        }


def measure() -> dict[str, Any]:
    studies = indexed_studies()
    label_report("warm up")
    started = time.process_time()
    labels = {s.study_id: label_report(text_of(s)) for s in studies}
    seconds = time.process_time() - started
    predicted = {k: positive_set(v, uncertain_is_positive=False) for k, v in labels.items()}
    generous = {k: positive_set(v) for k, v in labels.items()}
    gold = {s.study_id: mesh_gold(s) for s in studies}
    manual = read_gold14(GOLD14) if GOLD14.is_file() else {}
    result: dict[str, Any] = {"mesh": {}, "mesh_uncertain_as_positive": {}, "gold14": {} if manual else None}
    for name, ids in halves(studies).items():
        order = sorted(ids)
        result["mesh"][name] = agreement([predicted[i] for i in order], [gold[i] for i in order], FINDINGS)
        cell = agreement([generous[i] for i in order], [gold[i] for i in order], FINDINGS)["micro_f1"]
        result["mesh_uncertain_as_positive"][name] = {"micro_f1": cell}
        known = [i for i in order if i in manual]
        if manual:
            result["gold14"][name] = agreement(
                [predicted[i] for i in known], [manual[i] for i in known], list(GOLD14_CLASSES)
            )
    return {**result, "ms_per_report": round(1000 * seconds / len(studies), 3)}


def show(title: str, block: dict[str, Any]) -> None:
    cell = block["micro_f1"]
    interval = f"90 % interval {cell['low']:.3f} to {cell['high']:.3f}"
    print(
        f"\n{title}: n {block['n']}, micro-F1 {cell['mean']:.4f} ({interval}), macro-F1 {block['macro_f1']['mean']:.4f}"
    )
    for label, row in block["per_class"].items():
        print(f"  {label:<28}{row['f1'] or 0:.3f}   tp {row['tp']:>4}  fp {row['fp']:>3}  fn {row['fn']:>3}")


def main() -> None:
    result = measure()
    for gold in ("mesh", "gold14"):
        for name, block in (result[gold] or {}).items():
            show(f"{gold}, {name}", block)
    print(f"\n{result['ms_per_report']} ms of CPU time per report, one thread, nothing cached")
    about = {
        "command": "python benchmarks/labeller_openi.py",
        "split_seed": SEED,
        "rules": tables.version(),
        "versions": {
            "chexalign": version("chexalign"),
            "python": platform.python_version(),
            "machine": platform.machine(),
        },
        "notes": [f"{TEXT_ONLY}: the MeSH mapping is noisy, it codes an enlarged heart shadow here too"],
    }
    path = HERE / "results" / "labeller_openi.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps({**about, **result}, indent=1) + "\n", encoding="utf-8")
    print(f"wrote {path}")


if __name__ == "__main__":
    main()
