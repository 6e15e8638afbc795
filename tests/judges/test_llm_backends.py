"""Backends of the language-model judges: what is sent, what is retried, what becomes an abstention, and what never leaves."""

import json
import random
import threading
import time

import pytest
from tests.judges.llm_server import answer, serve

from chexalign.errors import Abstain, RecipeError, WorkError
from chexalign.judges.prompted.base import LlmJudge, fill, missing_model, missing_parts, prompt_text
from chexalign.judges.prompted.parsing import json_object
from chexalign.llm import endpoint as endpoint_file
from chexalign.llm.breaker import Breaker
from chexalign.llm.endpoint import base_url
from chexalign.llm.reply import Passing, Reply, Unavailable, user


@pytest.fixture(autouse=True)
def _short_waits(monkeypatch):
    monkeypatch.setattr(endpoint_file, "FIRST_WAIT", 0.005)
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")  # nothing listens there: loopback is never asked through a proxy


def judge(url, **options):
    return LlmJudge(url=url, model="m", **{"retries": 2, "timeout": 5.0, **options})


def asked(judge, n=1):
    return judge.ask([user(f"prompt {i}") for i in range(n)])


def test_a_request_holds_the_model_the_chat_and_greedy_settings_and_no_key():
    with serve(lambda n, body: answer("hello")) as served:
        one = judge(
            served.url, max_tokens=12, extra={"chat_template_kwargs": {"enable_thinking": False}, "max_tokens": None}
        )
        assert asked(one) == [Reply("hello", 7, 3)]
        assert served.paths == ["/v1/chat/completions"]
        assert served.bodies == [
            {
                "model": "m",
                "messages": [{"role": "user", "content": "prompt 0"}],
                "temperature": 0,
                "chat_template_kwargs": {"enable_thinking": False},
            }
        ]
        assert "Authorization" not in served.headers[0]
        assert one.ask(["raw text"]) == [Reply("hello", 7, 3)] and served.paths[1] == "/v1/completions"
        assert served.bodies[1]["prompt"] == "raw text"
    assert (one.usage.requests, one.usage.prompt_tokens, one.usage.completion_tokens) == (2, 14, 6)
    assert one.summary().startswith(
        "llm: 2 requests (0 retries, 0 prompts without an answer, 0 remembered), 14 + 6 tokens"
    )


@pytest.mark.parametrize("failure", [429, 500, 503, "drop", "malformed", "no choices", "short body"])
def test_what_passes_is_tried_again(failure):
    def behave(number, body):
        if number >= 2:
            return answer("at last")
        if failure == "drop":
            return None
        if failure == "malformed":
            return 200, {}, b'{"choices": [{'
        if failure == "no choices":
            return 200, {}, b'{"choices": []}'
        if failure == "short body":
            return 200, {"Content-Length": "5000"}, b'{"choices"'
        return failure, {"Retry-After": "0"}, b"busy"

    with serve(behave) as served:
        one = judge(served.url)
        assert asked(one) == [Reply("at last", 7, 3, retries=2)]
        assert (one.usage.requests, one.usage.retries, one.usage.failed) == (3, 2, 0)


def test_retry_after_is_waited_for():
    with serve(lambda n, body: answer("ok") if n else (429, {"Retry-After": "1"}, b"")) as served:
        started = time.monotonic()
        assert asked(judge(served.url))[0].text == "ok"
        assert time.monotonic() - started >= 1


def test_what_stays_broken_becomes_an_abstention_after_bounded_tries():
    with serve(lambda n, body: (503, {}, b"out of memory")) as served:
        one = judge(served.url, concurrency=1)
        replies = asked(one, 20)
        assert [type(r) for r in replies[:3]] == [Passing, Passing, Unavailable]
        assert str(replies[0]) == "HTTP 503: out of memory, 3 tries"
        assert all(isinstance(r, Unavailable) and "not answering" in str(r) for r in replies[3:])
        assert len(served.bodies) == 9 == one.usage.requests  # three prompts, three tries each; seventeen were not sent
        assert one.usage.failed == 20


def test_a_request_that_is_refused_is_one_abstention_and_no_retry():
    def behave(number, body):
        if "prompt 1" in str(body):
            return 400, {}, b'{"error": "this prompt is too long"}'
        return answer("fine")

    with serve(behave) as served:
        replies = asked(judge(served.url, concurrency=1), 6)
        assert [isinstance(r, Reply) for r in replies] == [True, False, True, True, True, True]
        assert str(replies[1]) == 'HTTP 400: {"error": "this prompt is too long"}' and type(replies[1]) is Abstain
        assert len(served.bodies) == 6


