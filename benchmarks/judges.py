"""Speed of the judges against the usual libraries, at equal values: python benchmarks/judges.py [rouge] [bertscore] [all]

Ours and theirs take turns inside one process on one thread, so that a busy machine slows both; what is told is the median
over rounds of the ratio within a round, with its range. Texts: OpenI reports where the wheel is here, else phantom
reports. Writes benchmarks/results/judges.json (the parts that were run; others stay).
"""

from __future__ import annotations

import json
import platform
import random
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from chexalign.data.openi import read_openi
from chexalign.judges import load
from chexalign.judges.neural.encoders import find_model
from chexalign.judges.registry import JUDGES

RESULTS = Path(__file__).resolve().parent / "results" / "judges.json"
CANDIDATES, PASSES = 4, 3
Pairs = tuple[list[str], list[str]]


def reports() -> list[str]:
    studies = read_openi(None, lambda patient_id: "test")
    return sorted({s.findings for s in studies if len(s.findings.split()) > 5})


def edited(text: str, rng: random.Random) -> str:
    """A candidate as a policy draws it: its study's report with a few words dropped and some of another report added."""
    words = [w for w in text.split() if rng.random() > 0.15]
    return " ".join(words)


def candidate_set(texts: Sequence[str], n: int, seed: int) -> Pairs:
    """n studies with four candidates each: two near the reference, two other reports. All candidates are distinct."""
    rng = random.Random(seed)
    chosen = rng.sample(list(texts), n)
    hyps, refs = [], []
    for reference in chosen:
        hyps += [edited(reference, rng), edited(reference, rng), *(edited(rng.choice(texts), rng) for _ in range(2))]
        refs += [reference] * CANDIDATES
    return hyps, refs


def alternate(ours: Callable[[], Any], theirs: Callable[[], Any], rounds: int) -> dict[str, Any]:
    """Both in turn, `rounds` times, the order changing; seconds of CPU time."""
    spent: dict[str, list[float]] = {"ours": [], "theirs": []}
    for k in range(rounds):
        for name, work in [("ours", ours), ("theirs", theirs)][:: 1 if k % 2 else -1]:
            started = time.process_time()
            work()
            spent[name].append(time.process_time() - started)
    ratios = [b / a for a, b in zip(spent["ours"], spent["theirs"], strict=True)]
    return {
        "rounds": rounds,
        "ours_seconds": [round(s, 4) for s in spent["ours"]],
        "theirs_seconds": [round(s, 4) for s in spent["theirs"]],
        "times_faster": {
            "median": round(statistics.median(ratios), 2),
            "low": round(min(ratios), 2),
            "high": round(max(ratios), 2),
        },
    }


def rouge(texts: Sequence[str], n: int = 250, rounds: int = 7) -> dict[str, Any]:
    """ROUGE-L against rouge_score on n studies x 4 candidates; a fresh judge each round, so nothing is remembered."""
    from rouge_score import rouge_scorer

    hyps, refs = candidate_set(texts, n, 0)
    out: dict[str, Any] = {"pairs": len(hyps), "against": f"rouge_score {version('rouge-score')}"}
    for name, stem in (("no_stemmer", False), ("stemmer", True)):
        official = rouge_scorer.RougeScorer(["rougeL"], use_stemmer=stem)

        def ours(stem: bool = stem) -> list[float | None]:
            return [a.score for a in load("rouge_l", use_stemmer=stem).score(hyps, refs)]

        def theirs(official: Any = official) -> list[float]:
            return [official.score(r, h)["rougeL"].fmeasure for h, r in zip(hyps, refs, strict=True)]

        gap = max(abs((a or 0.0) - b) for a, b in zip(ours(), theirs(), strict=True))
        out[name] = {"largest_difference": gap, **alternate(ours, theirs, rounds)}
    return out


