"""Engines behind `Policy.generate`: what they draw gets the scorer's log-probs, and what does not fit is refused.

`StandIn` is a stand-in for the package vllm with its API's shape: it samples with our own sampler from a copy of the
checkpoint, and records what it is asked. Nothing here has run vLLM itself.
"""

import sys
from types import SimpleNamespace

import pytest
import torch

from chexalign.errors import RecipeError, WorkError
from chexalign.policies import Policy, engines
from chexalign.policies.engines.rescore import EngineSample, ended, rescored
from chexalign.policies.engines.vllm import plain_weights
from chexalign.policies.trainable import make_trainable
from chexalign.recipe.engine import InProcess, VllmEngine
from chexalign.recipe.files import build_recipe
from chexalign.recipe.policy import Lora
from chexalign.recipe.recipe import Recipe


class StandIn:
    """In place of `vllm.LLM`: holds its own copy of the checkpoint, which only `apply_model` changes."""

    def __init__(self, **options):
        self.options, self.calls = options, []
        self.policy = Policy.load(options["model"])
        self.asleep = False

    def apply_model(self, function):
        self.calls.append("apply_model")
        return [function(self)]

    def load_weights(self, weights):
        own = dict(self.policy.model.named_parameters())
        for name, value in weights:
            own[name].data.copy_(value)
        return {name for name, _ in weights}

    def reset_prefix_cache(self):
        self.calls.append("reset_prefix_cache")

    def sleep(self, level):
        self.asleep = True
        self.calls.append(f"sleep {level}")

    def wake_up(self):
        self.asleep = False
        self.calls.append("wake_up")

    def generate(self, inputs, params, use_tqdm):
        assert not self.asleep
        self.calls.append("generate")
        self.inputs, self.params = inputs, params
        answers = []
        for prompt, asked in zip(self.prompts, params, strict=True):
            drawn = self.policy.generate(
                [prompt], asked["n"], asked["temperature"], asked["max_tokens"], [asked["seed"]], asked["top_p"]
            )[0]
            rows = [
                SimpleNamespace(
                    index=j,
                    token_ids=list(one.tokens),
                    finish_reason=one.finish_reason,
                    logprobs=[
                        {t: SimpleNamespace(logprob=v)} for t, v in zip(one.tokens, one.token_logps, strict=True)
                    ],
                )
                for j, one in enumerate(drawn)
            ]
            answers.append(SimpleNamespace(outputs=rows[::-1]))
        return answers


@pytest.fixture
def vllm(monkeypatch):
    monkeypatch.setenv("VLLM_ENABLE_V1_MULTIPROCESSING", "1")
    monkeypatch.setitem(sys.modules, "vllm", SimpleNamespace(LLM=StandIn, SamplingParams=lambda **named: named))


def attached(policy, prompts, **settings) -> StandIn:
    engines.attach(policy, VllmEngine(type="vllm", **settings), 2)
    policy.engine.llm.prompts = prompts
    return policy.engine.llm


def moved(policy) -> None:
    with torch.no_grad():
        for parameter in policy.model.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))


def test_vllm_is_asked_in_its_own_words_and_its_samples_get_the_scorers_log_probs(policy, prompts, vllm):
    llm = attached(policy, prompts)
    assert llm.options["model"] == policy.model.name_or_path and llm.options["dtype"] == "float32"
    assert llm.options["logprobs_mode"] == "raw_logprobs" and llm.options["limit_mm_per_prompt"] == {"image": 2}
    groups = policy.generate(prompts, 3, 0.8, 12, seed=list(range(2**40, 2**40 + 5)), top_p=0.9)
    first = llm.params[0]
    assert {k: first[k] for k in ("n", "temperature", "top_p", "max_tokens", "logprobs")} == {
        "n": 3, "temperature": 0.8, "top_p": 0.9, "max_tokens": 12, "logprobs": 0,
    }  # fmt: skip
    assert first["stop_token_ids"] == sorted(policy.stop_ids) and 0 <= first["seed"] < 2**31
    for prompt, row in zip(prompts, llm.inputs, strict=True):
        assert len(row["multi_modal_data"]["image"]) == len(prompt.images)
        image = policy.tokenizer.convert_tokens_to_ids(policy.processor.image_token)
        assert row["prompt_token_ids"].count(image) == len(prompt.images)  # vLLM widens them
        assert row["prompt_token_ids"].count(policy.tokenizer.bos_token_id) <= 1
    expected = policy.token_logps(prompts, [[s.tokens for s in g] for g in groups])
    for group, rows in zip(groups, expected, strict=True):
        assert len(group) == 3
        for one, row in zip(group, rows, strict=True):
            assert one.token_logps == pytest.approx(row.tolist(), abs=1e-6) and one.logp == sum(one.token_logps)


def test_old_weights_are_noticed_and_a_push_mends_it(policy, prompts, vllm):
    llm = attached(policy, prompts)
    moved(policy)
    with pytest.raises(WorkError, match="nats per token away from this policy's"):
        policy.generate(prompts, 2, 1.0, 8, seed=0)
    policy.engine.push()
    assert llm.calls[-2:] == ["apply_model", "reset_prefix_cache"]
    there, policy.engine = policy.generate(prompts, 1, 0.0, 8, seed=0), None
    here = policy.generate(prompts, 1, 0.0, 8, seed=0)
    assert [g[0].tokens for g in here] == [g[0].tokens for g in there]