def test_three_refusals_before_any_answer_stop_the_asking():
    with serve(lambda n, body: (400, {}, b"no such model")) as served:
        replies = asked(judge(served.url, concurrency=1), 9)
        assert len(served.bodies) == 3 and all(isinstance(r, Abstain) for r in replies)
        assert isinstance(replies[8], Unavailable) and "no such model" in str(replies[8])


def test_an_answer_without_text_abstains():
    with serve(lambda n, body: answer(None)) as served:
        assert str(asked(judge(served.url))[0]) == "the model answered without text"


@pytest.mark.parametrize("how", ["hang", "drip"])
def test_a_time_out_abstains_and_is_not_tried_again(how):
    done = threading.Event()

    def behave(number, body):
        if how == "hang":
            done.wait(3)
        status, headers, raw = answer("too late")
        return status, {"X-Drip": "0.02"} if how == "drip" else headers, raw

    with serve(behave) as served:
        started = time.monotonic()
        one = judge(served.url, timeout=0.3)
        reply = asked(one)[0]
        assert time.monotonic() - started < 2
        done.set()
        assert type(reply) is Passing and str(reply) == "no answer within 0.3 s" and len(served.bodies) == 1


def test_at_most_so_many_requests_at_a_time_and_answers_in_order():
    chance = random.Random(0)

    def behave(number, body):
        time.sleep(chance.random() * 0.02)
        return answer(body["messages"][0]["content"].upper())

    with serve(behave) as served:
        one = judge(served.url, concurrency=3)
        assert [r.text for r in asked(one, 30)] == [f"PROMPT {i}" for i in range(30)]
        assert served.most == 3


def test_a_server_that_dies_midway_leaves_reasons_and_costs_little_time():
    with serve(lambda n, body: answer("alive")) as served:
        dead = threading.Event()

        def behave(number, body):
            if number >= 10:
                dead.set()
                return None
            return answer("alive")

        served.behave = behave
        one = judge(served.url, concurrency=2)
        started = time.monotonic()
        replies = asked(one, 2000)
        assert dead.is_set() and time.monotonic() - started < 5
        good = [r for r in replies if isinstance(r, Reply)]
        assert len(good) == 10 and len(served.bodies) < 30
        assert all(isinstance(r, Unavailable) and "connection was lost" in str(r) for r in replies if r not in good)
        served.behave = lambda n, body: answer("alive again")
        assert isinstance(asked(judge(served.url))[0], Reply)
        one._backend.breaker.pause = 0.0  # the pause is over: one prompt may try, and then all may
        again = one.ask([user(f"prompt {i}") for i in range(2000)])
        assert sum(isinstance(r, Reply) for r in again) >= 1990  # the ten good ones are remembered
        assert one.usage.remembered == 10


def test_nobody_listening_is_said_with_the_address():
    with serve(lambda n, body: answer("")) as served:
        served.stop()
    reply = asked(judge(served.url), 3)
    assert all(isinstance(r, Unavailable) and served.url in str(r) and "no connection" in str(r) for r in reply)


def test_the_circuit_closes_again():
    breaker = Breaker(after=2, pause=0.05)
    assert not breaker.bad("x") and breaker.open() is None
    assert breaker.bad("y") and breaker.open() == "y"
    time.sleep(0.06)
    assert breaker.open() is None and breaker.open() == "y"  # one is let through
    breaker.good()
    assert breaker.open() is None and not breaker.bad("z")


def test_the_key_goes_into_one_header_and_nowhere_else(monkeypatch, tmp_path):
    monkeypatch.setenv("MY_KEY", "sk-secret-123")
    with serve(lambda n, body: (401, {}, b"wrong key sk-secret-123 given")) as served:
        one = judge(served.url, api_key_env="MY_KEY", cache=str(tmp_path))
        replies = asked(one, 5)
        assert served.headers[0]["Authorization"] == "Bearer sk-secret-123"
        assert len(served.bodies) <= 5 and all(isinstance(r, Unavailable) for r in replies)
        assert "HTTP 401: wrong key … given" in str(replies[0])
        served.behave = lambda n, body: answer("ok")
        one._backend.breaker.good()
        assert isinstance(asked(one)[0], Reply)
    said = [repr(one), str(replies), one.llm_version, one.summary(), *(str(p.read_bytes()) for p in tmp_path.iterdir())]
    assert len(said) == 5 and not any("sk-secret" in text for text in said)


def test_a_key_that_cannot_be_sent_is_one_line_that_does_not_show_it(monkeypatch):
    monkeypatch.setenv("MY_KEY", "sk-first\nsk-second")
    with pytest.raises(RecipeError, match="MY_KEY holds no key") as caught:
        asked(judge("http://127.0.0.1:9/v1", api_key_env="MY_KEY"))
    assert "sk-" not in str(caught.value)


