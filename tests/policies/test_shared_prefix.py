"""Equal before fast: the shared prefix and the stored features give the plain path's values and gradients.

Here with the built-in policy; every other family is in test_families.py.
"""

import pytest
import torch

from chexalign.policies.forward.generate import pick
from chexalign.policies.forward.logps import Prefix

COMPLETIONS = [(5, 9, 12, 2), (7, 2), (5, 5, 5, 8, 11, 30, 2)]


def plain_logps(model, prefix: Prefix, tokens) -> torch.Tensor:
    """One prompt and one completion through the model's own forward, nothing shared."""
    ids = torch.cat([prefix.ids, torch.tensor([tokens])], dim=1)
    extra = dict(prefix.extra)
    for name in ("token_type_ids", "mm_token_type_ids"):
        if name in extra:
            extra[name] = torch.cat([extra[name], torch.zeros(1, len(tokens), dtype=torch.long)], dim=1)
    logits = model(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False, **extra).logits[0]
    start = prefix.ids.shape[1] - 1
    return logits[start:-1].log_softmax(-1).gather(1, torch.tensor(tokens)[:, None])[:, 0]


def gradients(model, value: torch.Tensor) -> dict[str, torch.Tensor]:
    model.zero_grad()
    value.backward()
    return {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}


def assert_same_gradients(a, b):
    assert a.keys() == b.keys() and a
    for name in a:
        scale = max(1.0, float(b[name].abs().max()))
        assert float((a[name] - b[name]).abs().max()) <= 5e-5 * scale, name  # a key bias of Gemma 3: 3.3e-5 about 0


@pytest.mark.parametrize("stored", [False, True])
def test_llava_shared_equals_plain(policy, prompts, stored):
    if stored:
        policy.freeze(("tower",))
    shared = policy.token_logps(prompts, [COMPLETIONS] * len(prompts))
    policy.reuse_features, weights = False, iter(range(1, 100))
    total_shared, total_plain = 0.0, 0.0
    for prompt, group in zip(prompts, shared, strict=True):
        prefix = policy.encode([prompt])
        for tokens, logps in zip(COMPLETIONS, group, strict=True):
            expected = plain_logps(policy.model, prefix, tokens)
            assert torch.allclose(logps, expected, atol=1e-5)
            weight = next(weights)
            total_shared, total_plain = total_shared + weight * logps.sum(), total_plain + weight * expected.sum()
    assert_same_gradients(gradients(policy.model, total_shared), gradients(policy.model, total_plain))


def test_prompts_may_bring_different_numbers_of_completions(policy, prompts):
    groups = [COMPLETIONS[:1], COMPLETIONS, COMPLETIONS[1:]]
    out = policy.token_logps(prompts[:3], groups)
    assert [[len(x) for x in g] for g in out] == [[len(c) for c in g] for g in groups]
    alone = policy.token_logps(prompts[2:3], [[COMPLETIONS[2]]])[0][0]
    assert torch.allclose(out[2][1], alone, atol=1e-5)


@pytest.mark.parametrize("groups", [[], [[(5, 2)]] * 4])
def test_every_prompt_brings_its_own_completions(policy, prompts, groups):
    with pytest.raises(ValueError, match=f"{len(groups)} groups of completions for 2 prompts"):
        policy.token_logps(prompts[:2], groups)


def test_an_empty_completion_is_refused(policy, prompts):
    with pytest.raises(ValueError, match="empty completion"):
        policy.token_logps(prompts[:1], [[()]])


def test_stored_features_compute_each_image_once(policy, prompts, monkeypatch):
    policy.freeze(("tower",))
    calls = []
    tower = policy.part("tower")
    handle = tower.register_forward_hook(lambda *_: calls.append(1))
    policy.token_logps(prompts, [COMPLETIONS] * 5)
    first = len(calls)
    policy.token_logps(prompts, [COMPLETIONS] * 5)
    handle.remove()
    assert first == 5 and len(calls) == first


# ---- sampling


def test_sampled_logps_are_the_policys(policy, prompts):
    groups = policy.generate(prompts, 3, 1.0, 24, seed=7)
    again = policy.token_logps(prompts, [[s.tokens for s in g] for g in groups])
    for group, logps in zip(groups, again, strict=True):
        for sampled, value in zip(group, logps, strict=True):
            assert sampled.logp == pytest.approx(float(value.detach().sum()), abs=1e-3)


def test_a_sample_does_not_depend_on_its_batch(policy, prompts):
    seeds = [11, 12, 13, 14, 15]
    together = policy.generate(prompts, 2, 1.0, 24, seed=seeds)
    reverse = policy.generate(prompts[::-1], 2, 1.0, 24, seed=seeds[::-1])[::-1]
    alone = [policy.generate([p], 2, 1.0, 24, seed=[s])[0] for p, s in zip(prompts, seeds, strict=True)]
    tokens = [[[s.tokens for s in g] for g in groups] for groups in (together, reverse, alone)]
    assert tokens[0] == tokens[1] == tokens[2]
    assert len({t for g in tokens[0] for t in g}) > 5  # they do differ from each other


def test_greedy_equals_transformers_generate(policy, prompts):
    for prompt in prompts[:3]:
        prefix = policy.encode([prompt])
        theirs = policy.model.generate(
            input_ids=prefix.ids, attention_mask=prefix.mask, **prefix.extra, max_new_tokens=12, do_sample=False
        )[0, prefix.ids.shape[1] :].tolist()
        ours = policy.generate([prompt], 1, 0.0, 12)[0][0]
        assert list(ours.tokens) == theirs


def test_finish_reason_and_stop_token(policy, prompts):
    eos = policy.tokenizer.eos_token_id
    for group in policy.generate(prompts, 20, 1.0, 60, seed=3):
        for sampled in group:
            assert (sampled.tokens[-1] == eos) == (sampled.finish_reason == "stop")
            assert eos not in sampled.tokens[:-1] and len(sampled.tokens) <= 60


def test_pick_follows_the_distribution_and_top_p():
    logits = torch.tensor([0.5, 0.3, 0.15, 0.05]).log().expand(20000, 4)
    u = (torch.arange(20000, dtype=torch.float64) + 0.5) / 20000
    share = torch.bincount(pick(logits, u, 1.0, 1.0), minlength=4) / 20000
    assert share.tolist() == pytest.approx([0.5, 0.3, 0.15, 0.05], abs=1e-3)
    cut = torch.bincount(pick(logits, u, 1.0, 0.75), minlength=4) / 20000
    assert cut.tolist() == pytest.approx([0.625, 0.375, 0, 0], abs=1e-3)
    assert (pick(logits, u, 0.0, 1.0) == 0).all()
