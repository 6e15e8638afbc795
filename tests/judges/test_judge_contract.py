"""What every judge of the table must do, with and without length control; one that is not here skips with the reason.

What a judge is blind to it says itself (`blind_to`): one that does not name "negation" or "meaning" must see a denial, one
that does not name "side" a swapped side, one that does not name "repetition" must not pay for copies.
"""

import functools
import math
import subprocess
import sys
import time

import pytest
from typer.testing import CliRunner

from chexalign.cli.commands import app
from chexalign.data.openi import read_openi
from chexalign.errors import Abstain, RecipeError, WorkError
from chexalign.judges import from_recipe, load
from chexalign.judges.combine import length_controlled
from chexalign.judges.contract import MEMORY, Judgement, TextJudge, context_of, reward
from chexalign.judges.registry import JUDGES, LC
from chexalign.judges.request import RewardRequest
from chexalign.labels import label_report, positive_set

FORM = {"format", "finding_consistency"}  # look at the report alone, or at the study
NEURAL = {"bertscore", "chexbert_f1"}  # rounding differs between batches, by less than 1e-5
FREE = [name for name, entry in JUDGES.items() if entry.needs == "nothing"]


def params(names):
    """Each name and its lc_ form; a judge that cannot run here skips with its own reason."""
    out = []
    for name in names:
        why = JUDGES[name].unavailable()
        marks = [pytest.mark.skip(reason=f"{name}: {why}")] if why else []
        out += [pytest.param(full, marks=marks) for full in (name, LC + name)]
    return out


def names(*blind):
    """The judges that compare report and reference and do not say that they are blind to any of these."""
    return [
        n for n, e in JUDGES.items() if n not in FORM and not in_group(n) and not any(w in e.blind_to for w in blind)
    ]


def in_group(name):
    """True for a judge that compares the reports of a group with each other: it has no `score` to test."""
    return JUDGES[name].unavailable() is None and bool(context_of(load(name)))


def plain(judge):
    return judge.name.removeprefix(LC).partition("[")[0]


REFERENCES = [
    "Small left pleural effusion. The heart is mildly enlarged. No pneumothorax.",
    "No acute cardiopulmonary abnormality.",
    "Right upper lobe opacity, which may reflect pneumonia. Bibasilar atelectasis.",
    "1. Left PICC ends in the superior vena cava.\n2. Moderate pulmonary edema.",
    "Épanchement pleural — petit 🫁 effusion, İ ½.",
]
REPORTS = [
    *REFERENCES,
    "No pleural effusion.",
    "Large right pleural effusion.",
    "",
    ".",
    "\n \t",
    "heart " * 5000,
    "正常",
    "\ud800 x",
]


@pytest.fixture(params=params(names()))
def judge(request):
    return load(request.param)


def scores(judge, reports, references):
    answers = judge.score(reports, references)
    for answer in answers:
        assert (answer.score is None) == (answer.error is not None)
        assert answer.score is None or math.isfinite(answer.score)
    return [a.score for a in answers]


def near(judge):
    return 1e-5 if plain(judge) in NEURAL else 1e-7  # FactS has an epsilon


def test_a_text_scores_highest_against_itself(judge):
    for reference in REFERENCES:
        best, *others = scores(judge, [reference, *REPORTS], [reference] * (1 + len(REPORTS)))
        top = 0.9 if "meteor_n" in judge.name else 1  # NLTK's form charges even the text itself for its one chunk
        assert top - near(judge) <= best <= 1 and max(s for s in others if s is not None) <= best + near(judge)


@pytest.mark.parametrize("blank", ["", ".", " \n", "- …"])
def test_a_blank_report_gets_the_worst_score_and_a_blank_reference_none(judge, blank):
    worst, *others = scores(judge, [blank, *REPORTS], [REFERENCES[0]] * (1 + len(REPORTS)))
    assert worst == 0 == min(s for s in others if s is not None)
    answer = judge.score([REFERENCES[0]], [blank])[0]
    assert answer.score is None and answer.error == "the reference is empty"


