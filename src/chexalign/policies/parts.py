"""The parts of a vision-language model by their names in recipes."""

from __future__ import annotations

PARTS = {  # name used in recipes → attribute prefixes of the parts, over the families
    "tower": ("vision_tower", "visual", "vision_model"),
    "projector": ("multi_modal_projector", "connector", "visual.merger"),
    "decoder": ("language_model", "text_model", "layers", "embed_tokens", "norm"),
}
