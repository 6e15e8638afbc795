"""GREEN: the authors' five answers, both readers of an answer, the prompt, and the judge around them."""

import json
from pathlib import Path

import pytest
from tests.judges.llm_server import answer, serve

from chexalign.errors import Abstain
from chexalign.judges import load
from chexalign.judges.prompted.green import green, make_prompt, pre_clean, read_official, read_strict

GOLDEN = json.loads((Path(__file__).parent / "green_completions.json").read_text())
NONE = "(a) x: 0.\n(b) x: 0."


def completion(errors=NONE, matched="1. Effusion."):
    return f"It is fine.\n\n[Clinically Significant Errors]:\n{errors}\n\n[Matched Findings]:\n{matched}"


@pytest.mark.parametrize("read", [read_official, read_strict])
def test_the_five_golden_answers(read):
    """GREEN tests/test_repro.py: 0, 1/6, 1/3, 1/2, 1/4; mean 1/4, sample sd 1/6."""
    scores = [green(*read(text)) for text in GOLDEN["answers"]]
    assert scores == [0, 1 / 6, 1 / 3, 1 / 2, 1 / 4] == GOLDEN["scores"]
    assert read(GOLDEN["answers"][0]) == (0, [2, 3, 0, 1, 0, 0])


def test_the_formula_by_hand():
    assert green(3, [1, 0, 0, 0, 0, 0]) == 0.75
    assert green(0, [0] * 6) == 0 and green(2, [0] * 6) == 1


@pytest.mark.parametrize(
    ("text", "official", "why"),
    [
        ("[Matched Findings]:\n2. A; B.", 1.0, "no .Clinically Significant Errors. section"),
        ("[Clinically Significant Errors]:\n(a) x: 1. A\n\n", 0, "no .Matched Findings. section"),
        ("", 0, "no .Matched Findings. section"),
        (completion(matched="3 A; B"), 0, "its one count"),
        (completion(matched="Two. A"), 0, "its one count"),
        (completion(matched="1. A\n2. B"), 1.0, "its one count"),
        (completion(errors="(a) x: two. A"), 1.0, "no .letter. error: count"),
        (completion(errors="(a) x: 1. A\nand more"), 0.5, "no .letter. error: count"),
        (completion(errors="(a) x: 1. A\n(a) x: 2. B"), 1 / 3, "two counts for .a."),
        (completion(errors=""), 1.0, "is empty"),
        (completion() + "\n\n" + completion(), 1.0, "2 .Matched Findings. sections"),
    ],
)
def test_what_official_reads_anyway_strict_does_not(text, official, why):
    assert green(*read_official(text)) == pytest.approx(official)
    with pytest.raises(Abstain, match=f"^parse_failed: .*{why}"):
        read_strict(text)


@pytest.mark.parametrize(
    ("text", "score"),
    [
        (completion(), 1.0),
        (completion(errors="No errors."), 1.0),
        (completion(errors="(c) x: 3. A; B; C"), 0.25),
        (completion(errors="(1) x: 1. A\n(4) x: 2. B"), 0.25),
        (completion(matched="0."), 0),
        (completion(matched="No matched findings."), 0),
    ],
)
def test_both_read_a_whole_answer_the_same(text, score):
    assert green(*read_official(text)) == green(*read_strict(text)) == pytest.approx(score)


def test_strict_reads_a_count_without_its_full_stop_and_official_takes_it_for_none():
    text = completion(errors="(a) x: 1\n(b) x: 0.")
    assert (green(*read_official(text)), green(*read_strict(text))) == (1.0, 0.5)


def test_strict_keeps_sections_apart_that_no_blank_line_parts_and_official_does_not():
    text = completion(errors="(a) x: 2. A; B").replace(
        "\n\n[M", "\n[Clinically Insignificant Errors]:\n(a) x: 3. C\n[M"
    )
    assert (green(*read_official(text)), green(*read_strict(text))) == (1 / 4, 1 / 3)


def test_texts_are_cleaned_as_chexalign_does_and_cut_at_300_words():
    assert pre_clean(" **Lungs** [clear]  ARE\n [x] fine ") == "lungs are fine"
    prompt = make_prompt("word " * 500 + "tail-end", "left {{CANDIDATE}} effusion")
    assert prompt.count("word") == 300 and "tail-end" not in prompt
    assert "Reference Report:\n    left {{CANDIDATE}} effusion\n" in prompt  # a report opens no place of its own


def test_the_judge_asks_once_per_pair_and_counts(tmp_path):
    def behave(number, body):
        return answer(completion() if "small effusion" in body["messages"][0]["content"] else "I cannot say.")

    with serve(behave) as served:
        judge = load("green", url=served.url, model="some-llm")
        reports = ["SMALL effusion", "large effusion", "", "x", "Small  Effusion"]
        answers = judge.score(reports, ["effusion", "effusion", "effusion", "", "Effusion"])
        assert [a.score for a in answers] == [1.0, None, 0.0, None, 1.0]
        assert len(served.bodies) == 2  # cleaned, the first and the last are one pair
        assert answers[1].error.startswith("parse_failed: no [Matched") and answers[3].error == "the reference is empty"
        assert answers[0].details == {
            "matched": 1,
            "significant": dict.fromkeys("abcdef", 0),
            "prompt_tokens": 7,
            "completion_tokens": 3,
        }
        assert judge.name == "green[some-llm]" and "strict parser, cleaned, chat turns, model some-llm" in judge.version
        official = load("green", url=served.url, model="some-llm", parser="official")
        assert [a.score for a in official.score(["large effusion"], ["effusion"])] == [0]
        assert "official" in official.version and load("lc_green", url=served.url, model="x").name == "lc_green[x]"


def test_greens_own_model_gets_its_own_turns_as_raw_text():
    with serve(lambda n, body: answer(completion())) as served:
        judge = load("lc_green", url=served.url, model="StanfordAIMI/GREEN-radllama2-7b")
        verdict = judge.score(["effusion and effusion"], ["effusion"])[0]
        assert verdict.score == pytest.approx(1 / 3) and verdict.details["raw_score"] == 1  # LC: three words for one
        prompt = served.bodies[0]["prompt"]
        assert served.paths == ["/v1/completions"]
        assert prompt.startswith("<|user|>\nObjective:") and prompt.endswith(
            "</s>\n<|assistant|>\n</s>\n<|assistant|>\n"
        )
        assert judge.name == "lc_green"


def test_a_time_out_is_no_zero():
    with serve(lambda n, body: (500, {}, b"")) as served:
        answers = load("green", url=served.url, model="m", retries=0).score(["a"], ["b"])
        assert answers[0].score is None and answers[0].details == {"passing": True}
