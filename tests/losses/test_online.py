"""Advantages, policy gradient and OraPO's weight: by hand, invariances, gradient sign."""

import math

import pytest
import torch

from chexalign import losses


def t(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def test_group_normalise_by_hand():
    # mean 2, sample sd 1
    assert losses.group_normalise(t(1, 2, 3), eps=0.0).tolist() == pytest.approx([-1, 0, 1])


def test_group_normalise_is_unmoved_by_shift_and_scale():
    rewards = t(0.1, 0.7, 0.4, 0.9)
    assert torch.allclose(losses.group_normalise(3 * rewards + 5, eps=0.0), losses.group_normalise(rewards, eps=0.0))


@pytest.mark.parametrize("normalise", [lambda r: losses.group_normalise(r, eps=1e-4), losses.rank_normalise])
def test_a_group_without_signal_gives_zeros(normalise):
    assert normalise(t(0.3, 0.3, 0.3)).tolist() == [0, 0, 0]
    assert normalise(t(0.3)).tolist() == [0]


def test_rank_normalise_by_hand_with_ties():
    # ranks 1, 2.5, 2.5, 4: mean 2.5, sample sd sqrt(4.5 / 3)
    expected = [x / math.sqrt(1.5) for x in (-1.5, 0, 0, 1.5)]
    assert losses.rank_normalise(t(-7, 0.2, 0.2, 100)).tolist() == pytest.approx(expected)


def test_rank_normalise_sees_order_only():
    assert torch.equal(losses.rank_normalise(t(1, 2, 3)), losses.rank_normalise(t(-9, 0, 1e6)))


def test_zero_reward_rate():
    assert losses.zero_reward_rate(t(0, 0, 0)) == 1.0
    assert losses.zero_reward_rate(t(0, 0.1, 0)) == 0.0


def test_clipped_surrogate_by_hand():
    # ratios 1.5 and .5 with advantage 2 and -1, eps .2; last token masked
    new, old = torch.tensor([[1.5, 1.5], [0.5, 0.5]]).log(), torch.zeros(2, 2)
    mask = torch.tensor([[1.0, 0.0], [1.0, 1.0]])
    value = losses.clipped_surrogate(new, old, torch.tensor([2.0, -1.0]), mask, clip_eps=0.2)
    assert value.flatten().tolist() == pytest.approx([-2.4, 0.0, 0.8, 0.8])


def test_clipped_surrogate_gradient_signs():
    new = torch.zeros(2, 1, requires_grad=True)
    losses.clipped_surrogate(
        new, torch.zeros(2, 1), torch.tensor([1.0, -1.0]), torch.ones(2, 1), clip_eps=0.2
    ).sum().backward()
    assert new.grad[0] < 0 < new.grad[1]


def test_masked_tokens_cannot_poison_the_sum():
    new = torch.tensor([[0.0, float("inf")]])
    value = losses.clipped_surrogate(new, torch.zeros(1, 2), torch.ones(1), torch.tensor([[1.0, 0.0]]), clip_eps=0.2)
    assert torch.isfinite(value).all()


def test_kl_k3_by_hand_and_never_negative():
    assert losses.kl_k3(torch.tensor([[0.0]]), torch.tensor([[1.0]])).item() == pytest.approx(math.e - 2)
    x, y = torch.randn(4, 7), torch.randn(4, 7)
    assert (losses.kl_k3(x, y) >= 0).all() and (losses.kl_k3(x, x) == 0).all()


def test_oracle_weight_by_hand():
    assert losses.oracle_weight(0.25, w_min=0.1, w_max=0.9, gamma=0.5) == pytest.approx(0.5)
    assert losses.oracle_weight(0.0, w_min=0.1, w_max=0.9, gamma=2) == 0.1
    assert losses.oracle_weight(1.0, w_min=0.1, w_max=0.9, gamma=2) == 0.9
    with pytest.raises(ValueError, match="zrr_ema"):
        losses.oracle_weight(1.5, w_min=0, w_max=1, gamma=1)


def test_centre_by_hand():
    assert losses.centre(t(1, 2, 6)).tolist() == [-2, -1, 3]
    assert losses.centre(t(0.1, 0.1, 0.1)).tolist() == [0, 0, 0]


def test_sequence_log_ratio_is_the_mean_over_tokens_by_hand():
    mask = torch.tensor([[1.0, 1.0, 0.0], [0.0, 0.0, 0.0]])
    new, old = torch.tensor([[0.5, 1.5, 99.0], [1.0, 1.0, 1.0]]), torch.zeros(2, 3)
    assert losses.sequence_log_ratio(new, old, mask).tolist() == [1.0, 0.0]


def test_mean_over_tokens_by_hand():
    values, mask = torch.tensor([[2.0, 4.0, 99.0]]), torch.tensor([[1.0, 1.0, 0.0]])
    assert losses.mean_over_tokens(values, mask).tolist() == [3.0]
    assert losses.mean_over_tokens(values, mask, constant=12).tolist() == [0.5]
    assert losses.mean_over_tokens(values, torch.zeros(1, 3)).tolist() == [0.0]


def test_ema_by_hand():
    assert losses.ema(0.5, 1.0, momentum=0.8) == pytest.approx(0.6)


def test_ln_dpo_by_hand_and_gradient_signs():
    # log-ratios per token: chosen 2/4, rejected -3/3 and 1/2, so differences of 1.5 and 0
    chosen, rejected = t(-8), torch.tensor([[-9.0, -4.0]], dtype=torch.float64)
    chosen.requires_grad_(), rejected.requires_grad_()
    value = losses.ln_dpo(
        chosen, t(-10), t(4), rejected, torch.tensor([[-6.0, -5.0]]), torch.tensor([[3.0, 2.0]]), beta=2.0
    )
    assert value.flatten().tolist() == pytest.approx([math.log1p(math.exp(-3)), math.log(2)])
    value.sum().backward()
    assert (chosen.grad < 0).all() and (rejected.grad > 0).all()
    # one group of one, all of length 1: plain DPO
    a, b, c, d = t(-1), t(-2), t(-4), t(-3)
    one = losses.ln_dpo(a, b, t(1), c[:, None], d[:, None], t(1)[:, None], beta=0.3)
    assert one.flatten().tolist() == pytest.approx(losses.dpo(a, c, b, d, beta=0.3).tolist())