def test_an_error_whose_words_never_come_is_an_error_all_the_same():
    with serve(lambda n, body: (500, {"Content-Length": "100"}, b"")) as served:
        one = judge(served.url, timeout=0.3, retries=1)
        assert str(asked(one)[0]) == "HTTP 500: no reason given, 2 tries"


def test_a_redirect_is_not_followed():
    with serve(lambda n, body: answer("stolen")) as other:
        with serve(lambda n, body: (307, {"Location": f"{other.url}/chat/completions"}, b"")) as served:
            assert isinstance(asked(judge(served.url))[0], Unavailable)
        with serve(lambda n, body: (302, {"Location": f"{other.url}/chat/completions"}, b"")) as served:
            assert isinstance(asked(judge(served.url))[0], Unavailable)
        assert other.bodies == []


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("http://127.0.0.1:8000", "http://127.0.0.1:8000/v1"),
        ("http://localhost:8000/v1/", "http://localhost:8000/v1"),
        ("https://[::1]:1/v1/chat/completions", "https://[::1]:1/v1"),
        ("http://127.0.0.1:8000/api", "http://127.0.0.1:8000/api"),
    ],
)
def test_an_address_on_this_machine(url, expected):
    assert base_url(url, allow_remote=False) == expected


@pytest.mark.parametrize(
    "host", ["api.openai.com", "10.0.0.5", "192.168.1.2", "localhost.evil.org", "127.0.0.1.evil.org"]
)
def test_an_address_elsewhere_needs_leave(host):
    with pytest.raises(RecipeError, match="not on this machine.*allow_remote: true"):
        LlmJudge(url=f"https://{host}/v1", model="m")
    assert LlmJudge(url=f"https://{host}/v1", model="m", allow_remote=True).url == f"https://{host}/v1"


@pytest.mark.parametrize(
    ("options", "what"),
    [
        ({"url": "ftp://localhost/v1", "model": "m"}, "no address of an endpoint"),
        ({"url": "http://me:pw@localhost/v1", "model": "m"}, "api_key_env"),
        ({"url": "http://localhost/v1?key=1", "model": "m"}, "api_key_env"),
        ({"url": "http://localhost/v1"}, "url needs model"),
        ({"model": "m", "api_key_env": "X"}, "add url"),
        ({"model": "m", "answers": "x"}, "exclude"),
        ({"model": "m", "retries": -1}, "retries is -1"),
        ({"model": "m", "timeout": 0}, "timeout is 0"),
    ],
)
def test_wrong_options_are_one_clear_line(options, what):
    with pytest.raises(RecipeError, match=what):
        LlmJudge(**options)


def test_what_is_missing_is_said_before_the_run(monkeypatch, tmp_path):
    monkeypatch.delenv("NO_SUCH_KEY", raising=False)
    assert "no language model is named" in missing_model() and missing_parts() is None
    assert "NO_SUCH_KEY" in missing_model(url="http://localhost", model="m", api_key_env="NO_SUCH_KEY")
    assert "no checkpoint folder" in missing_model(model=str(tmp_path / "absent"))
    assert "no file" in missing_parts(answers=str(tmp_path / "absent"))
    assert (
        missing_model(url="http://localhost", model="org/name") is None and missing_model(model=str(tmp_path)) is None
    )


def test_equal_prompts_are_asked_once_and_the_disk_remembers_answers_but_no_failure(tmp_path):
    def behave(number, body):
        return answer("yes") if "prompt 0" in str(body) else (400, {}, b"no")

    with serve(behave) as served:
        first = judge(served.url, cache=str(tmp_path))
        replies = first.ask([user("prompt 0"), user("prompt 1"), user("prompt 0")])
        assert [isinstance(r, Reply) for r in replies] == [True, False, True] and len(served.bodies) == 2
        asked(first, 1)
        assert len(served.bodies) == 2 and first.usage.remembered == 1
        second = judge(served.url, cache=str(tmp_path))
        assert asked(second, 2)[0] == Reply("yes", 7, 3)
        assert len(served.bodies) == 3 and "prompt 1" in served.prompt()  # the failure was not kept
        for other in ({"max_tokens": 5}, {"extra": {"seed": 1}}):
            asked(judge(served.url, cache=str(tmp_path), **other))
        assert len(served.bodies) == 5  # another setting is another question


