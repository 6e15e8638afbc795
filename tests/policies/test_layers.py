"""What is left out of the decoder's work changes no value and no gradient: last layer, recomputation, free completions."""

from contextlib import nullcontext

import pytest
import torch
from tests.policies.test_shared_prefix import COMPLETIONS, assert_same_gradients, gradients

from chexalign.policies.forward import logps
from chexalign.policies.forward.layers import decoder_layers
from chexalign.policies.forward.logps import Scoring, completion_logps, inner_model


@pytest.fixture
def scored(policy, prompts):
    """f(**settings) → (log-probs, gradients) of three prompts with three completions each, weighted unevenly."""
    prefix = policy.encode(prompts[:3])
    ids, mask = policy.pad_completions(COMPLETIONS * 3)

    def score(**settings):
        values = completion_logps(policy.model, prefix, ids, mask, Scoring(**settings))
        weights = torch.arange(1.0, len(values) + 1)[:, None]
        return values.detach(), gradients(policy.model, (values * weights).sum())

    return score


def same(a, b):
    assert torch.allclose(a[0], b[0], atol=1e-5)
    assert_same_gradients(a[1], b[1])


def test_the_last_layer_skips_the_prompt_and_nothing_changes(scored, policy, monkeypatch):
    seen = []
    last = decoder_layers(inner_model(policy.model)[0])[-1]
    last.mlp.register_forward_hook(lambda _, inputs, __: seen.append(inputs[0].shape[1]))
    skipped = scored()
    assert seen[0] == 1  # the prompt's last token alone
    monkeypatch.setattr(logps, "last_token_only", lambda core: nullcontext())
    seen.clear()
    whole = scored()
    assert seen[0] > 1
    same(skipped, whole)


def test_recomputation_changes_nothing_and_keeps_less(scored, policy):
    kept = []

    def pack(tensor):
        kept.append(tensor.numel())
        return tensor

    sums, found = [], []
    for checkpointing in (False, True):
        kept.clear()
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
            found.append(scored(checkpointing=checkpointing))
        sums.append(sum(kept))
    same(*found)
    assert sums[1] < 0.75 * sums[0]
    assert "forward" not in vars(decoder_layers(inner_model(policy.model)[0])[0])  # nothing is left behind


def test_chunks_of_logits_change_nothing(scored, monkeypatch):
    whole = scored()
    monkeypatch.setattr(logps, "CHUNK_LOGITS", 320 * 5)
    same(scored(), whole)


def test_logits_exist_a_chunk_at_a_time_in_the_backward_pass_too(policy, prompts, monkeypatch):
    monkeypatch.setattr(logps, "CHUNK_LOGITS", 320 * 4)
    sizes = []

    def pack(tensor):
        sizes.append(tensor.shape)
        return tensor

    ids, mask = policy.pad_completions(COMPLETIONS)
    prefix, vocabulary = policy.encode(prompts[:1]), len(policy.tokenizer)
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
        completion_logps(policy.model, prefix, ids, mask)
    assert not [s for s in sizes if len(s) == 2 and s[1] >= vocabulary and s[0] not in (vocabulary, s[1])]


def test_free_completions_are_scored_without_gradient(policy, prompts):
    """Two learnt and one free completion per prompt: values as ever, gradients of the learnt ones alone."""
    prefix = policy.encode(prompts[:2])
    ids, mask = policy.pad_completions(COMPLETIONS * 2)
    mixed = completion_logps(policy.model, prefix, ids, mask, Scoring(kl_completions=1))
    whole = completion_logps(policy.model, prefix, ids, mask)
    assert torch.allclose(mixed, whole, atol=1e-5)
    learnt = torch.tensor([True, True, False] * 2)
    assert_same_gradients(gradients(policy.model, mixed.sum()), gradients(policy.model, whole[learnt].sum()))
    everything = completion_logps(policy.model, prefix, ids, mask, Scoring(kl_completions=3))
    assert not everything.requires_grad and torch.allclose(everything, whole, atol=1e-5)
