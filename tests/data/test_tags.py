"""Text between `<report>` tags: what the policy learns to write, what judges read, what the format reward sees."""

import pytest

from chexalign.data.tags import body_of, wrapped
from chexalign.judges import load
from chexalign.judges.contract import reward
from chexalign.judges.request import RewardRequest
from chexalign.policies import Policy
from chexalign.policies.forward.generate import Sampled
from chexalign.recipe.online import Rollout
from chexalign.records import Completion, Study
from chexalign.train.online.rollout import PromptedStudy, judge_groups, roll_out

REPORT = "The heart is normal in size. No pneumothorax."


@pytest.mark.parametrize("text", [REPORT, f"  {REPORT}\n", "One line.\nAnother."])
def test_what_was_wrapped_comes_back(text):
    assert body_of(wrapped(text)) == (text.strip(), None)


@pytest.mark.parametrize(
    "written",
    [f"<report>{REPORT}", f"<report>{REPORT}</repo", f"{REPORT}</report>", f"<report>{REPORT}</report><report>"],
)
def test_a_broken_form_still_has_its_text(written):
    body, wrong = body_of(written)
    assert body == REPORT and wrong


@pytest.fixture
def taught(tiny_folder) -> Policy:
    policy = Policy.load(tiny_folder)
    policy.wrap = "report"
    return policy


def test_a_policy_learns_the_tags_and_hands_on_the_text(taught, tiny_folder):
    plain = Policy.load(tiny_folder)
    ids = taught.completion_ids(REPORT)
    assert ids == plain.completion_ids(wrapped(REPORT)) and ids != plain.completion_ids(REPORT)
    assert (taught.text(ids), taught.written(ids)) == (REPORT, wrapped(REPORT))
    assert (plain.text(ids), plain.written(ids)) == (wrapped(REPORT), None)


def test_judges_read_the_text_and_the_format_reward_what_was_written(taught, tiny_folder, prompts, monkeypatch):
    """Two samples: one well-formed and poor, one right and never closed."""
    whole, unclosed = (
        taught.completion_ids("No pneumothorax."),
        Policy.load(tiny_folder).completion_ids(f"<report>{REPORT}"),
    )
    samples = [Sampled(tokens, 0.0, "stop") for tokens in (whole, unclosed)]
    monkeypatch.setattr(taught, "generate", lambda asked, *_, **__: [samples for _ in asked])
    asked = [PromptedStudy(Study(f"s{i}", "p", "train", findings=REPORT), p, REPORT) for i, p in enumerate(prompts[:2])]
    groups = roll_out(taught, asked, Rollout(n=2), 0, 0)
    assert groups[1].texts == ("No pneumothorax.", REPORT)

    def scores(line):
        return [[a.score for a in group] for group in judge_groups(load(line), groups, 0)]

    good, rouge = [1.0, 0.0], scores("rouge_l")[0]
    assert rouge[1] == 1.0 > rouge[0] > 0 and scores("format") == [good, good]
    assert scores("gate(format, rouge_l)")[1] == [rouge[0], 0.0]
    assert scores("rouge_l + 0.1*format")[0] == pytest.approx([rouge[0] + 0.1, 1.0])


def test_without_tags_format_reads_the_reports_themselves():
    answers = reward(load("format"), RewardRequest([wrapped("x"), "x"], ["r", "r"]))
    assert [a.score for a in answers] == [1.0, 0.0]


def test_a_completion_keeps_what_was_written():
    one = Completion("s", 0, REPORT, None, 3, "stop", "p", 0, (1, 2), wrapped(REPORT))
    assert Completion.from_json(one.to_json()) == one
    assert Completion("s", 0, REPORT, None, 3, "stop", "p", 0).written is None