def test_canned_answers(tmp_path):
    path = tmp_path / "answers.jsonl"
    rows = [
        {"contains": ["Left  EFFUSION", "chest"], "answer": {"a": 1}},
        {"contains": ["slow"], "error": "no answer within 3 s"},
        {"contains": ["left"], "answer": "text"},
    ]
    path.write_text("\n".join(json.dumps(r) for r in rows))
    one = LlmJudge(answers=str(path))
    replies = one.ask([user("left\neffusion in the chest"), user("slow"), user("left"), user("else"), "raw left"])
    assert [getattr(r, "text", None) for r in replies] == ['{"a": 1}', None, "text", None, "text"]
    assert type(replies[1]) is Passing and "no row of" in str(replies[3])
    path.write_text('[{"answer": "always"}]')
    assert LlmJudge(answers=str(path)).model_name != one.model_name
    for wrong, what in (
        ("{", "invalid JSON"),
        ('{"contains": []}', "a row is"),
        ('{"contains": "x", "answer": "y"}', "list of texts"),
    ):
        path.write_text(wrong)
        with pytest.raises(RecipeError, match=what):
            LlmJudge(answers=str(path)).ask([user("x")])
    with pytest.raises(RecipeError, match="No such file"):
        LlmJudge(answers=str(tmp_path / "absent")).ask([user("x")])


@pytest.mark.parametrize(
    "text",
    ['{"a": 1}', 'Sure:\n```json\n{"a": 1}\n```', '<think>{"a": 2}</think> {"a": 1} {"a": 3}', '{bad} {"a": 1}'],
)
def test_the_json_of_an_answer_is_found(text):
    assert json_object(Reply(text)) == {"a": 1}


@pytest.mark.parametrize("text", ["", "[1]", '{"a": ', "{" * 100_000])
def test_an_answer_without_json_is_a_parse_failure(text):
    with pytest.raises(Abstain, match="^parse_failed: no JSON object in the answer \\(it was cut"):
        json_object(Reply(text, finished=False))


def test_a_report_cannot_open_a_place_in_a_prompt():
    assert fill("{{A}} and {{B}}", A="{{B}}", B="x") == "{{B}} and x"
    for name in ("green", "facts", "pairwise", "crimson"):
        assert "{{" in prompt_text(f"{name}.txt")[0]


@pytest.fixture(scope="module")
def small_model(tmp_path_factory):
    """A random Llama with a byte tokenizer and a chat form."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    raw = Tokenizer(models.BPE({c: i for i, c in enumerate(["<s>", "</s>", *letters])}, []))
    raw.pre_tokenizer, raw.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=raw, bos_token="<s>", eos_token="</s>")
    tokenizer.chat_template = "{% for m in messages %}<s>{{ m['content'] }}</s>{% endfor %}"
    torch.manual_seed(0)
    shape = dict(
        hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2, max_position_embeddings=200
    )
    model = LlamaForCausalLM(LlamaConfig(vocab_size=len(tokenizer), bos_token_id=0, eos_token_id=1, **shape))
    folder = tmp_path_factory.mktemp("llm")
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def test_a_model_in_this_process_answers_the_same_in_any_batch(small_model):
    prompts = [user("small left effusion " * (i % 4 + 1)) for i in range(6)] + [user("x" * 300), "raw"]
    one = LlmJudge(model=str(small_model), max_tokens=8, batch_size=3)
    asked_for = one.ask(prompts)
    together = [str(r) for r in asked_for]
    single = LlmJudge(model=str(small_model), max_tokens=8, batch_size=1)
    assert together == [str(single.ask([p])[0]) for p in prompts]
    backwards = LlmJudge(model=str(small_model), max_tokens=8, batch_size=8).ask(prompts[::-1])
    assert together == [str(r) for r in backwards][::-1]
    assert isinstance(one.ask([user("half a character: \ud800")])[0], Reply)
    good = [r for r in asked_for if isinstance(r, Reply)]
    assert len(good) == 7 and all(0 < r.completion_tokens <= 8 for r in good)
    assert good[0].prompt_tokens == len("small left effusion ") + 2
    assert one.usage.requests == 6 and one.usage.failed == 1  # four distinct chats, the raw text, the half character


def test_a_prompt_too_long_for_the_model_abstains(small_model):
    reply = LlmJudge(model=str(small_model)).ask([user("x" * 300)])[0]
    assert str(reply) == "a prompt of 302 tokens, and the model takes 200"


def test_no_network_for_a_model_that_is_not_here(tmp_path):
    with pytest.raises(WorkError, match="some/model.*download: true"):
        LlmJudge(model="some/model").ask([user("x")])
    with pytest.raises(RecipeError, match="needs a language model"):
        LlmJudge().ask([user("x")])
