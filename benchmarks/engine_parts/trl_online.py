"""TRL's GRPOTrainer, whole and unchanged, run one optimizer step at a time, with its phases timed."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from datasets import Dataset
from PIL import Image
from trl import GRPOConfig, GRPOTrainer

from engine_parts.setting import LR, SPECIAL, Case, model, processor
from engine_parts.turns import InTurns

TEMPLATE = (
    "{% for message in messages %}{% if message['content'] is string %}{{ message['content'] }}{% else %}"
    "{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<image> {% else %}{{ part['text'] }}{% endif %}"
    "{% endfor %}{% endif %}{% endfor %}"
)
NEVER_SAMPLED = [SPECIAL.index(token) for token in ("<pad>", "</s>", "<image>")]  # so that completions are equally long


class _Timed(GRPOTrainer):
    """Seconds of each call of the two phases; what is done in them is TRL's own."""

    phases: dict[str, list[float]]
    batch: Any

    def _generate(self, *arguments: Any, **named: Any) -> Any:
        start = time.perf_counter()
        made = super()._generate(*arguments, **named)
        self.phases["rollout"].append(time.perf_counter() - start)
        return made

    def _generate_and_score_completions(self, *arguments: Any, **named: Any) -> Any:
        start = time.perf_counter()
        self.batch = super()._generate_and_score_completions(*arguments, **named)
        self.phases["round"].append(time.perf_counter() - start)
        return self.batch


def reward_of(text: str) -> float:
    """Share of a text's words whose number is even: cheap, and different for every sample."""
    words = [w for w in text.split() if w[1:].isdigit()]
    return sum(int(w[1:]) % 2 == 0 for w in words) / max(1, len(words))


def rewards(completions: Sequence[Any], **_: Any) -> list[float | None]:
    return [reward_of(c if isinstance(c, str) else c[0]["content"]) for c in completions]


class TrlOnline(InTurns):
    """`step()` runs one step and returns its seconds, and `phases` those of rollout and round (rollout, rewards, reference)."""

    def __init__(
        self,
        case: Case,
        data: list[dict[str, Any]],
        folder: Path,
        steps: int,
        *,
        beta: float,
        group: int,
        length: int,
        inner: int = 1,
        checkpointing: bool = False,
    ):
        super().__init__()
        self.policy = model(case)
        if beta:  # TRL loads its reference from where the model says it is from
            self.policy.save_pretrained(folder / "start")
            self.policy.config._name_or_path = str(folder / "start")
        self.policy.model.vision_tower.requires_grad_(False)
        prepared = processor(case)
        prepared.chat_template = TEMPLATE
        arguments = GRPOConfig(
            output_dir=str(folder / "trl"),
            per_device_train_batch_size=group,
            num_generations=group,
            num_iterations=inner,
            max_completion_length=length,
            max_steps=steps,
            learning_rate=LR,
            lr_scheduler_type="constant",
            beta=beta,
            loss_type="grpo",
            scale_rewards="group",
            use_bias_correction_kl=False,
            epsilon=0.2,
            temperature=1.0,
            top_p=1.0,
            top_k=0,
            generation_kwargs={"suppress_tokens": NEVER_SAMPLED},
            report_to=[],
            logging_steps=10**6,
            save_strategy="no",
            use_cpu=True,
            bf16=False,
            gradient_checkpointing=checkpointing,
            disable_tqdm=True,
            shuffle_dataset=False,
        )
        table = [
            {
                "images": [Image.open(folder / n).convert("RGB") for n in r["names"]],
                "prompt": [{"role": "user", "content": r["prompt"].replace("<image> ", "")}],
            }
            for r in data
        ]
        self.trainer: Any = _Timed(
            model=self.policy,
            reward_funcs=rewards,
            args=arguments,
            train_dataset=Dataset.from_list(table),
            processing_class=prepared,
            callbacks=[self.turns],
        )
        self.phases: dict[str, list[float]] = {"rollout": [], "round": []}
        self.trainer.phases = self.phases
        self.trainer.batch = None

    def lengths(self) -> list[float]:
        """Of the last round's completions, in tokens."""
        return self.trainer.batch["completion_mask"].sum(1).tolist()

    def first_batch(self, group: int) -> dict[str, Any]:
        """What TRL samples, scores and normalises for its first prompt, before any update."""
        self.policy.eval()
        return self.trainer._generate_and_score_completions([self.trainer.train_dataset[0]] * group)