def test_a_batch_gives_what_its_rows_give_in_any_order_and_again(judge):
    pairs = [(report, reference) for report in REPORTS for reference in [*REFERENCES, ""]]
    reports, references = zip(*pairs, strict=True)
    together = scores(judge, reports, references)
    fresh = load(judge.name)
    alone = [scores(fresh, [a], [b])[0] for a, b in pairs]
    if plain(judge) in NEURAL:
        together, alone = ([s if s is None else pytest.approx(s, abs=1e-5) for s in x] for x in (together, alone))
    assert together == scores(judge, reports, references) == alone
    assert scores(judge, reports[::-1], references[::-1])[::-1] == together


def test_a_group_of_equal_texts_gets_equal_scores(judge):
    assert len(set(scores(judge, [REPORTS[5]] * 8, [REFERENCES[0]] * 8))) == 1
    answers = reward(judge, RewardRequest([REPORTS[5]] * 8, [REFERENCES[0]] * 8, None, ["g"] * 8, 3))
    assert len({a.score for a in answers}) == 1


def test_inputs_of_different_lengths_are_refused(judge):
    with pytest.raises(ValueError, match="1 reports but 2 references"):
        judge.score(["a"], ["a", "b"])


def test_five_thousand_words_take_no_time(judge):
    started = time.process_time()
    for text in ("no effusion ", "effusion, ", "heart large ", "left ", "may be ", "x"):
        judge.score([text * 5000], [REFERENCES[0]])
        judge.score([REFERENCES[0]], [text * 5000])
    assert time.process_time() - started < 10


FLIPS = [
    ("Moderate left pleural effusion. No pneumothorax.", "No pleural effusion. Moderate left pneumothorax."),
    ("Mild cardiomegaly.", "No cardiomegaly."),
    ("No focal consolidation. The heart is enlarged.", "Focal consolidation. The heart is not enlarged."),
]


@pytest.mark.parametrize("name", params(names("negation", "meaning")))
def test_a_denied_finding_costs(name):
    for text, flipped in FLIPS:
        right, wrong = scores(load(name), [text, flipped], [text, text])
        assert wrong <= right - 0.4, text


@pytest.mark.parametrize("name", params(names("side", "meaning")))
def test_a_swapped_side_costs(name):
    for text in ("Small left pleural effusion.", "Right upper lobe opacity. No pneumothorax."):
        other = text.replace("left", "RIGHT").replace("Right", "Left").replace("RIGHT", "right")
        right, wrong = scores(load(name), [text, other], [text, text])
        assert wrong < right - 0.05, text


@pytest.mark.parametrize("name", params(names()))
def test_three_copies_never_earn_more_than_one(name):
    """For every lc_ judge, and for each plain one that does not say that it is blind to repetition."""
    if not name.startswith(LC) and "repetition" in JUDGES[name].blind_to:
        pytest.skip(f"{name} says that it is blind to repetition")
    judge = load(name)
    for reference in REFERENCES[:4]:
        for report in (reference, reference.replace("Small", "Large").replace("No ", "A "), f"{reference} Edema."):
            once, thrice = scores(judge, [report, f"{report} {report} {report}"], [reference] * 2)
            assert thrice <= once + near(judge) and (thrice < once or once == 0), report


@functools.cache
def abnormal_openi():
    """The findings of 80 real reports with a finding beyond devices."""
    try:
        studies = read_openi(None, lambda patient_id: "test")
    except WorkError as error:
        pytest.skip(f"no OpenI text: {error}")
    ordinary = {"No Finding", "Support Devices"}
    texts = [s.findings for s in studies if positive_set(label_report(s.findings)) - ordinary][:80]
    assert len(texts) == 80
    return texts


TEMPLATE = "The heart is normal in size. The lungs are clear. There is no pleural effusion or pneumothorax."