def bertscore(texts: Sequence[str], n: int = 6, rounds: int = 3) -> dict[str, Any]:
    """BERTScore against bert-score's own scorer (model kept loaded) on MiniLM, three passes over n studies x 4 candidates.

    `same_candidates`: the same set in each pass, as when scoring, pairing and evaluating one set. `new_candidates`: the
    references stay and candidates are drawn anew, as in training. `one_study_at_a_time`: new candidates, one call per study.
    """
    import torch
    from bert_score import BERTScorer

    from chexalign.judges.neural.bertscore import _features

    torch.set_num_threads(1)
    official = BERTScorer(model_type=str(find_model("minilm-l6")), num_layers=6, device="cpu")
    name = "bertscore[minilm-l6:L6]"
    same = [candidate_set(texts, n, 0)] * PASSES
    new = [_redrawn(same[0], seed) for seed in range(PASSES)]
    out: dict[str, Any] = {"studies": n, "candidates": CANDIDATES, "passes": PASSES, "judge": name}
    out["against"] = f"bert-score {version('bert-score')}"
    load(name).score(["warm up"], ["warm up"])
    for label, passes, per_call in (
        ("same_candidates", same, n * CANDIDATES),
        ("new_candidates", new, n * CANDIDATES),
        ("one_study_at_a_time", new, CANDIDATES),
    ):
        calls = [(h[i : i + per_call], r[i : i + per_call]) for h, r in passes for i in range(0, len(h), per_call)]

        def ours(calls: list[Pairs] = calls) -> list[float | None]:
            _features.cache_clear()
            judge = load(name)
            return [a.score for h, r in calls for a in judge.score(h, r)]

        def theirs(calls: list[Pairs] = calls) -> list[float]:
            return [float(f) for h, r in calls for f in official.score(h, r)[2]]

        gap = max(abs((a or 0.0) - b) for a, b in zip(ours(), theirs(), strict=True))
        out[label] = {"largest_difference": gap, **alternate(ours, theirs, rounds)}
    return out


def _redrawn(pairs: Pairs, seed: int) -> Pairs:
    rng = random.Random(100 + seed)
    return [edited(h, rng) for h in pairs[0]], pairs[1]


def everything(texts: Sequence[str], n: int = 1000, rounds: int = 3) -> dict[str, Any]:
    """Seconds of CPU time for 4,000 new reports with every judge that needs nothing; fresh judges each round."""
    hyps, refs = candidate_set(texts, n, 0)
    names = [name for name, entry in JUDGES.items() if entry.needs == "nothing" and not entry.unavailable()]
    for name in names:
        load(name).score(hyps[:50], refs[:50])
    per_judge: dict[str, list[float]] = {name: [] for name in names}
    for _ in range(rounds):
        for name in names:
            _forget_labels()
            judge = load(name)
            started = time.process_time()
            judge.score(hyps, refs)
            per_judge[name].append(time.process_time() - started)
    totals = [sum(times[k] for times in per_judge.values()) for k in range(rounds)]
    return {
        "reports": len(hyps),
        "rounds": rounds,
        "seconds": {
            "median": round(statistics.median(totals), 2),
            "low": round(min(totals), 2),
            "high": round(max(totals), 2),
        },
        "seconds_by_judge": {k: round(statistics.median(v), 3) for k, v in per_judge.items()},
    }


def _forget_labels() -> None:
    """Judges may share what they read of a text; each is timed as if it were alone."""
    for module in list(sys.modules.values()):
        if getattr(module, "__name__", "").startswith("chexalign.judges"):
            for value in vars(module).values():
                if hasattr(value, "cache_clear") and getattr(value, "__module__", "").startswith("chexalign.judges"):
                    value.cache_clear()


PARTS: dict[str, Callable[..., dict[str, Any]]] = {"rouge": rouge, "bertscore": bertscore, "all": everything}


def main(arguments: Sequence[str]) -> None:
    texts = reports()
    found = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else {}
    about = {
        "python": platform.python_version(),
        "machine": platform.machine(),
        "texts": f"{len(texts)} OpenI findings",
    }
    found |= {"command": "python benchmarks/judges.py", "threads": 1, **about}
    for part in arguments or list(PARTS):
        found[part] = PARTS[part](texts)
        print(part, json.dumps(found[part], indent=1))
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    print(f"wrote {RESULTS}")


if __name__ == "__main__":
    main(sys.argv[1:])
