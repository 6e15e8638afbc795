"""What the table binds: which form of a loss an algorithm uses, its NLL term, and what it reports."""

import math

import pytest
import torch

from chexalign.recipe.preference import Dpo, Ipo, Kto, LcDpo, Orpo, Sft
from chexalign.train.preference.algorithms import ALGORITHMS, Batch

LENGTHS = [[4.0, 2.0], [5.0, 10.0]]
POLICY = [[-10.0, -20.0], [-30.0, -8.0]]
REFERENCE = [[-12.0, -19.0], [-29.0, -10.0]]  # h = 2 + 1 = 3 and -1 - 2 = -3


def batch(**changes) -> Batch:
    parts = {"logps": POLICY, "lengths": LENGTHS, "ref_logps": REFERENCE, **changes}
    return Batch(**{k: torch.tensor(v, dtype=torch.float64, requires_grad=k == "logps") for k, v in parts.items()})


def value(settings, seen: Batch) -> list[float]:
    return ALGORITHMS[settings.type].loss(seen, settings)[0].tolist()


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def test_ipo_on_sums_and_on_averages_by_hand():
    tau = 0.5  # target 1
    assert value(Ipo(tau=tau, average_log_prob=False), batch()) == pytest.approx([(3 - 1) ** 2, (-3 - 1) ** 2])
    averaged = [2 / 4 + 1 / 2, -1 / 5 - 2 / 10]
    assert value(Ipo(tau=tau, average_log_prob=True), batch()) == pytest.approx([(h - 1) ** 2 for h in averaged])


def test_averaged_ipo_is_summed_ipo_where_completions_are_one_token():
    one = batch(lengths=[[1.0, 1.0], [1.0, 1.0]])
    assert value(Ipo(average_log_prob=True), one) == value(Ipo(average_log_prob=False), one)


def test_the_nll_term_is_the_mean_per_token_of_the_chosen_report():
    nll = [10 / 4, 30 / 5]
    for plain, with_term in ((Dpo(), Dpo(nll=0.3)), (Kto(), Kto(nll=0.3))):
        seen = batch(kl=0.4)
        more = [b - a for a, b in zip(value(plain, seen), value(with_term, seen), strict=True)]
        assert more == pytest.approx([0.3 * x for x in nll])
        loss, metrics = ALGORITHMS[with_term.type].loss(seen, with_term)
        assert metrics["nll"].tolist() == pytest.approx(nll)
        plain_loss, _ = ALGORITHMS[plain.type].loss(seen, plain)
        gradient = [torch.autograd.grad(x.sum(), seen.logps)[0] for x in (loss, plain_loss)]
        expected = torch.tensor([[-0.3 / 4, 0], [-0.3 / 5, 0]], dtype=torch.float64)
        assert torch.allclose(gradient[0] - gradient[1], expected)


def test_kto_is_the_mean_of_a_pairs_two_examples_by_hand():
    settings = Kto(beta=0.5, desirable_weight=1.5, undesirable_weight=0.5)
    z, found = 0.5 * 0.4, value(settings, batch(kl=0.4))
    rewards = [(0.5 * 2, 0.5 * -1), (0.5 * -1, 0.5 * 2)]
    assert found == pytest.approx(
        [(1.5 * (1 - sigmoid(good - z)) + 0.5 * (1 - sigmoid(z - bad))) / 2 for good, bad in rewards]
    )
    _, metrics = ALGORITHMS["kto"].loss(batch(kl=-0.4), settings)
    assert metrics["kl"].tolist() == pytest.approx([-0.4, -0.4])  # what was estimated, before the clamp


def test_what_only_gives_the_kl_does_not_change_kto_otherwise():
    free = [[*row, -50.0, -60.0] for row in POLICY]
    wide = batch(
        logps=free, ref_logps=[[*r, -1.0, -2.0] for r in REFERENCE], lengths=[[*x, 9.0, 9.0] for x in LENGTHS], kl=0.4
    )
    loss, metrics = ALGORITHMS["kto"].loss(wide, Kto(nll=0.1))
    assert loss.tolist() == pytest.approx(value(Kto(nll=0.1), batch(kl=0.4)))
    loss.sum().backward()
    assert (wide.logps.grad[:, 2:] == 0).all() and (wide.logps.grad[:, :2] != 0).all()


@pytest.mark.parametrize("settings", [Sft(), Dpo(nll=0.1), LcDpo(), Ipo(), Kto(nll=0.1), Orpo()], ids=lambda s: s.type)
def test_values_and_metrics_are_per_example_and_detached(settings):
    loss, metrics = ALGORITHMS[settings.type].loss(batch(kl=0.4), settings)
    assert loss.shape == (2,) and loss.requires_grad
    assert all(m.shape == (2,) and not m.requires_grad for m in metrics.values())
