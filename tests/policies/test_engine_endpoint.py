"""Sampling from an OpenAI-compatible endpoint: against a server whose behaviour is chosen, and against `transformers serve`."""

import base64
import importlib.util
import io
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tests.judges.llm_server import answer, serve
from tests.policies.text_model import build_llama
from tests.serving import serve as serve_for_real
from transformers import GenerationConfig

from chexalign.data.images import load_image
from chexalign.errors import RecipeError, WorkError
from chexalign.jsonl import read_records
from chexalign.llm import endpoint as http
from chexalign.policies import Policy, Prompt, engines
from chexalign.recipe.engine import EndpointEngine
from chexalign.recipe.files import build_recipe
from chexalign.records import Completion
from chexalign.stages.runner import run_stages

from tests.test_impression import raw, rows  # isort: skip

TEXT = "No pneumothorax."
ABSENT = [name for name in ("fastapi", "uvicorn", "openai") if importlib.util.find_spec(name) is None]


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch):
    monkeypatch.setattr(http, "FIRST_WAIT", 0.001)


def attach(policy, url, **settings) -> Policy:
    engines.attach(policy, EndpointEngine(url=url, model="m", **{"retries": 1, **settings}), 2)
    return policy


def numbered(number, body):
    return answer(f"{TEXT} {number % 3}", tokens=(None, None))


@pytest.fixture(scope="module")
def llama(tmp_path_factory):
    return build_llama(tmp_path_factory.mktemp("llama") / "model")


ASKED = [Prompt("<|user|>Findings: The heart is normal in size.<|assistant|>"), Prompt("<|user|>No.<|assistant|>")]


def test_a_text_prompt_goes_as_it_is_and_each_sample_has_a_seed_of_its_own(llama):
    with serve(numbered) as served:
        policy = attach(Policy.load(llama), served.url, concurrency=1)
        groups = policy.generate(ASKED, 3, 0.7, 20, seed=[1, 2], top_p=0.9)
    assert set(served.paths) == {"/v1/completions"}
    assert [b["prompt"] for b in served.bodies] == [p.text for p in ASKED for _ in range(3)]
    assert {(b["temperature"], b["top_p"], b["max_tokens"], b["model"]) for b in served.bodies} == {(0.7, 0.9, 20, "m")}
    assert not any("n" in b or "logprobs" in b for b in served.bodies)  # servers differ in those
    seeds = [b["seed"] for b in served.bodies]
    assert len(set(seeds)) == 6 and all(0 <= s < 2**31 for s in seeds)
    for one in groups[0]:
        assert one.tokens[-1] == policy.tokenizer.eos_token_id and policy.text(one.tokens).startswith(TEXT)
    expected = policy.token_logps(ASKED, [[s.tokens for s in g] for g in groups])
    assert groups[1][2].token_logps == pytest.approx(expected[1][2].tolist(), abs=1e-6)


def test_a_beginning_that_the_servers_tokenizer_writes_itself_is_left_to_it(llama):
    policy = Policy.load(llama)
    bos = policy.tokenizer.bos_token
    with serve(numbered) as served:
        attach(policy, served.url).generate([Prompt(f"{bos}Findings:")], 1, 1.0, 8)
    plain, written = policy.tokenizer("Findings:"), policy.tokenizer(f"{bos}Findings:", add_special_tokens=False)
    twice = plain["input_ids"] == written["input_ids"]
    assert served.prompt() == ("Findings:" if twice else f"{bos}Findings:")


def test_images_travel_as_the_pixels_that_the_processor_sees(policy, prompts):
    with serve(numbered) as served:
        attach(policy, served.url, concurrency=1).generate(prompts[:2], 1, 0.0, 8)
    assert set(served.paths) == {"/v1/chat/completions"}
    for prompt, body in zip(prompts, served.bodies, strict=False):
        parts = body["messages"][-1]["content"]
        shown = [p["image_url"]["url"] for p in parts if p["type"] == "image_url"]
        for path, url in zip(prompt.images, shown, strict=True):
            data = base64.b64decode(url.removeprefix("data:image/png;base64,"))
            ours = load_image(prompt.root, path)
            assert (np.asarray(Image.open(io.BytesIO(data)).convert(ours.mode)) == np.asarray(ours)).all()
        assert [p["text"] for p in parts if p["type"] == "text"][0].startswith("Findings given")
    with serve(numbered) as served, pytest.raises(WorkError, match="no chat template: sample in process"):
        attach(policy, served.url).generate([Prompt("<image> x", prompts[0].images, prompts[0].root)], 1, 0.0, 8)


def test_sampled_tokens_and_log_probs_are_taken_where_they_fit_and_refused_where_not(llama):
    policy = Policy.load(llama)
    drawn = policy.generate(ASKED, 2, 1.0, 10, seed=4)
    flat, shift = [one for group in drawn for one in group], [0.0]

    def told(number, body):
        assert body["return_token_ids"] and body["logprobs"] == 0
        one = flat[number]
        values = [v + shift[0] for v in one.token_logps]
        more = {"token_ids": list(one.tokens), "logprobs": {"token_logprobs": values}, "text": "x", "index": 0}
        return 200, {}, json.dumps({"choices": [{**more, "finish_reason": one.finish_reason}]}).encode()

    with serve(told) as served:
        attach(policy, served.url, token_ids=True, concurrency=1)
        again = policy.generate(ASKED, 2, 1.0, 10, seed=9)
        assert [[s.tokens for s in g] for g in again] == [[s.tokens for s in g] for g in drawn]
        shift[0], served.bodies[:] = -1.0, []
        with pytest.raises(WorkError, match=r"1\.00 nats per token away from this policy's: other weights"):
            policy.generate(ASKED, 2, 1.0, 10, seed=9)
    with serve(numbered) as served, pytest.raises(WorkError, match="leave engine.token_ids out"):
        attach(policy, served.url, token_ids=True).generate(ASKED, 1, 1.0, 10)