def test_a_sleeping_engine_is_woken_for_weights_and_for_work(policy, prompts, vllm):
    llm = attached(policy, prompts, sleep=True, gpu_share=0.3, max_model_len=900)
    assert llm.options["enable_sleep_mode"] and llm.options["gpu_memory_utilization"] == 0.3
    assert llm.options["max_model_len"] == 900
    policy.engine.push()
    policy.generate(prompts, 2, 1.0, 4, seed=0)
    assert llm.calls == ["sleep 1", "wake_up", "apply_model", "reset_prefix_cache", "generate", "sleep 1"]


def test_adapters_are_pushed_merged_and_the_base_is_put_back_bit_by_bit(policy, prompts, vllm):
    make_trainable(policy, ("tower", "projector"), Lora(r=4), seed=0)
    with torch.no_grad():
        for name, parameter in policy.model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.2)
    before = {n: p.clone() for n, p in policy.model.named_parameters()}
    attached(policy, prompts)
    policy.generate(prompts, 2, 1.0, 8, seed=1)  # raises unless vLLM has the merged weights
    assert all(torch.equal(p, before[n]) for n, p in policy.model.named_parameters())
    names = {n for n, _ in Policy.load(policy.model.name_or_path).model.named_parameters()}
    with plain_weights(policy.model) as weights:
        assert {n for n, _ in weights} == names


def test_what_vllm_needs_is_said(policy, monkeypatch):
    monkeypatch.setitem(sys.modules, "vllm", None)
    monkeypatch.setenv("VLLM_ENABLE_V1_MULTIPROCESSING", "1")
    with pytest.raises(RecipeError, match="needs the package vllm and a GPU"):
        engines.attach(policy, VllmEngine(type="vllm"), 1)
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(RecipeError, match="serves one process"):
        engines.attach(policy, VllmEngine(type="vllm"), 1)


def test_in_process_is_the_default_and_no_engine(policy):
    engines.attach(policy, Recipe(name="x", studies={"source": "phantom"}, warmup={}).sample.engine, 1)
    engines.attach(policy, InProcess(), 1)
    assert policy.engine is None


def test_endings():
    stops = frozenset({1, 2})
    assert ended([5, 1], "stop", stops, 2) == (5, 1)
    assert ended([5], "stop", stops, 2) == (5, 2) and ended([], "stop", stops, 2) == (2,)
    assert ended([5], "length", stops, 2) == (5,)
    for tokens, reason in (([], "length"), ([5], "abort"), ([5], None)):
        with pytest.raises(WorkError):
            ended(tokens, reason, stops, 2)


def test_log_probs_of_another_policy_are_refused_and_small_differences_are_not(policy, prompts):
    drawn = policy.generate(prompts[:2], 2, 1.0, 10, seed=3)

    def as_engine(shift):
        groups = [
            [EngineSample(s.tokens, s.finish_reason, tuple(v + shift for v in s.token_logps)) for s in g] for g in drawn
        ]
        return rescored(policy, prompts[:2], groups, name="E", sampled=True)

    for mine, theirs in zip(drawn, as_engine(0.05), strict=True):
        for a, b in zip(mine, theirs, strict=True):
            assert a.tokens == b.tokens and a.token_logps == pytest.approx(b.token_logps, abs=2e-5)
    with pytest.raises(WorkError, match=r"E: its log-probs are 0\.20 nats per token away"):
        as_engine(0.2)


def test_one_and_the_same_report_at_temperature_1_is_refused(policy, prompts):
    tokens = policy.generate(prompts[:1], 1, 1.0, 12, seed=0)[0][0].tokens
    groups = [[EngineSample(tokens, "length")] * 4 for _ in prompts]
    with pytest.raises(WorkError, match="decodes greedily whatever the temperature"):
        rescored(policy, prompts, groups, name="E", sampled=True)
    assert len(rescored(policy, prompts, groups, name="E", sampled=False)) == len(prompts)


SERVED = {"type": "endpoint", "url": "u", "model": "m"}
ONLINE = {"algorithm": "grpo", "reward": "rouge_l"}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"train": {**ONLINE, "rollout": {"engine": SERVED}}}, "off-policy"),
        ({"evaluate": {"engine": SERVED}}, "it holds one checkpoint"),
        ({"sample": {"engine": {"type": "endpoint", "url": "u"}}}, "key 'sample.engine.model' is missing"),
        (
            {"sample": {"engine": {"type": "vllm", "gpu_shar": 1}}},
            "'sample.engine.gpu_shar'; did you mean 'gpu_share'?",
        ),
        ({"sample": {"engine": {"type": "sglang"}}}, "'process', 'endpoint', 'vllm'"),
    ],
)
def test_a_wrong_engine_gets_one_clear_line(changes, message):
    with pytest.raises(RecipeError) as error:
        build_recipe({"name": "x", "studies": {"source": "phantom"}, "warmup": {}, **changes}, "r.yaml")
    assert message in str(error.value)
