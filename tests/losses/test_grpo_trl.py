"""Parity with TRL 1.16's GRPOTrainer, run for real on a tiny Llama: advantages, loss and gradient norm of one batch.

TRL samples, scores and normalises; its completions and its rewards are given to our task, which must find the same
advantages, loss and gradient. `old_per_token_logps` are another model's, so that ratios differ from 1 and some are clipped.
Variants named as TRL names them (TRL's default loss_type is `dapo`, which averages over the tokens of a batch and is not here):
- `loss_type="grpo"`, `scale_rewards="group"`: our defaults (`average: sequence`, `scale: group`).
- `loss_type="dr_grpo"`, `scale_rewards="none"`: `average: constant`, `scale: none`.
- `loss_type="grpo"`, `importance_sampling_level="sequence"`: GSPO's ratio, `ratio: sequence`.
KL: k3 as GRPO's paper has it, `use_bias_correction_kl=False`; TRL's default multiplies it by the ratio.
An unscored sample (None) has advantage 0 in both. TRL keeps it in the KL term, ours masks it out, so it is compared at kl 0.
"""

import copy

import pytest
import torch
from tests.losses.test_trl_parity import assert_equal, policy, tiny_llama, tokenizer

from chexalign.judges.contract import Judgement
from chexalign.policies import Prompt
from chexalign.recipe.online import Grpo, Rollout, Watch
from chexalign.train.online import task as online_task
from chexalign.train.online.algorithms.base import advantages
from chexalign.train.online.rollout import Group, group_advantages
from chexalign.train.online.task import OnlineTask

pytestmark = pytest.mark.filterwarnings("ignore")  # TRL's own imports warn
trl = pytest.importorskip("trl", reason="TRL is not installed: parity with it is not checked")

PROMPTS, SAMPLES, LONGEST = ["w1 w2 w3", "w10 w11"], 4, 12
SCORES = [0.1, 0.9, 0.4, 0.4, 0.0, 1.0, 0.3, 0.2]


class Recorded:
    def __init__(self, scores):
        self.scores, self.__name__ = scores, "recorded"

    def __call__(self, completions, **_):
        assert len(completions) == len(self.scores)
        return self.scores


def their_batch(model, scores, folder, **options):
    """A trainer and the batch that it sampled, scored and normalised itself."""
    from datasets import Dataset

    if options["beta"]:  # TRL loads its reference from where the model says it is from
        tiny_llama(1).save_pretrained(folder / "reference")
        model.config._name_or_path = str(folder / "reference")
    rows = Dataset.from_list([{"prompt": p} for p in PROMPTS])
    arguments = trl.GRPOConfig(
        output_dir=str(folder), report_to=[], use_cpu=True, bf16=False, per_device_train_batch_size=8, epsilon=0.2,
        num_generations=SAMPLES, max_completion_length=LONGEST, gradient_checkpointing=False, seed=3,
        use_bias_correction_kl=False, **options,
    )  # fmt: skip
    trainer = trl.GRPOTrainer(
        model=model, reward_funcs=Recorded(scores), args=arguments, train_dataset=rows, processing_class=tokenizer()
    )
    model.eval()
    torch.manual_seed(3)
    batch = trainer._generate_and_score_completions([{"prompt": p} for p in PROMPTS for _ in range(SAMPLES)])
    with torch.no_grad():
        prompt_and_completion = [
            torch.cat([batch[f"prompt_{k}"], batch[f"completion_{k}"]], 1) for k in ("ids", "mask")
        ]
        batch["old_per_token_logps"], *_ = trainer._get_per_token_logps_and_entropies(
            moved(model), *prompt_and_completion, batch["completion_ids"].shape[1]
        )
    return trainer, batch


def moved(model):
    """The model a little away from itself."""
    other = copy.deepcopy(model)
    with torch.no_grad():
        for i, parameter in enumerate(other.parameters()):
            noise = torch.randn(parameter.shape, generator=torch.Generator().manual_seed(i))
            parameter.add_(0.02 * noise)
    return other


def our_groups(batch, scores, settings) -> list[Group]:
    def rows(name):
        lengths = batch["completion_mask"].sum(1).tolist()
        return [tuple(r[:n]) for r, n in zip(batch[name].tolist(), lengths, strict=True)]

    groups = []
    for i, prompt in enumerate(PROMPTS):
        mine = slice(i * SAMPLES, (i + 1) * SAMPLES)
        answers = [Judgement(s, None if s is not None else "unreadable") for s in scores[mine]]
        gains, kept = group_advantages(answers, lambda r: advantages(r, settings))
        ids, old = rows("completion_ids")[mine], rows("old_per_token_logps")[mine]
        known = tuple(rows("ref_per_token_logps")[mine]) if "ref_per_token_logps" in batch else None
        groups.append(Group(prompt, Prompt(prompt), tuple(ids), tuple(old), gains, kept, ref_logps=known))
    return groups


@pytest.mark.parametrize(
    ("options", "settings", "scores"),
    [
        ({"loss_type": "grpo", "beta": 0.3}, Grpo(kl=0.3), SCORES),
        ({"loss_type": "grpo", "beta": 0.0}, Grpo(kl=0), [None, *SCORES[1:]]),
        (
            {"loss_type": "dr_grpo", "beta": 0.3, "scale_rewards": "none"},
            Grpo(kl=0.3, scale="none", average="constant"),
            SCORES,
        ),
        (
            {"loss_type": "grpo", "beta": 0.0, "importance_sampling_level": "sequence"},
            Grpo(kl=0, ratio="sequence"),
            SCORES,
        ),
        ({"loss_type": "grpo", "beta": 0.3, "temperature": 0.7}, Grpo(kl=0.3), SCORES),
    ],
    ids=["grpo", "grpo with an unscored sample", "dr_grpo", "gspo", "grpo at temperature .7"],
)
def test_grpo_equals_trl(options, settings, scores, tmp_path):
    model = tiny_llama(0)
    mine = copy.deepcopy(model)
    trainer, batch = their_batch(model, scores, tmp_path, **options)
    groups = our_groups(batch, scores, settings)
    gains = [a for g in groups for a in g.advantages]
    assert gains == pytest.approx(batch["advantages"].tolist(), rel=1e-5, abs=1e-6)

    rollout = Rollout(max_new_tokens=LONGEST, temperature=options.get("temperature", 1.0))
    task = OnlineTask(policy(mine), None, None, online_task.OnlineSettings(settings, rollout, Watch(), 0))
    values, metrics = task.loss(task.module(*task.inputs(groups)), groups)
    assert_equal(values.mean(), mine, trainer._compute_loss(model, batch), model)
    clipped = trainer._metrics["eval"]["clip_ratio/region_mean"][-1]
    if settings.ratio == "token":
        assert 0.02 < clipped < 0.9  # so that the clip counts
        tokens = batch["completion_mask"].view(2, -1).sum(1) * (1.0 if None not in scores else 0)
        if None not in scores:
            assert float((metrics["clip_share"] * tokens).sum() / tokens.sum()) == pytest.approx(clipped, rel=1e-4)
            assert float((metrics["kl"] * tokens).sum() / tokens.sum()) == pytest.approx(
                trainer._metrics["eval"]["kl"][-1], rel=1e-4
            )
