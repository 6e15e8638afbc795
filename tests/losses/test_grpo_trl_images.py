"""GRPO on images equals TRL 1.16's GRPOTrainer: reference log-probs, advantages, loss and gradient norm of one batch.

Two prompts with an image each, TRL's samples of uneven length, the shared prefix and stored tower features on our side.
"""

import copy

import pytest
import torch
from PIL import Image
from tests.losses.test_trl_parity import assert_equal

from chexalign.judges.contract import Judgement
from chexalign.policies import Policy, Prompt
from chexalign.recipe.online import Grpo, Rollout, Watch
from chexalign.train.online import task as online_task
from chexalign.train.online.algorithms.base import advantages
from chexalign.train.online.rollout import Group, group_advantages
from chexalign.train.online.task import OnlineTask

pytestmark = pytest.mark.filterwarnings("ignore")  # TRL's own imports warn
trl = pytest.importorskip("trl", reason="TRL is not installed: parity with it is not checked")

GROUP, LONGEST, KL = 4, 24, 0.3
SCORES = [0.1, 0.9, 0.4, 0.4, 0.0, 1.0, 0.3, 0.2]


def shaken(policy: Policy) -> Policy:
    """Weights so large that an error would show."""
    with torch.no_grad():
        for parameter in policy.model.parameters():
            parameter.mul_(3.0) if parameter.dim() > 1 else None
    return policy


def recorded(completions, **_):
    return SCORES[: len(completions)]


def test_grpo_with_images_equals_trl(tiny_folder, image_folder, tmp_path):
    from datasets import Dataset

    start = tmp_path / "start"
    reference = shaken(Policy.load(tiny_folder))
    reference.save(start)
    mine = Policy.load(start)
    with torch.no_grad():  # so that the KL counts
        for i, parameter in enumerate(mine.model.parameters()):
            parameter.add_(0.02 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(i)))
    theirs = copy.deepcopy(mine.model)
    for model in (mine.model, theirs):
        model.model.vision_tower.requires_grad_(False)
    theirs.config._name_or_path = str(start)  # where TRL loads its reference from

    said = ["Findings:", "What is seen here, after cough and fever:"]
    turns = [[{"role": "user", "content": text}] for text in said]
    table = [
        {"prompt": t, "images": [Image.open(image_folder / f"{i}.png").convert("RGB")]} for i, t in enumerate(turns)
    ]
    arguments = trl.GRPOConfig(
        output_dir=str(tmp_path), report_to=[], use_cpu=True, bf16=False, per_device_train_batch_size=2 * GROUP,
        num_generations=GROUP, max_completion_length=LONGEST, gradient_checkpointing=False, seed=3, beta=KL,
        loss_type="grpo", use_bias_correction_kl=False, epsilon=0.2,
    )  # fmt: skip
    trainer = trl.GRPOTrainer(
        model=theirs, reward_funcs=recorded, args=arguments, train_dataset=Dataset.from_list(table),
        processing_class=mine.processor,
    )  # fmt: skip
    theirs.eval()
    torch.manual_seed(3)
    batch = trainer._generate_and_score_completions([trainer.train_dataset[i // GROUP] for i in range(2 * GROUP)])

    settings, groups = Grpo(kl=KL), []
    task = OnlineTask(
        mine, reference, None, online_task.OnlineSettings(settings, Rollout(max_new_tokens=LONGEST), Watch(), 0)
    )
    mine.reuse_features = reference.reuse_features = True
    lengths = batch["completion_mask"].sum(1).tolist()
    for i, text in enumerate(said):
        rows = range(i * GROUP, (i + 1) * GROUP)
        tokens = tuple(tuple(batch["completion_ids"][r, : lengths[r]].tolist()) for r in rows)
        content = [{"type": "image"}, {"type": "text", "text": text}]
        prompt = mine.processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)
        asked = Prompt(prompt, (f"{i}.png",), image_folder)
        gains, learns = group_advantages([Judgement(SCORES[r]) for r in rows], lambda x: advantages(x, settings))
        with torch.no_grad():
            old = tuple(tuple(x.tolist()) for x in mine.token_logps([asked], [tokens])[0])
        groups.append(Group(f"s{i}", asked, tokens, old, gains, learns))
    groups = task._with_logps(groups)

    assert len(set(lengths)) > 1
    assert [a for g in groups for a in g.advantages] == pytest.approx(batch["advantages"].tolist(), rel=1e-5, abs=1e-6)
    for row, length, known in zip(
        batch["ref_per_token_logps"], lengths, [r for g in groups for r in g.ref_logps], strict=True
    ):
        assert row[:length].tolist() == pytest.approx(known, abs=1e-5)
    values, metrics = task.loss(task.module(*task.inputs(groups)), groups)
    assert float(metrics["kl"].max()) > 1e-3
    assert_equal(values.mean(), mine.model, trainer._compute_loss(theirs, batch), theirs)