def test_a_prompt_of_another_length_is_said_once(llama, capfd):
    with serve(lambda number, body: answer(f"{TEXT} {number}", tokens=(4000, 3))) as served:
        policy = attach(Policy.load(llama), served.url)
        policy.generate(ASKED, 1, 1.0, 8)
        policy.generate(ASKED, 1, 1.0, 8)
    said = " ".join(capfd.readouterr().err.split())
    assert said.count("read 4000 prompt tokens where this policy has") == 1
    assert said.count(f"sampling from the endpoint {served.url} (model m)") == 1


@pytest.mark.parametrize(
    ("behave", "message"),
    [
        (lambda *_: (500, {}, b"busy"), r"did not give 2 of 2 samples: .*busy.*run again to go on"),
        (lambda *_: (401, {}, b"no key"), "401"),
        (lambda *_: answer(TEXT, finish="content_filter"), "ended a report with 'content_filter'"),
        (lambda *_: (200, {}, b'{"choices": []}'), "gave an answer that is no completion"),
        (lambda *_: (200, {}, b"[1]"), "an answer that is no chat completion"),
        (lambda *_: answer(None), "an answer without text"),
        (lambda *_: answer("", finish="length"), "empty report"),
        (lambda *_: answer(TEXT), "decodes greedily"),
    ],
)
def test_a_sample_that_cannot_be_had_is_an_error_in_one_line(llama, behave, message):
    with serve(behave) as served, pytest.raises(WorkError, match=message) as error:
        attach(Policy.load(llama), served.url).generate(ASKED[:1], 2, 1.0, 12)
    assert "\n" not in str(error.value)


def test_no_other_machine_is_asked_unless_the_recipe_says_so(llama, capfd):
    with pytest.raises(RecipeError, match="allow_remote: true"):
        attach(Policy.load(llama), "http://10.1.2.3:8000/v1")
    attach(Policy.load(llama), "http://10.1.2.3:8000/v1", allow_remote=True)
    assert "which is another machine" in " ".join(capfd.readouterr().err.split())


def test_weights_cannot_be_pushed(llama):
    policy = attach(Policy.load(llama), "http://127.0.0.1:1/v1")
    with pytest.raises(WorkError, match="takes no weights"):
        policy.engine.push()


def test_the_stage_goes_on_where_the_server_died(llama, tmp_path):
    """Six batches of studies; the server fails in the third, and what is on the disk is not asked for again."""
    alive = [9]

    def mortal(number, body):
        return numbered(number, body) if number < alive[0] else (503, {}, b"gone")

    (tmp_path / "studies.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows()))
    with serve(mortal) as served:
        engine = {"type": "endpoint", "url": served.url, "model": "m", "retries": 0, "concurrency": 1}
        sample = {"n": 2, "max_new_tokens": 12, "batch_size": 2, "limit": 11, "engine": engine}
        recipe = build_recipe(raw(llama, tmp_path, warmup=None, sample=sample, evaluate={}), "test")
        with pytest.raises(WorkError, match="gone"):
            run_stages(recipe, ["studies", "sample"])
        first, alive[0] = len(served.bodies), 10**6
        run_stages(recipe, ["studies", "sample"])
    done = read_records(tmp_path / "run/completions.jsonl", Completion)
    assert len(done) == 22 and len({d.key() for d in done}) == 22
    assert first == 12 and len(served.bodies) - first == 22 - 8  # two batches of four were kept
    assert all(TEXT in d.text and d.logp < 0 and d.tokens for d in done)


# ---- a real server

needs_server = [
    pytest.mark.slow,
    pytest.mark.skipif(bool(ABSENT), reason=f"no server without {', '.join(ABSENT)}: pip install 'chexalign[llm]'"),
]


def saved_to_sample(policy, folder) -> Path:
    """`transformers serve` samples only where the checkpoint says so."""
    policy.save(folder)
    GenerationConfig(do_sample=True, top_k=0, eos_token_id=policy.tokenizer.eos_token_id).save_pretrained(folder)
    return folder


@pytest.mark.parametrize("kind", [pytest.param(k, marks=needs_server) for k in ("text", "images")])
def test_transformers_serve_gives_what_this_process_gives(kind, llama, tiny_folder, prompts, tmp_path, capfd):
    policy = Policy.load(llama if kind == "text" else tiny_folder)
    with torch.no_grad():  # random weights that write words
        words = policy.model.get_input_embeddings().weight
        words[policy.tokenizer.all_special_ids] = 0
        words.mul_(5)
    asked, folder = ASKED if kind == "text" else prompts[:2], saved_to_sample(policy, tmp_path / "served")
    greedy = policy.generate(asked, 1, 0.0, 10)
    with serve_for_real(folder, tmp_path / "serve.log") as (url, server):
        engines.attach(policy, EndpointEngine(url=url, model=str(folder), retries=0), 2)
        served = policy.generate(asked, 1, 0.0, 10)
        drawn = policy.generate(asked, 3, 1.0, 10, seed=1)
        server.kill()
        server.wait(10)
        with pytest.raises(WorkError, match="did not give 6 of 6 samples"):
            policy.generate(asked, 3, 1.0, 10)
    texts = [[policy.text(g[0].tokens) for g in groups] for groups in (served, greedy)]
    assert texts[0] == texts[1] and all(texts[0])
    assert len({one.tokens for group in drawn for one in group}) > 4
    assert "prompt tokens" not in capfd.readouterr().err  # the server's prompt is as long as ours
