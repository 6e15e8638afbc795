"""Judges that RadEval (2.2) computes in a process of its own: RadGraph, RaTEScore and SRR-BERT.

RadEval pins what we do not (spaCy, torchvision) and changes global state; in its own process, and if wished its own virtual
environment (option `python`), neither touches training. RadGraph and SRR-BERT are asked per text, so a reference is read
once per run, and their F1 is computed here. A worker that dies or takes too long costs the reports that did it.
"""

from __future__ import annotations

import functools
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from chexalign.errors import Abstain, RecipeError
from chexalign.judges.cache import cached_scores, open_store, remembered
from chexalign.judges.columns import library_form
from chexalign.judges.contract import Judgement, Studies, TextJudge, same_length, without_judging
from chexalign.judges.neural.radeval_process import Worker
from chexalign.labels.readability import ENGLISH
from chexalign.records import LABEL_SETS

AT_ONCE = 32  # texts or pairs in one request
RADCLIQ = (
    "RadCliQ is no reward: RadEval fits its BERTScore's IDF on the references of each call, so a group that shares one "
    "reference has IDF 0 everywhere and every report of it, a perfect copy too, gets the same 9.37"
)


# ---- RadGraph F1


def graph_set(graph: Mapping[str, Any], level: str) -> frozenset[tuple[Any, ...]]:
    """What RadGraph F1 compares. simple: (tokens, label). partial: with True where the entity has a relation. complete: one
    (tokens, label, relation, target), lower case, per relation, and (tokens, label) where there is none."""
    found: set[tuple[Any, ...]] = set()
    for entity in graph.values():
        plain = (entity["tokens"], entity["label"])
        if level == "simple" or not entity["relations"]:
            found.add(plain)
        elif level == "partial":
            found.add((*plain, True))
        else:
            head = (entity["tokens"].lower(), entity["label"])
            found |= {(*head, name, graph[target]["tokens"].lower()) for name, target in entity["relations"]}
    return frozenset(found)


def set_f1(ours: frozenset[Any], theirs: frozenset[Any]) -> float:
    """2·|A∩B| / (|A|+|B|), 0 where either is empty."""
    return 2 * len(ours & theirs) / (len(ours) + len(theirs)) if ours and theirs else 0.0


def compare_graphs(report: Mapping[str, Any], reference: Mapping[str, Any], level: str) -> tuple[float, dict[str, Any]]:
    """RadGraph F1; a reference without entities measures nothing. # our choice: upstream gives 0"""
    if not reference:
        raise Abstain("RadGraph finds no entity in the reference")
    levels = {
        name: set_f1(graph_set(report, name), graph_set(reference, name)) for name in ("simple", "partial", "complete")
    }
    return levels[level], {**levels, "entities": len(report), "reference_entities": len(reference)}


def compare_chexbert(report: Sequence[str], reference: Sequence[str], labels: str) -> tuple[float, dict[str, Any]]:
    """F1 of the positive labels among CheXbert's 14, 13 or 5; 1 when neither side has any, as in `chexbert_f1`."""
    kept = set(LABEL_SETS[labels])
    ours, theirs = kept & set(report), kept & set(reference)
    details = {"tp": sorted(ours & theirs), "fp": sorted(ours - theirs), "fn": sorted(theirs - ours)}
    return set_f1(frozenset(ours), frozenset(theirs)) if ours or theirs else 1.0, details


def compare_labels(report: Sequence[str], reference: Sequence[str]) -> tuple[float, dict[str, Any]]:
    """F1 of two label sets. RadEval's own per-sample value is |A∩B| / |A∪B|, which is not F1; it is in the details."""
    ours, theirs = frozenset(report), frozenset(reference)
    if not theirs:
        raise Abstain("SRR-BERT finds no label in the reference")
    details = {"tp": sorted(ours & theirs), "fp": sorted(ours - theirs), "fn": sorted(theirs - ours)}
    return set_f1(ours, theirs), {**details, "radeval_per_sample": len(ours & theirs) / len(ours | theirs)}


# ---- the judges


def _text_judge(name: str, metric: str, compare: Any, version: str, worker: Worker, cache: str | None) -> TextJudge:
    read = functools.partial(worker.ask_all, "texts", at_once=AT_ONCE)
    encode_many = remembered(open_store(cache, f"radeval_{metric}"), f"{metric} {installed(worker.python)}", read)
    return TextJudge(name, f"{version} radeval {installed(worker.python)}", None, compare, encode_many, reads=ENGLISH)