@pytest.mark.parametrize("name", [p for p in params(names("negation", "meaning")) if not p.values[0].startswith(LC)])
def test_the_normal_template_earns_less_than_another_human_report_on_abnormal_studies(name):
    abnormal = abnormal_openi()
    fixed = scores(load(name), [TEMPLATE] * 80, abnormal)
    human = scores(load(name), abnormal[1:] + abnormal[:1], abnormal)
    assert sum(fixed) < sum(human)


def test_all_free_judges_together_are_fast():
    """Under 5 ms for a pair of 30 words on an idle core; the bound leaves room for a busy one."""
    reports = [f"{REFERENCES[i % 4]} {REFERENCES[(i + 1) % 4]} Study {i}." for i in range(100)]
    judges = [load(name) for name in FREE]
    for judge in judges:
        judge.score(REFERENCES, REFERENCES)
    started = time.process_time()
    for judge in judges:
        judge.score(reports, reports[::-1])
    assert (time.process_time() - started) / len(reports) < 0.02


def test_versions_name_what_can_change_a_score(judge):
    assert judge.version and plain(judge) in JUDGES
    if "rule" in judge.name or "finding" in judge.name:
        assert "rules" in judge.version


def test_every_line_of_the_table_speaks_and_the_free_ones_load():
    for name, entry in JUDGES.items():
        texts = (entry.description, entry.range, entry.direction, entry.cost, entry.needs, entry.blind_to)
        assert all(texts), name
        assert entry.unavailable() is None or len(entry.unavailable()) > 10
        assert name not in FREE or load(name).name == name and load(LC + name).name == LC + name
        assert name not in FREE or entry.unavailable() is None


@pytest.mark.parametrize(
    ("name", "nearest"), [("rougel", "rouge_l"), ("lc_findings_f1", "lc_finding_f1"), ("lc_lc_bleu4", "lc_bleu4")]
)
def test_an_unknown_name_is_answered_with_the_nearest(name, nearest):
    with pytest.raises(RecipeError, match=f"unknown judge '{name}'; did you mean {nearest}\\?.*chexpert_rule_f1"):
        load(name)


def test_the_command_lists_every_judge_and_says_what_is_missing_here(monkeypatch):
    monkeypatch.setattr("chexalign.judges.lexical.meteor_jar.find_jar", lambda jar: None)
    monkeypatch.setattr("shutil.which", lambda program: "/usr/bin/java")
    done = CliRunner().invoke(app, ["judges"])
    assert done.exit_code == 0, done.output
    rows = [[c.strip() for c in line.split("│")[1:-1]] for line in done.output.splitlines() if "│" in line]
    starts = [i for i, row in enumerate(rows) if row[0]] + [len(rows)]
    texts = [" ".join(" ".join(row) for row in rows[a:b]) for a, b in zip(starts, starts[1:], strict=False)]
    assert [t.split()[0] for t in texts] == list(JUDGES)
    jar = next(t for t in texts if t.startswith("meteor_1.5"))
    assert "NOT HERE:" in jar and "chexalign[meteor]" in jar and "higher" in jar
    assert all("NOT HERE" not in t for t in texts if t.split()[0] in FREE)


def test_importing_the_table_imports_no_judge():
    heavy = "{'torch', 'numpy', 'rapidfuzz', 'transformers'}"
    code = f"import sys, chexalign.judges; sys.exit(' '.join({heavy} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stderr.strip() == ""


class Constant:
    name, version = "constant", "1"

    def __init__(self, score):
        self.value = score

    def score(self, reports, references, studies=None):
        return [Judgement(self.value, None if self.value is not None else "no idea")] * len(reports)


