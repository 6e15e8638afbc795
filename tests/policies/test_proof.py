"""The fast path is compared with the model's own forward, and left where it is wrong."""

import pytest
import torch
from tests.policies import family_models
from tests.policies.test_families import SEEING, prompt
from tests.policies.test_shared_prefix import assert_same_gradients, gradients

from chexalign.policies import Policy
from chexalign.policies.forward import generate, logps, tower_features
from chexalign.policies.proof import disagreement, take_plain_path

TOKENS = (5, 9, 12, 7, 2)
STORED = ["llava-llama", "qwen2.5-vl", "qwen3-vl", "gemma3", "idefics3", "smolvlm"]


@pytest.mark.parametrize("name", [*SEEING, "llama", "mamba", "gpt2"])
def test_every_family_passes(name, tmp_path, image_folder):
    policy = Policy.load(family_models.write(name, tmp_path / name))
    flags = [p.requires_grad for p in policy.model.parameters()]
    images = (0,) if name in SEEING else ()
    assert disagreement(policy, prompt(policy, image_folder, images, 2), TOKENS) is None
    assert [p.requires_grad for p in policy.model.parameters()] == flags and not policy.reuse_features


def broken_stand_in(monkeypatch):
    own = tower_features._encoder_output

    def off(core, features, grid):
        return own(core, [f * 1.1 for f in features], grid)

    monkeypatch.setattr(tower_features, "_encoder_output", off)


def failing_stand_in(monkeypatch):
    def fails(*_):
        raise ValueError("not enough values to unpack (expected 4, got 2)")

    monkeypatch.setattr(tower_features, "_encoder_output", fails)


def broken_sampler(monkeypatch):
    own = generate.branch

    def off(model, encoded, n):
        state = own(model, encoded, n)
        state.mask = state.mask * 0 + 1
        state.last = state.last * 1.5
        return state

    monkeypatch.setattr(generate, "branch", off)


def broken_gradients(monkeypatch):
    own = logps.encode_prefix

    def cut(*arguments):
        encoded = own(*arguments)
        return encoded.copy()  # a detached cache: the same values, no gradient through the prompt

    monkeypatch.setattr(logps, "encode_prefix", cut)


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (broken_stand_in, "it is off in log-probs by"),
        (failing_stand_in, "it fails: ValueError: not enough values"),
        (broken_sampler, "the sampler's log-probs by"),
        (broken_gradients, "it is off in gradients by"),
    ],
)
def test_each_damage_is_seen(damage, said, tmp_path, image_folder, monkeypatch):
    policy = Policy.load(family_models.write("llava-llama", tmp_path / "model"))
    shown = prompt(policy, image_folder, (0,), 2)
    damage(monkeypatch)
    assert said in disagreement(policy, shown, TOKENS)


@pytest.mark.parametrize("name", STORED)
def test_a_policy_that_falls_back_does_what_a_plain_one_does(name, tmp_path, image_folder, monkeypatch):
    folder, found = family_models.write(name, tmp_path / name), []
    share = name.startswith("qwen")  # their patches do not come one row per prompt: without stored features, no further
    for broken in (False, True):
        policy = Policy.load(folder)
        shown = prompt(policy, image_folder, (0,), 2)
        if broken:
            failing_stand_in(monkeypatch)
            assert disagreement(policy, shown, TOKENS) and disagreement(policy, shown, TOKENS, stored=False) is None
        take_plain_path(policy, share)
        policy.reuse_features = True  # asked for, and not done
        rows = policy.token_logps([shown], [[TOKENS, TOKENS[2:]]])[0]
        drawn = policy.generate([shown], 2, 1.0, 10, seed=3)
        found.append((rows, drawn, gradients(policy.model, sum(r.sum() for r in rows))))
    (rows, drawn, wanted), (others, again, got) = found
    assert all(torch.equal(a, b) for a, b in zip(rows, others, strict=True)) and drawn == again
    assert_same_gradients(got, wanted)
