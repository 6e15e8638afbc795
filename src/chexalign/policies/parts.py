"""The parts of a vision-language model by their names in recipes."""

from __future__ import annotations

PARTS = {  # name used in recipes → attribute prefixes of the parts, over the families
    "tower": ("vision_tower", "visual", "vision_model"),
    "projector": ("multi_modal_projector", "connector", "visual.merger"),
    "decoder": ("language_model", "text_model", "layers", "embed_tokens", "norm"),
}


def belongs(name: str, part: str) -> bool:
    """Whether a parameter of the model without its head is of that part. The tower's merger is the projector's."""
    return name.startswith(PARTS[part]) and not (part == "tower" and name.startswith(PARTS["projector"]))
