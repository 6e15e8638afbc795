"""The recipe's `train:` section: the algorithm, its optimiser, and what may not go together."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal, get_args

from pydantic import Field, model_validator

from chexalign.recipe.base import Count, Rate, Section, Seed, Share
from chexalign.recipe.online import Grpo, OnlineAlgorithm, OnlineDpo, OnlineKto, OraPo, Rollout, Valor, Watch
from chexalign.recipe.policy import Lora
from chexalign.recipe.preference import Dpo, Ipo, Kto, LcDpo, Orpo, Sft

Algorithm = Annotated[
    Sft | Dpo | LcDpo | Ipo | Kto | Orpo | Grpo | OraPo | Valor | OnlineDpo | OnlineKto, Field(discriminator="type")
]


ALGORITHM_NAMES = tuple(get_args(t.model_fields["type"].annotation)[0] for t in get_args(get_args(Algorithm)[0]))


def _names(line: str) -> set[str]:
    """The judges that a line names; a word before a bracket is a function."""
    return set(re.findall(r"(?<![\w\[:.-])[A-Za-z_]\w*(?:\[[^\]]*\])?(?![\w\[]|\s*\()", line))


class Train(Section):
    """The paper's settings unless a recipe says otherwise: one epoch, cosine with 10 % warm-up, tower frozen."""

    algorithm: Algorithm = Dpo()
    reward: str | None = None  # a judge or a line of judges; online algorithms alone, which need no pairs
    rollout: Rollout = Rollout()  # online algorithms alone
    watch: Watch = Watch()  # online algorithms alone
    seed: Seed | None = None  # of training alone; the recipe's when absent
    epochs: Count = 1
    lr: Rate = 1e-6
    batch_size: Count = 32  # pairs per optimizer step
    micro_batch_size: Count = 16  # pairs per forward pass, of like length, over all processes
    micro_batch_tokens: Count | None = None  # padded tokens (prompts and reports) per forward pass, over all processes
    optimiser: Literal["adamw", "adafactor", "adamw_8bit"] = "adamw"
    ema: Annotated[float, Field(ge=0, lt=1)] = 0.0  # decay of the weights' moving average, which is then what is saved
    warmup_share: Share = 0.1
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    max_grad_norm: Rate = 1.0
    freeze: tuple[Literal["tower", "projector", "decoder"], ...] = ("tower",)
    lora: Lora | None = None
    gradient_checkpointing: bool = False  # recompute activations in the backward pass: less memory, more time
    save_every: Count = 50  # optimizer steps between checkpoints

    @model_validator(mode="before")
    @classmethod
    def _short_form(cls, value: Any) -> Any:
        """`algorithm: dpo` is short for `algorithm: {type: dpo}`."""
        if isinstance(value, dict) and isinstance(value.get("algorithm"), str):
            value = {**value, "algorithm": {"type": value["algorithm"]}}
        return value

    @model_validator(mode="after")
    def _something_learns(self) -> Train:
        if len(set(self.freeze)) == 3 and self.lora is None:
            raise ValueError("freeze: tower, projector and decoder are all frozen: nothing would learn")
        return self

    @model_validator(mode="after")
    def _both_stages_learn(self) -> Train:
        later = self.algorithm.freeze_2 if isinstance(self.algorithm, Valor) else None
        if later is None:
            return self
        if self.lora is not None and set(later) != set(self.freeze):
            raise ValueError("algorithm.freeze_2: with train.lora the same parts learn in both stages; remove it")
        if len(set(later)) == 3:
            raise ValueError("algorithm.freeze_2: tower, projector and decoder are all frozen: nothing would learn")
        return self

    @property
    def online(self) -> bool:
        """Whether the algorithm learns from rewards of its own samples, and so needs no pairs."""
        return isinstance(self.algorithm, OnlineAlgorithm)

    @property
    def rewards(self) -> tuple[str, ...]:
        """The reward lines that training uses; none where it learns from pairs."""
        more = (self.algorithm.visual,) if isinstance(self.algorithm, Valor) and self.algorithm.lambda_vis else ()
        return () if self.reward is None else (self.reward, *more)

    @model_validator(mode="after")
    def _rewarded(self) -> Train:
        if self.online != (self.reward is not None):
            wrong = "needs a reward, for example" if self.online else "learns from pairs: remove"
            raise ValueError(f"{self.algorithm.type} {wrong} reward: {self.reward or 'finding_f1'}")
        if shared := _names(self.watch.judge) & {name for line in self.rewards for name in _names(line)}:
            raise ValueError(
                f"watch.judge {self.watch.judge!r} is in the reward ({', '.join(sorted(shared))}): choose one that training "
                "does not see"
            )
        return self
