"""Four kinds of tests for each loss: by hand, parity with a named reference, invariances, gradient sign.

Parity with TRL's trainers is in test_trl_parity.py; LC-DPO, which TRL lacks, is held to DPO, and SFT to torch.
"""

import math

import pytest
import torch

from chexalign import losses

LOG2 = math.log(2)


def t(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def draw(n: int = 16, seed: int = 0) -> tuple[torch.Tensor, ...]:
    """Log-probs of chosen, rejected and their references, and lengths of both."""
    g = torch.Generator().manual_seed(seed)
    logps = [-(torch.rand(n, generator=g, dtype=torch.float64) * 40 + 1) for _ in range(4)]
    lengths = [torch.randint(5, 60, (n,), generator=g).double() for _ in range(2)]
    return (*logps, *lengths)


# ---- DPO


def test_dpo_by_hand():
    # h = (-10 - -12) - (-20 - -19) = 2 + 1 = 3; beta 0.5 → -log sigmoid(1.5)
    assert losses.dpo(t(-10), t(-20), t(-12), t(-19), beta=0.5).item() == pytest.approx(-math.log(sigmoid(1.5)))


def test_dpo_is_log_2_where_policy_is_reference():
    c, r, *_ = draw()
    assert torch.allclose(losses.dpo(c, r, c, r, beta=0.3), torch.full_like(c, LOG2))


def test_dpo_is_unmoved_by_a_shift_of_policy_and_reference():
    c, r, rc, rr, *_ = draw()
    moved = losses.dpo(c - 5, r + 2, rc - 5, rr + 2, beta=0.1)
    assert torch.allclose(moved, losses.dpo(c, r, rc, rr, beta=0.1))


def test_dpo_per_example_and_in_any_order():
    c, r, rc, rr, *_ = draw()
    whole, order = losses.dpo(c, r, rc, rr, beta=0.1), torch.randperm(len(c))
    assert whole.shape == c.shape
    assert torch.equal(losses.dpo(c[order], r[order], rc[order], rr[order], beta=0.1), whole[order])


def test_dpo_pushes_chosen_up_and_rejected_down():
    c, r, rc, rr, *_ = draw()
    c.requires_grad_(True), r.requires_grad_(True)
    losses.dpo(c, r, rc, rr, beta=0.1).sum().backward()
    assert (c.grad < 0).all() and (r.grad > 0).all()
    assert torch.allclose(c.grad, -r.grad)


def test_dpo_survives_extreme_margins():
    out = losses.dpo(t(-1e4, 0), t(0, -1e4), t(0, 0), t(0, 0), beta=1.0)
    assert out.tolist() == pytest.approx([1e4, 0.0])


def test_shapes_must_agree():
    with pytest.raises(ValueError, match="same shape"):
        losses.dpo(t(1, 2), t(1), t(1), t(1), beta=0.1)


# ---- LC-DPO


def test_lc_dpo_by_hand():
    # h = 3 as above; lengths 30 and 10, alpha .01 → +0.2 outside beta
    value = losses.lc_dpo(t(-10), t(-20), t(-12), t(-19), t(30), t(10), beta=0.5, alpha=0.01)
    assert value.item() == pytest.approx(-math.log(sigmoid(1.7)))


def test_lc_dpo_without_alpha_or_length_difference_is_dpo():
    c, r, rc, rr, lc, lr = draw()
    plain = losses.dpo(c, r, rc, rr, beta=0.1)
    assert torch.equal(losses.lc_dpo(c, r, rc, rr, lc, lr, beta=0.1, alpha=0.0), plain)
    assert torch.equal(losses.lc_dpo(c, r, rc, rr, lc, lc, beta=0.1, alpha=0.01), plain)


def test_lc_dpo_pushes_less_where_the_chosen_report_is_longer():
    c = t(-10, -10).requires_grad_(True)
    losses.lc_dpo(c, t(-20, -20), t(-10, -10), t(-20, -20), t(60, 20), t(20, 60), beta=0.1, alpha=0.01).sum().backward()
    assert c.grad[0].abs() < c.grad[1].abs() and (c.grad < 0).all()


def test_lc_dpo_depends_on_the_difference_of_lengths_only():
    c, r, rc, rr, lc, lr = draw()
    moved = losses.lc_dpo(c - 5, r + 2, rc - 5, rr + 2, lc + 7, lr + 7, beta=0.1, alpha=0.01)
    assert torch.allclose(moved, losses.lc_dpo(c, r, rc, rr, lc, lr, beta=0.1, alpha=0.01))


# ---- IPO


def test_ipo_by_hand():
    # h = 3, tau = 0.5 → (3 - 1)^2
    assert losses.ipo(t(-10), t(-20), t(-12), t(-19), tau=0.5).item() == pytest.approx(4.0)


def test_ipo_where_policy_is_reference_and_at_its_target():
    c, r, *_ = draw()
    assert torch.allclose(losses.ipo(c, r, c, r, tau=0.25), torch.full_like(c, 1 / (4 * 0.25**2)))
    assert losses.ipo(t(-8), t(-20), t(-10), t(-20), tau=0.25).item() == pytest.approx(0.0)


def test_ipo_pulls_back_beyond_its_target():
    c = t(-10, 0).requires_grad_(True)  # h = 0 (below 1/(2 tau) = 1) and 10 (beyond)
    losses.ipo(c, t(-20, -20), t(-10, -10), t(-20, -20), tau=0.5).sum().backward()
    assert c.grad[0] < 0 < c.grad[1]


def test_ipo_is_unmoved_by_a_shift_of_policy_and_reference_and_mirrors_in_its_target():
    c, r, rc, rr, *_ = draw()
    whole = losses.ipo(c, r, rc, rr, tau=0.5)
    assert torch.allclose(losses.ipo(c - 5, r + 2, rc - 5, rr + 2, tau=0.5), whole)
    h = (c - rc) - (r - rr)
    assert torch.allclose(losses.ipo(c - h + (2 - h), r, rc, rr, tau=0.5), whole)  # h → 2·target − h, target 1


# ---- KTO


def test_kto_by_hand():
    # r = 2, beta .5, kl 0.4 → z .2: desirable 1 - sigmoid(1 - .2); undesirable 1 - sigmoid(.2 - 1), weighted 2
    value = losses.kto(
        t(-10, -10), t(-12, -12), torch.tensor([True, False]), torch.tensor(0.4), beta=0.5, undesirable_weight=2.0
    )
    assert value.tolist() == pytest.approx([1 - sigmoid(0.8), 2 * (1 - sigmoid(-0.8))])


def test_kto_is_half_where_policy_is_reference():
    c, *_ = draw()
    flags = torch.arange(len(c)) % 2 == 0
    assert torch.allclose(losses.kto(c, c, flags, torch.tensor(0.0), beta=0.1), torch.full_like(c, 0.5))


def test_kto_clamps_the_kl_and_gives_it_no_gradient():
    kl = torch.tensor(-3.0, requires_grad=True)
    logps = t(-10.0).requires_grad_(True)
    value = losses.kto(logps, t(-10.0), torch.tensor([True]), kl, beta=0.1)
    value.sum().backward()
    assert value.item() == pytest.approx(0.5) and kl.grad is None


def test_kto_gradient_signs():
    logps = t(-10, -10).requires_grad_(True)
    losses.kto(logps, t(-11, -11), torch.tensor([True, False]), torch.tensor(0.1), beta=0.1).sum().backward()
    assert logps.grad[0] < 0 < logps.grad[1]


def test_kto_is_unmoved_by_a_shift_of_policy_and_reference_and_by_the_order():
    c, _, rc, *_ = draw()
    flags, kl, order = torch.arange(len(c)) % 3 == 0, torch.tensor(0.7), torch.randperm(len(c))
    whole = losses.kto(c, rc, flags, kl, beta=0.1)
    assert torch.allclose(losses.kto(c - 5, rc - 5, flags, kl, beta=0.1), whole)
    assert torch.equal(losses.kto(c[order], rc[order], flags[order], kl, beta=0.1), whole[order])


def test_kto_halves_sum_to_their_weights_where_the_sides_are_equal():
    """1 − σ(x) and 1 − σ(−x) add up to 1: the same completion as desirable and as undesirable."""
    c, _, rc, *_ = draw()
    kl, yes = torch.tensor(0.7), torch.ones(len(c), dtype=torch.bool)
    both = losses.kto(c, rc, yes, kl, beta=0.1) + losses.kto(c, rc, ~yes, kl, beta=0.1)
    assert torch.allclose(both, torch.ones_like(c))


def test_kto_weights_scale_their_own_side():
    c, _, rc, *_ = draw()
    flags, kl = torch.arange(len(c)) % 2 == 0, torch.tensor(0.7)
    plain = losses.kto(c, rc, flags, kl, beta=0.1)
    weighted = losses.kto(c, rc, flags, kl, beta=0.1, desirable_weight=3.0, undesirable_weight=0.5)
    assert torch.allclose(weighted, plain * torch.where(flags, 3.0, 0.5))


# ---- ORPO


def test_orpo_by_hand():
    # mean log-probs log .5 and log .2: odds 1 and .25, log odds ratio log 4; sigmoid(log 4) = .8
    value = losses.orpo(t(4 * math.log(0.5)), t(2 * math.log(0.2)), t(4), t(2), lam=0.5)
    assert value.item() == pytest.approx(-math.log(0.5) - 0.5 * math.log(0.8))


def test_orpo_equal_sides_give_nll_plus_lam_log_2():
    c, _, _, _, lc, _ = draw()
    assert torch.allclose(losses.orpo(c, c, lc, lc, lam=2.0), -c / lc + 2 * LOG2)


def test_orpo_depends_on_averages_only():
    c, r, _, _, lc, lr = draw()
    assert torch.allclose(losses.orpo(3 * c, r, 3 * lc, lr, lam=1.0), losses.orpo(c, r, lc, lr, lam=1.0))


def test_orpo_per_example_and_in_any_order():
    c, r, _, _, lc, lr = draw()
    whole, order = losses.orpo(c, r, lc, lr, lam=1.0), torch.randperm(len(c))
    assert torch.equal(losses.orpo(c[order], r[order], lc[order], lr[order], lam=1.0), whole[order])


def test_orpo_gradient_signs_and_sure_tokens():
    c, r = t(-3, -1e-9).requires_grad_(True), t(-4, -5).requires_grad_(True)
    losses.orpo(c, r, t(10, 10), t(10, 10), lam=1.0).sum().backward()
    assert (c.grad < 0).all() and (r.grad > 0).all()
    assert torch.isfinite(c.grad).all()


# ---- SFT


def test_sft_by_hand():
    assert losses.sft(t(-10, -3), t(5, 3)).tolist() == pytest.approx([2.0, 1.0])


def test_sft_is_torchs_cross_entropy():
    logits, ids = torch.randn(3, 7, 11, dtype=torch.float64), torch.randint(11, (3, 7))
    logps = logits.log_softmax(-1).gather(2, ids[:, :, None])[:, :, 0].sum(1)
    expected = torch.nn.functional.cross_entropy(logits.transpose(1, 2), ids, reduction="none").mean(1)
    assert torch.allclose(losses.sft(logps, torch.full((3,), 7.0)), expected)


def test_sft_raises_log_probs_and_longer_completions_weigh_no_more():
    c, _, _, _, lc, _ = draw()
    assert torch.allclose(losses.sft(3 * c, 3 * lc), losses.sft(c, lc))
    c.requires_grad_(True)
    losses.sft(c, lc).sum().backward()
    assert torch.allclose(c.grad, -1 / lc)
