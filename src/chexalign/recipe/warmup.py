"""The recipe's `warmup:` section: the phases that make a baseline of an untrained model."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from chexalign.recipe.base import Count, Rate, Section
from chexalign.recipe.policy import Lora


class Phase(Section):
    """One warm-up phase of a fixed number of optimizer steps; stops early when the validation loss stops falling."""

    steps: Annotated[int, Field(ge=0)]
    lr: Rate = 2e-3
    batch_size: Count = 32
    micro_batch_size: Count = 16  # studies per forward pass, of like length
    eval_every: Count = 100  # steps between validation losses
    patience: Count = 5  # validations without a better loss before stopping


class ExpertPhase(Section):
    """The expert of the judge `visual`: a small contrastive model, trained on the training split, saved as <run>/expert."""

    steps: Annotated[int, Field(ge=0)] = 0  # 0: no expert
    lr: Rate = 2e-3
    batch_size: Annotated[int, Field(ge=2)] = 64  # studies in one contrast


class Warmup(Section):
    """How a model becomes a baseline: tower on finding labels, optionally finding lists, reports (SFT), normal ones."""

    share: Annotated[float, Field(gt=0, le=1)] = 1.0  # of the training patients, that it learns from
    lora: Lora | None = None  # the texts are learnt by an adapter: `train.lora` then continues it
    tower: Phase = Phase(steps=250, batch_size=64)
    finding_lists: Phase = Phase(steps=0)
    reports: Phase = Phase(steps=700)
    normal_reports: Phase = Phase(steps=0)  # at last only reports without a finding: a start that names none (OraPO)
    expert: ExpertPhase = ExpertPhase()
    save_every: Count = 200  # steps between checkpoints