@pytest.mark.parametrize(
    ("report", "reference", "expected"),
    [("a b c d", "a b", 0.4), ("a", "a b", 0.8), ("a b", "a b", 0.8), ("a b", " ", 0.8)],
)
def test_length_control_by_hand(report, reference, expected):
    """0.8 / max(words / words, 1); a reference of no words has ratio 1."""
    judge = length_controlled(Constant(0.8))
    answer = judge.score([report], [reference])[0]
    assert answer.score == pytest.approx(expected)
    assert answer.details == {"raw_score": 0.8, "length_ratio": pytest.approx(0.8 / expected)}
    assert (judge.name, judge.version) == ("lc_constant", "lc 1, 1")


def test_length_control_passes_abstentions_on_and_never_helps_a_negative_score():
    assert length_controlled(Constant(None)).score(["a b"], ["a"]) == [Judgement(None, "no idea")]
    assert length_controlled(Constant(-0.5)).score(["a b"], ["a"])[0].score == -1


def test_a_judge_forgets_the_oldest_text_when_its_memory_is_full(monkeypatch):
    monkeypatch.setattr("chexalign.judges.contract.MEMORY", 2)
    read = []
    judge = TextJudge("t", "1", lambda text: read.append(text), lambda a, b: (1.0, {}))
    judge.score(["a", "b", "b", "a"], ["a", "a", "a", "a"])
    assert read == ["a", "b"]
    judge.score(["c", "a"], ["c", "a"])
    assert read == ["a", "b", "c"]  # a was used last, so b went
    judge.score(["b"], ["b"])
    assert read == ["a", "b", "c", "b"] and MEMORY > 1000


def test_a_text_that_cannot_be_read_is_an_abstention_that_says_which():
    def encode(text):
        if "bad" in text:
            raise Abstain("cannot be read")
        return text

    judge = TextJudge("t", "1", encode, lambda a, b: (1.0, {}))
    batched = TextJudge(
        "t", "1", None, judge.compare, lambda texts: [Abstain("cannot be read") if "bad" in t else t for t in texts]
    )
    for one in (judge, batched, batched):
        answers = one.score(["bad", "a", "b"], ["a", "bad", "c"])
        assert [a.error for a in answers] == ["the report: cannot be read", "the reference: cannot be read", None]


def test_a_recipe_shares_one_judge_and_asks_for_the_full_name():
    assert (
        from_recipe("rouge_l", {})
        is from_recipe("rouge_l", {})
        is not from_recipe("rouge_l", {"rouge_l": {"use_stemmer": True}})
    )
    if JUDGES["bertscore"].unavailable() is None:
        with pytest.raises(RecipeError, match=r"judge 'lc_bertscore' is lc_bertscore\[.*\] here; write that"):
            from_recipe("lc_bertscore", {})


@pytest.mark.parametrize(
    ("line", "options", "message"),
    [
        (
            "rouge_l",
            {"rouge_l": {"use_stemer": True}},
            "judges.rouge_l: unknown option 'use_stemer'; did you mean 'use_stemmer'?",
        ),
        (
            "rouge_l",
            {"rouge_l": {"use_stemmer": "perhaps"}},
            "judges.rouge_l.use_stemmer: Input should be a valid boolean",
        ),
        ("rouge_l", {"rouge": {}}, "unknown judge 'rouge'; did you mean rouge_l"),
        ("bleu4", {"bleu4": {"n": 4}}, "judges.bleu4: unknown option 'n'; known: none"),
        ("rouge_l[stem]", {}, "judge rouge_l has no variants"),
    ],
)
def test_wrong_options_are_one_clear_line(line, options, message):
    with pytest.raises(RecipeError) as error:
        from_recipe(line, options)
    assert message in str(error.value) and "\n" not in str(error.value)


def test_a_judge_that_cannot_run_here_stops_a_run_before_it_starts(monkeypatch):
    monkeypatch.setattr("chexalign.judges.lexical.meteor_jar.find_jar", lambda jar: None)
    monkeypatch.setattr("shutil.which", lambda program: "/usr/bin/java")
    with pytest.raises(WorkError, match="judge lc_meteor_1.5 cannot run here: .*pip install"):
        from_recipe("0.5*lc_meteor_1.5 + rouge_l", {})