def radgraph(
    *,
    variant: Literal["simple", "partial", "complete"] = "partial",
    python: Path | None = None,
    download: bool = False,
    timeout: float = 60.0,
    cache: str | None = None,
) -> TextJudge:
    """RadGraph-XL F1; `partial` is the RG_ER of the literature. `timeout`: seconds per report."""
    worker = Worker("radgraph", python, download, timeout)
    name = "radeval_radgraph" if variant == "partial" else f"radeval_radgraph[{variant}]"
    compare = functools.partial(compare_graphs, level=variant)
    return _text_judge(name, "radgraph", compare, f"1 radgraph-xl {variant}", worker, cache)


def srrbert(
    *, python: Path | None = None, download: bool = False, timeout: float = 60.0, cache: str | None = None
) -> TextJudge:
    """F1 of SRR-BERT's leaf labels with statuses, per report."""
    worker = Worker("srrbert", python, download, timeout)
    return _text_judge("radeval_srrbert", "srrbert", compare_labels, "1 leaves with statuses", worker, cache)


def chexbert(
    *,
    variant: Literal["13", "14", "5"] = "13",
    python: Path | None = None,
    download: bool = False,
    timeout: float = 60.0,
    cache: str | None = None,
) -> TextJudge:
    """The same as `chexbert_f1`, with RadEval's copy of the weights."""
    worker = Worker("f1chexbert", python, download, timeout)
    name = "radeval_chexbert" if variant == "13" else f"radeval_chexbert[{variant}]"
    compare = functools.partial(compare_chexbert, labels=variant)
    return _text_judge(name, "f1chexbert", compare, f"1 labels={variant} uncertain=positive", worker, cache)


class RaTEScore:
    """RaTEScore per pair. `empty`: what a report without entities gets; the published 0.5 rewards saying nothing."""

    name = "radeval_ratescore"

    def __init__(
        self,
        *,
        empty: Literal["0", "0.5"] = "0",
        python: Path | None = None,
        download: bool = False,
        timeout: float = 60.0,
        cache: str | None = None,
    ):
        self.worker = Worker("ratescore", python, download, timeout)
        self.empty = empty
        self.store = open_store(cache, self.name)

    @property
    def version(self) -> str:
        """RadEval's own version is part of it: it is asked of the other interpreter."""
        return f"1 long empty={self.empty} radeval {installed(self.worker.python)}"

    @library_form
    def score(self, reports: Sequence[str], references: Sequence[str], studies: Studies = None) -> list[Judgement]:
        """0 to 1 per pair, from the store where it is known. Pairs with an empty side never reach RadEval."""
        same_length(reports, references)
        pairs = list(zip(reports, references, strict=True))
        plain = {
            i: a
            for i, pair in enumerate(pairs)
            if (a := without_judging(*pair, float(self.empty), ENGLISH)) is not None
        }
        todo = [i for i in range(len(pairs)) if i not in plain]
        ours, theirs = [reports[i] for i in todo], [references[i] for i in todo]
        found = plain | dict(zip(todo, cached_scores(self.store, self.version, ours, theirs, self._ask), strict=True))
        return [found[i] for i in range(len(pairs))]

    def _ask(self, reports: Sequence[str], references: Sequence[str]) -> list[Judgement]:
        return [
            self._one(row) for row in self.worker.ask_all("reports", reports, "references", references, at_once=AT_ONCE)
        ]

    def _one(self, row: Any) -> Judgement:
        if isinstance(row, Abstain):
            return Judgement(None, str(row))
        if not (row["report"] or row["reference"]):
            return Judgement(row["score"])
        note = {"note": f"RaTEScore finds no entity in the {'reference' if row['reference'] else 'report'}"}
        if self.empty == "0.5":
            return Judgement(0.5, details=note)
        return Judgement(None, note["note"]) if row["reference"] else Judgement(0.0, details=note)


def radcliq() -> Any:
    """Raises RecipeError always: the message says why RadCliQ is no reward."""
    raise RecipeError(RADCLIQ)


# ---- what is there


def missing(*, python: Path | None = None, **_: Any) -> str | None:
    """What this judge lacks, or None."""
    runs = str(python or sys.executable)
    if installed(runs):
        return None
    return f"no radeval in {runs}; set python: to one that has it (docs/use/heavy-judges.md)"


def refused() -> str | None:
    """Why RadCliQ cannot be a reward: what `chexalign judges` prints."""
    return "it gives 9.37 to every report of a group that shares its reference"


@functools.lru_cache(maxsize=8)
def installed(python: str) -> str:
    """The version of radeval that an interpreter has, "unknown" when it does not say, "" when there is none."""
    code = (
        "import importlib.util as u, importlib.metadata as m\n"
        "if u.find_spec('radeval'):\n"
        "    try: print(m.version('radeval'))\n"
        "    except m.PackageNotFoundError: print('unknown')"
    )
    try:
        done = subprocess.run([python, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip()
