"""The other side of radeval.py: a process of its own, under any Python that has `radeval`. Standard library only.

    python -P radeval_worker.py {radgraph|ratescore|srrbert|f1chexbert} [--download]

One JSON object per line. It says {"ready": version} or {"fatal": why}, then answers {"texts": […]} with features and
{"reports": […], "references": […]} with scores, as {"rows": [{"value": …} | {"error": why}, …]}. RadEval's side effects
(prints, warning filters, thread settings, the start method, downloads at import) stay here; an error of a kind not named
below ends the process, which the other side takes for what it is.
"""

from __future__ import annotations

import importlib
import json
import math
import os
import sys
from importlib.machinery import ModuleSpec
from typing import Any

EXPECTED = (
    ArithmeticError, AssertionError, AttributeError, ImportError, LookupError, OSError, RuntimeError, TypeError, ValueError
)  # fmt: skip


class OldName:
    """`import RadEval.x` gives the module `radeval.x`: RadEval 2.2's own files still use the name from before its renaming.

    A finder, not an entry in sys.modules: the files import each other in a circle while they load.
    """

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        """Python's import hook: answers for RadEval and its submodules, None for all other names."""
        if name != "RadEval" and not name.startswith("RadEval."):
            return None
        return ModuleSpec(name, self)  # type: ignore[arg-type]

    def create_module(self, spec: ModuleSpec) -> Any:
        """The module of the new name itself, not a copy; its own spec is kept for when the import is done."""
        module = importlib.import_module("radeval" + spec.name.removeprefix("RadEval"))
        spec.loader_state = module.__spec__
        return module

    def exec_module(self, module: Any) -> None:
        """The module ran under its own name; only its spec, which the import system has just replaced, is put back."""
        module.__spec__ = module.__spec__.loader_state


def quiet_nltk() -> None:
    """RadEval downloads punkt_tab whenever it is imported, and SRR-BERT again; without leave, it must be there already."""
    try:
        import nltk
    except ImportError:
        return
    nltk.download = lambda *args, **options: False


def load(metric: str) -> Any:
    """RadEval's metric by its registry name, with its default options."""
    from radeval.metrics._registry import get_metric_class

    return get_metric_class(metric)()


def radgraph(metric: Any, texts: list[str]) -> list[dict[str, Any]]:
    """Text → {id: {tokens, label, relations}}."""
    graphs = metric._scorer.radgraph(texts)
    rows: list[dict[str, Any]] = []
    for i in range(len(texts)):
        if str(i) not in graphs:
            rows.append({"error": "RadGraph skipped this text"})
            continue
        kept = {k: {n: e[n] for n in ("tokens", "label", "relations")} for k, e in graphs[str(i)]["entities"].items()}
        rows.append({"value": kept})
    return rows


def srrbert(metric: Any, texts: list[str]) -> list[dict[str, Any]]:
    """Text → the labels of any of its sentences."""
    scorer = metric._scorer
    split = sys.modules[type(scorer).__module__].srr_bert_parse_sentences
    rows = []
    for text in texts:
        _, labels = scorer(sentences=split(text))
        rows.append({"value": sorted({label for one in labels for label in one})})
    return rows


def ratescore(metric: Any, reports: list[str], references: list[str]) -> list[dict[str, Any]]:
    """Pair by pair: in a batch, a text whose sentences are all under three characters shifts every later report to the
    reference of another study (RadEval 2.2.1, RaTEScore/score.py: such a text adds no entry)."""
    rows = []
    for report, reference in zip(reports, references, strict=True):
        scores, ours, theirs = metric._scorer.compute_score(candidate_list=[report], reference_list=[reference])
        empty = {"report": not any(ours), "reference": not any(theirs)}
        if len(scores) != 1:
            rows.append(
                {"value": {"score": 0.5, **empty}} if any(empty.values()) else {"error": "RaTEScore gave no score"}
            )
        elif not math.isfinite(float(scores[0])):
            rows.append({"error": f"RaTEScore gave {scores[0]}"})
        else:
            rows.append({"value": {"score": float(scores[0]), **empty}})
    return rows


def f1chexbert(metric: Any, texts: list[str]) -> list[dict[str, Any]]:
    """Text → the names of its positive labels among the 14, uncertain counted as positive (CheXbert's mode "rrg")."""
    names = metric._scorer.TARGET_NAMES
    rows = metric._scorer.get_labels(texts, mode="rrg")
    return [{"value": [name for name, there in zip(names, row, strict=True) if there]} for row in rows]


READERS = {"radgraph": radgraph, "srrbert": srrbert, "f1chexbert": f1chexbert}
JUDGES = {"ratescore": ratescore}


def answer(name: str, metric: Any, request: dict[str, Any]) -> list[dict[str, Any]]:
    """The rows of a request. When a batch fails, each of its items is tried alone, so that one bad report costs one row."""
    function: Any = READERS.get(name) or JUDGES[name]
    columns = [request["texts"]] if name in READERS else [request["reports"], request["references"]]
    try:
        rows = function(metric, *columns)
        json.dumps(rows, allow_nan=False)
        return rows
    except EXPECTED as error:
        if len(columns[0]) == 1:
            return [{"error": f"{type(error).__name__}: {' '.join(str(error).split())}"[:300]}]
    alone = [{key: [value[i]] for key, value in request.items() if key != "id"} for i in range(len(columns[0]))]
    return [row for one in alone for row in answer(name, metric, one)]


def main() -> None:
    """Answers JSON lines on the real standard output until the input ends; all that libraries print goes to standard error."""
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # whatever RadEval prints is no answer of ours
    name = sys.argv[1]
    sys.meta_path.insert(0, OldName())
    if "--download" not in sys.argv:
        quiet_nltk()

    def write(message: dict[str, Any]) -> None:
        out.write(json.dumps(message, allow_nan=False) + "\n")
        out.flush()

    try:
        metric = load(name)
    except EXPECTED as error:
        write({"fatal": f"{type(error).__name__}: {' '.join(str(error).split())}"[:300]})
        return
    write({"ready": True})
    for line in sys.stdin:
        request = json.loads(line)
        write({"id": request["id"], "rows": answer(name, metric, request)})


if __name__ == "__main__":
    main()
