"""Logits as the model's own forward makes them: some families bound or scale what their output layer gives."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from chexalign.errors import RecipeError
from chexalign.policies.forward.unwrap import base_model, core_model

BOUNDS = ("final_logit_softcapping", "logits_soft_cap")  # c·tanh(x / c): Gemma 2, 3n and 4, RecurrentGemma
TOLERANCE = 1e-2  # of the largest logit: 16-bit rounding passes, a forgotten bound or factor of a real model does not


class Head(nn.Module):
    """(…, H) → (…, V). The output layer, then what the family's configuration says is done to its logits."""

    def __init__(self, base: Any):
        super().__init__()
        self.layer = base.get_output_embeddings()
        self.out_features = getattr(self.layer, "out_features", None) or self.layer.weight.shape[0]
        config = base.config.get_text_config()
        self.bound = next((v for name in BOUNDS if (v := getattr(config, name, None))), None)
        self.factor = (getattr(config, "logit_scale", None) or 1.0) / (getattr(config, "logits_scaling", None) or 1.0)

    def forward(self, hidden: Tensor) -> Tensor:
        """Scaled first, then bounded: bound · tanh(logits / bound), as Gemma 2 does."""
        logits = self.layer(hidden)
        if self.factor != 1.0:  # Cohere, Granite
            logits = logits * self.factor
        return logits if self.bound is None else self.bound * torch.tanh(logits / self.bound)


@torch.no_grad()
def check_head(model: Any) -> None:
    """Compare `Head` with the model's own logits of a few tokens. Raises RecipeError when something else is done to them."""
    base = base_model(model)
    ids = torch.arange(4, device=next(base.parameters()).device)[None]
    own = base(input_ids=ids, use_cache=False).logits.float()
    ours = Head(base)(core_model(base)(input_ids=ids, use_cache=False).last_hidden_state).float()
    if own.shape != ours.shape or float((own - ours).abs().max()) > TOLERANCE * float(own.abs().max()):
        raise RecipeError(
            f"{type(base).__name__} changes its logits after its output layer in a way that CheXalign does not know; "
            "its log-probs would be wrong"
        )
