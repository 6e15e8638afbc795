"""The RadEval worker against a stand-in package with RadEval 2.2.1's call surface, and the arithmetic it feeds."""

import re
import sys
import textwrap
import time
import warnings

import pytest

from chexalign.errors import Abstain, RecipeError
from chexalign.evaluation.counting import chexbert_counts
from chexalign.judges import load
from chexalign.judges.neural.radeval import (
    RaTEScore,
    compare_graphs,
    compare_labels,
    graph_set,
    installed,
    missing,
    radgraph,
    srrbert,
)
from chexalign.judges.neural.radeval_process import DEATHS_IN_A_ROW, Worker
from chexalign.judges.registry import JUDGES

# ---- RadGraph arithmetic (judges.md 6)

ABSENT, ANATOMY = "OBS-DA", "ANAT-DP"


def graph(adjective):
    """acute OBS-DA; <adjective> ANAT-DP; process OBS-DA, located at <adjective>."""
    return {
        "1": {"tokens": "acute", "label": ABSENT, "relations": []},
        "2": {"tokens": adjective, "label": ANATOMY, "relations": []},
        "3": {"tokens": "process", "label": ABSENT, "relations": [["located_at", "2"]]},
    }


A, B = graph("cardiopulmonary"), graph("intrathoracic")


@pytest.mark.parametrize(("level", "expected"), [("simple", 2 / 3), ("partial", 2 / 3), ("complete", 1 / 3)])
def test_radgraph_f1_of_two_graphs_by_hand(level, expected):
    """Two of three entities agree; of the three complete units only (acute, OBS-DA) does."""
    assert compare_graphs(A, B, level)[0] == pytest.approx(expected)
    assert compare_graphs(A, A, level)[0] == 1
    assert compare_graphs({}, A, level)[0] == 0
    with pytest.raises(Abstain, match="no entity in the reference"):
        compare_graphs(A, {}, level)


def test_what_the_levels_compare():
    assert graph_set(A, "simple") == {("acute", ABSENT), ("cardiopulmonary", ANATOMY), ("process", ABSENT)}
    assert graph_set(A, "partial") == {("acute", ABSENT), ("cardiopulmonary", ANATOMY), ("process", ABSENT, True)}
    assert ("process", ABSENT, "located_at", "cardiopulmonary") in graph_set(graph("Cardiopulmonary"), "complete")
    two = {**A, "3": {"tokens": "Process", "label": ABSENT, "relations": [["located_at", "2"], ["modify", "1"]]}}
    assert len(graph_set(two, "complete")) == 4 and ("process", ABSENT, "modify", "acute") in graph_set(two, "complete")


def test_srrbert_f1_is_f1_and_radevals_value_is_beside_it():
    """tp 1, fp 1, fn 1: F1 = 2/4; RadEval's per-sample mean over the union is 1/3."""
    score, details = compare_labels(["a", "b"], ["a", "c"])
    assert score == pytest.approx(0.5) and details["radeval_per_sample"] == pytest.approx(1 / 3)
    assert details["tp"] == ["a"] and details["fp"] == ["b"] and details["fn"] == ["c"]
    assert compare_labels([], ["a"])[0] == 0
    with pytest.raises(Abstain, match="no label in the reference"):
        compare_labels(["a"], [])


# ---- the stand-in: its files import the old name RadEval, in a circle, download at import, and print

