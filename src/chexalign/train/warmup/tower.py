"""The first warm-up phase: the vision tower learns finding labels before any text (max-pooled patches → 13 logits)."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from sklearn.exceptions import UndefinedMetricWarning
from sklearn.metrics import roc_auc_score
from torch import Tensor, nn
from transformers import LlavaModel

from chexalign.errors import RecipeError
from chexalign.policies.forward.logps import inner_model
from chexalign.policies.policy import Policy
from chexalign.policies.prompt import Prompt

BATCH = 64  # images per forward pass while validating


@dataclass(frozen=True)
class TowerExample:
    """An image and what its report says of each finding."""

    pixels: Tensor  # (3, H, W), as the processor makes them
    labels: Tensor  # (n_findings,), 0 or 1, NaN where unknown


class TowerClassifier(nn.Module):
    """Tower and a linear head; a finding is present where its best patch says so. (B, 3, H, W) → (B, n) logits."""

    def __init__(self, core: Any, n_labels: int):
        super().__init__()
        self.tower = core.vision_tower
        self.layer = core.config.vision_feature_layer
        self.head = nn.Linear(core.config.vision_config.hidden_size, n_labels)

    def forward(self, pixels: Tensor) -> Tensor:
        """Patches are those of hidden layer `layer`."""
        hidden = self.tower(pixels, output_hidden_states=True, return_dict=True).hidden_states[self.layer]
        return self.head(hidden).amax(1)


@torch.no_grad()
def centre_start(tower: Any, pixels: Tensor) -> None:
    """Start a random SigLIP tower where images differ: subtract the mean image (n, 3, H, W) and scale by what is left.

    The mean chest is far brighter than any lesion; without this the patch embedding sees little else (mean
    validation AUC after 150 steps .86 without, .96 with: docs/evidence/log.md). It is folded into the weights,
    so the forward pass is unchanged.
    """
    embeddings, mean = tower.embeddings, pixels.mean(0, keepdim=True)
    embeddings.patch_embedding.weight.div_((pixels - mean).std())
    embeddings.position_embedding.weight.sub_(embeddings.patch_embedding(mean).flatten(2)[0].T)


class TowerTask:
    """Mean binary cross-entropy over the findings that are known, per study."""

    def __init__(self, policy: Policy, n_labels: int, seed: int):
        core, _ = inner_model(policy.model)
        if not isinstance(core, LlavaModel):
            raise RecipeError(f"warmup.tower: {type(core).__name__} brings a trained tower; set warmup.tower.steps=0")
        policy.freeze(())
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.module: nn.Module = TowerClassifier(core, n_labels).to(policy.device)
        self.device = policy.device

    def inputs(self, items: Sequence[TowerExample]) -> tuple[Tensor]:
        """(B, 3, H, W) in float32 on the device."""
        return (torch.stack([e.pixels for e in items]).to(self.device, torch.float32),)

    def loss(
        self, output: Tensor, items: Sequence[TowerExample], weights: Tensor | None = None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """(B,), and no metrics. `weights` is not read: no loss looks across items."""
        labels = torch.stack([e.labels for e in items]).to(output.device)
        known = ~labels.isnan()
        losses = F.binary_cross_entropy_with_logits(output, labels.nan_to_num(), reduction="none")
        return (losses * known).sum(1) / known.sum(1).clamp(min=1), {}

    def size(self, item: TowerExample) -> int:
        """Numbers in the image."""
        return item.pixels.numel()

    def check_first(self, output: Tensor, items: Sequence[TowerExample]) -> None:
        """Nothing is promised of an untrained tower."""


def tower_examples(policy: Policy, prompts: Sequence[Prompt], labels: Sequence[Sequence[float]]) -> list[TowerExample]:
    """The first image of each study with its labels; pixels are kept in half precision."""
    examples = []
    for prompt, row in zip(prompts, labels, strict=True):
        if prompt.images:
            pixels = policy.encode([prompt]).extra["pixel_values"][0]
            examples.append(TowerExample(pixels.half().cpu(), torch.tensor(row)))
    return examples


def validate_tower(task: TowerTask, examples: Sequence[TowerExample]) -> dict[str, float]:
    """Validation loss, and the mean AUC over the findings that have both classes there."""
    logits = torch.cat([task.module(*task.inputs(examples[i : i + BATCH])) for i in range(0, len(examples), BATCH)])
    labels = torch.stack([e.labels for e in examples])
    loss = float(F.binary_cross_entropy_with_logits(logits.cpu(), labels))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UndefinedMetricWarning)
        both = [i for i in range(labels.shape[1]) if 0 < labels[:, i].sum() < len(labels)]
    aucs = [float(roc_auc_score(labels[:, i], logits[:, i].cpu())) for i in both]
    return {"val_loss": loss, **({"val_auc": sum(aucs) / len(aucs)} if aucs else {})}
