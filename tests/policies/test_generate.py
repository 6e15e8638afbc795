"""Samples of one prompt read its keys once (policies/branches.py): the same tokens and log-probs as an expanded cache gives."""

import pytest
import torch
from tests.policies.family_models import FAMILIES
from tests.policies.test_families import opened  # noqa: F401
from torch import nn

from chexalign.policies.forward import generate
from chexalign.policies.forward.logps import encode_prefix
from chexalign.policies.forward.onednn_linear import packed
from chexalign.policies.forward.shared_prompt_cache import branch

# Sliding windows: these keep the expanded cache.
EXPANDED = {"gemma2", "gemma3", "gemma3-sliding-last", "llava-mistral"}


def expanded(monkeypatch, run):
    with monkeypatch.context() as patch:
        patch.setattr(generate, "branch", lambda *_: None)
        return run()


@pytest.mark.parametrize("name", FAMILIES)
def test_branches_equal_an_expanded_cache(opened, name, monkeypatch):  # noqa: F811
    policy, prompts = opened(name)

    def run(temperature=1.0):
        return policy.generate(prompts, 3, temperature, 70, seed=5)  # longer than a buffer's first block

    for temperature in (1.0, 0.0):
        ours, theirs = run(temperature), expanded(monkeypatch, lambda t=temperature: run(t))
        for a, b in zip([s for g in ours for s in g], [s for g in theirs for s in g], strict=True):
            assert a.tokens == b.tokens and a.finish_reason == b.finish_reason
            assert a.token_logps == pytest.approx(b.token_logps, abs=1e-5)


@pytest.mark.parametrize("name", FAMILIES)
@torch.no_grad()
def test_who_branches(opened, name):  # noqa: F811
    policy, prompts = opened(name)
    encoded = encode_prefix(policy.model, policy.encode(prompts))
    assert (branch(policy.model, encoded, 2) is None) == (name in EXPANDED)


@torch.no_grad()
def test_rows_that_ended_are_let_go(policy, prompts, monkeypatch):
    """Rows leave in any order, whole prompts too; what remains reads its own prompt."""
    kept = [0, 2, 3, 7, 8]  # of 5 prompts × 2 samples: one, two, none, one, one
    prefix = policy.encode(prompts)
    state = branch(policy.model, encode_prefix(policy.model, prefix), 2)
    other = encode_prefix(policy.model, prefix).expand(2)
    ids = torch.arange(5, 15)[:, None]
    ones = torch.ones_like(ids)
    for rows in (None, kept, [1, 2, 4]):
        if rows is not None:
            state, other = state.select(torch.tensor(rows)), other.select(torch.tensor(rows))
            ids, ones = ids[rows], ones[rows]
        for _ in range(2):
            a, b = state.read(policy.model, ids, ones), other.read(policy.model, ids, ones)
            assert torch.allclose(a, b, atol=1e-5)
    assert len(state.mask) == 2  # of five prompts


@torch.no_grad()
def test_the_comparison_can_fail(policy, prompts):
    """Another prompt's keys move the hidden states far beyond the tolerance."""
    prefix = policy.encode(prompts[:2])
    ids, ones = torch.tensor([[5], [5]]), torch.ones(2, 1, dtype=torch.long)
    state = branch(policy.model, encode_prefix(policy.model, prefix), 1)
    right = state.read(policy.model, ids, ones)
    state = branch(policy.model, encode_prefix(policy.model, prefix), 1)
    for layer in state.parts:
        layer.prompt = tuple(x.flip(0) for x in layer.prompt)
    assert not torch.allclose(right, state.read(policy.model, ids, ones), atol=1e-3)


# ---- linear layers for few rows


@torch.no_grad()
def test_packed_layers_give_the_same_values_and_are_left_as_they_were():
    torch.manual_seed(0)
    layers = nn.ModuleList([nn.Linear(48, 96), nn.Linear(96, 33, bias=False)])
    for rows in (1, 3, 64):
        hidden = torch.randn(rows, 1, 48)
        expected = layers[1](layers[0](hidden))
        with packed(layers, 3):
            assert "forward" in vars(layers[0]) and "forward" in vars(layers[1])
            assert torch.allclose(layers[1](layers[0](hidden)), expected, atol=1e-6)
        assert "forward" not in vars(layers[0])
        assert torch.equal(layers[1](layers[0](hidden)), expected)


@torch.no_grad()
def test_who_is_packed():
    layer, wide, half = nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 8).bfloat16()
    with packed([layer, half], 3):
        assert "forward" in vars(layer) and "forward" not in vars(half)
    with packed([wide], 65):
        assert "forward" not in vars(wide)
    with torch.autocast("cpu", torch.bfloat16), packed([wide], 3):
        assert "forward" not in vars(wide)


def test_weights_that_have_moved_are_packed_anew(policy, prompts):
    before = policy.generate(prompts[:1], 2, 1.0, 8, seed=1)[0]
    with torch.no_grad():
        for parameter in policy.model.parameters():
            parameter.mul_(1.5)
    after = policy.generate(prompts[:1], 2, 1.0, 8, seed=1)[0]
    again = policy.token_logps(prompts[:1], [[s.tokens for s in after]])[0]
    for sampled, known, old in zip(after, again, before, strict=True):
        assert sampled.token_logps == pytest.approx(known.tolist(), abs=1e-5)
        assert sampled.token_logps != pytest.approx(old.token_logps, abs=1e-3)