FAKE = {
    "__init__.py": """
        import nltk, warnings, os
        assert nltk.download("punkt_tab") is False, "a download at import"
        warnings.filterwarnings("ignore"); print("RadEval prints at import")
        """,
    "metrics/__init__.py": "",
    "metrics/_registry.py": """
        from importlib import import_module
        def get_metric_class(name):
            return getattr(import_module("radeval.metrics." + name), "Metric")
        """,
    "metrics/radgraph.py": """
        from RadEval.metrics.core import F1RadGraph
        class Metric:
            def __init__(self):
                self._scorer = F1RadGraph(reward_level="all", model_type="radgraph-xl")
        """,
    "metrics/core.py": """
        import os, sys, time
        from RadEval.metrics import helper
        class F1RadGraph:
            def __init__(self, reward_level, model_type):
                assert (reward_level, model_type) == ("all", "radgraph-xl")
                if kind := os.environ.get("FAKE_BROKEN"):
                    raise {"OSError": OSError, "Exception": Exception}[kind]("cannot download radgraph-xl.tar.gz")
            def radgraph(self, texts):
                print("working")
                log = os.environ.get("FAKE_LOG")
                out = {}
                for i, t in enumerate(texts):
                    if log:
                        open(log, "a").write(t + chr(10))
                    if "die" in t: os._exit(3)
                    if "sleep" in t: time.sleep(60)
                    if "raise" in t: raise KeyError("entities")
                    if "exit" in t: sys.exit("odd end")
                    if "skip" in t: continue
                    words = t.lower().replace(".", "").split()
                    out[str(i)] = {"text": t, "entities": {str(k + 1): helper.entity(w) for k, w in enumerate(words)}}
                return out
        """,
    "metrics/helper.py": """
        import RadEval.metrics.core
        import radeval.metrics.core
        assert RadEval.metrics.core is radeval.metrics.core
        def entity(word):
            return {"tokens": word, "label": "Observation::definitely present", "start_ix": 0, "end_ix": 0, "relations": []}
        """,
    "metrics/ratescore.py": """
        class Scorer:
            def compute_score(self, candidate_list, reference_list, on_sample_done=None):
                def read(texts):  # a text of short sentences adds no entry: later ones move up
                    return [[(w, "DISEASE") for w in t.split() if w != "nothing"] for t in texts if len(t) >= 3]
                ours, theirs = read(candidate_list), read(reference_list)
                scores = []
                for a, b in zip(ours, theirs):
                    same = len({x for x, _ in a} & {x for x, _ in b})
                    scores.append(0.5 if not a or not b else float("nan") if "nan" in a[0] else same / max(len(a), len(b)))
                return scores, ours, theirs
        class Metric:
            def __init__(self):
                self._scorer = Scorer()
        """,
    "metrics/f1chexbert.py": """
        class Scorer:
            TARGET_NAMES = ["Edema", "Pleural Effusion", "No Finding"]
            def get_labels(self, texts, mode):
                assert mode == "rrg"
                return [[int("edema" in t), int("effusion" in t), int("normal" in t)] for t in texts]
        class Metric:
            def __init__(self):
                self._scorer = Scorer()
        """,
    "metrics/srrbert.py": """
        def srr_bert_parse_sentences(text):
            return [s for s in text.split(".") if s.strip()] or ["."]
        class SRRBert:
            mapping = {"Edema (Present)": 0, "Edema (Absent)": 1}
            def __call__(self, sentences):
                fits = lambda n, s: "edema" in s and ("no" in s) == ("Absent" in n)
                return None, [[n for n in self.mapping if fits(n, s.lower())] for s in sentences]
        class Metric:
            def __init__(self):
                import nltk
                nltk.download("punkt_tab", quiet=True)
                self._scorer = SRRBert()
        """,
}


@pytest.fixture
def fake(tmp_path, monkeypatch):
    """`radeval` on the worker's path. The version of judges that ask for it is looked up anew."""
    for name, text in FAKE.items():
        path = tmp_path / "site" / "radeval" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text))
    nltk = "def download(*args, **options):\n    raise OSError('network')\n"
    (tmp_path / "site" / "nltk.py").write_text(nltk)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "site"))
    installed.cache_clear()
    yield tmp_path
    installed.cache_clear()


def scores(judge, reports, references):
    return [a.score for a in judge.score(reports, references)]


def test_radgraph_through_the_worker_reads_each_text_once_even_over_runs(fake, monkeypatch):
    monkeypatch.setenv("FAKE_LOG", str(fake / "log"))
    judge = radgraph(cache=str(fake / "cache"))
    reports = ["small effusion", "edema", "small effusion", ".", "edema"]
    references = ["large effusion", "large effusion", "large effusion", "edema", " "]
    assert scores(judge, reports, references) == [0.5, 0, 0.5, 0, None]
    assert sorted((fake / "log").read_text().split("\n")[:-1]) == ["edema", "large effusion", "small effusion"]
    assert scores(radgraph(cache=str(fake / "cache"), variant="simple"), ["edema"], ["edema"]) == [1]
    assert len((fake / "log").read_text().split("\n")) == 4
    assert judge.name == "radeval_radgraph" and "radeval unknown" in judge.version


def test_its_side_effects_stay_in_its_process(fake):
    before = list(warnings.filters), set(sys.modules), list(sys.meta_path)
    assert scores(radgraph(), ["edema"], ["edema"]) == [1]  # it prints to stdout at import and while working
    assert "radeval" not in sys.modules and list(warnings.filters) == before[0] and list(sys.meta_path) == before[2]


def test_a_bad_report_costs_its_own_row(fake):
    """An error inside, a skipped text, an end of the process, a sleep: each abstains with its reason, the others are scored."""
    judge = radgraph(timeout=1.0)
    texts = ["edema", "raise this", "skip this", "die here", "exit now", "edema too"]
    answers = judge.score(texts, ["edema"] * 6)
    assert [a.score is None for a in answers] == [False, True, True, True, True, False]
    for answer, words in zip(
        answers[1:5], ["KeyError: 'entities'", "skipped this text", "it died", "it died .odd end."], strict=True
    ):
        assert re.search(words, answer.error), answer.error
    late = judge.score(["sleep now"], ["edema"])[0]
    assert late.score is None and "an answer took more than 1 s" in late.error
    assert scores(judge, ["edema again"], ["edema"]) == [pytest.approx(2 / 3)]


def test_a_worker_that_keeps_dying_is_left_alone(fake, monkeypatch):
    monkeypatch.setenv("FAKE_LOG", str(fake / "log"))
    worker = Worker("radgraph", None, False, 5.0)
    rows = worker.ask_all("texts", [f"die {i}" for i in range(9)], at_once=1)
    assert all(isinstance(r, Abstain) for r in rows)
    assert "not started again after 3 such ends" in str(rows[-1]) and worker.process is None
    assert len((fake / "log").read_text().split("\n")) == DEATHS_IN_A_ROW + 1
    started = time.monotonic()
    assert isinstance(worker.ask_all("texts", ["edema"], at_once=1)[0], Abstain) and time.monotonic() - started < 0.1


@pytest.mark.parametrize("kind", ["OSError", "Exception"])  # an expected error, and one that ends the process
def test_a_metric_that_cannot_load_says_so_once_for_all(fake, monkeypatch, kind):
    monkeypatch.setenv("FAKE_BROKEN", kind)
    answers = radgraph().score(["edema", "effusion"], ["edema", "edema"])
    assert [a.score for a in answers] == [None, None]
    assert (
        "cannot load radgraph" in answers[0].error and f"{kind}: cannot download radgraph-xl.tar.gz" in answers[0].error
    )


def test_ratescore_pairs_are_never_shifted_and_empty_is_a_choice(fake):
    """In one call the stand-in, as RadEval, drops "x" and would give the second report the first's reference."""
    reports, references = (
        ["x", "big effusion", "nothing", "edema", "nan effusion"],
        ["edema", "big effusion", "edema", "nothing", "nan effusion"],
    )
    strict, published = RaTEScore().score(reports, references), RaTEScore(empty="0.5").score(reports, references)
    assert [a.score for a in strict] == [0, 1, 0, None, None]
    assert [a.score for a in published] == [0.5, 1, 0.5, 0.5, None]
    assert "no entity in the reference" in strict[3].error and "gave nan" in strict[4].error
    assert strict[0].details["note"] == "RaTEScore finds no entity in the report"
    assert scores(RaTEScore(), [".", "edema"], ["edema", ""]) == [0, None]
    assert RaTEScore().version != RaTEScore(empty="0.5").version


def test_srrbert_merges_the_labels_of_sentences(fake):
    judge = srrbert()
    assert scores(judge, ["Edema. No edema."], ["Edema."]) == [pytest.approx(2 / 3)]
    assert judge.score(["Edema."], ["Clear."])[0].error == "SRR-BERT finds no label in the reference"


def test_chexbert_labels_come_as_names_and_reach_the_corpus_counts(fake):
    reports, references = ["edema effusion", "normal"], ["edema", "normal"]
    assert scores(load("radeval_chexbert"), reports, references) == [pytest.approx(2 / 3), 1]
    assert scores(load("radeval_chexbert[14]"), ["normal"], ["edema"]) == [0]
    counts = chexbert_counts(["lc_radeval_chexbert"], {}, reports, references)["chexbert"]
    assert counts.sum(0).sum(-1).tolist() == [2, 1, 0]  # edema and No Finding right, one effusion too many


def test_without_radeval_one_line_says_what_to_do(monkeypatch):
    installed.cache_clear()
    assert f"no radeval in {sys.executable}" in missing() and "docs/use/heavy-judges.md" in missing()
    assert "no radeval in /no/python" in missing(python="/no/python")
    answer = radgraph(python="/no/python").score(["edema"], ["edema"])[0]
    assert answer.score is None and "cannot start: /no/python" in answer.error


def test_radcliq_is_refused_with_the_reason():
    with pytest.raises(RecipeError, match=r"IDF 0 everywhere .* the same 9\.37"):
        load("radeval_radcliq")
    assert "9.37" in JUDGES["radeval_radcliq"].unavailable()
