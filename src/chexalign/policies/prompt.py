"""A study → the text and images a policy sees. One place for prompt wording; the model's own chat template renders it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from chexalign.records import Study


@dataclass(frozen=True)
class Prompt:
    """`text` holds one image placeholder per entry of `images` (paths relative to `root`)."""

    text: str
    images: tuple[str, ...] = ()
    root: Path = Path(".")


def messages(study: Study, template: str, max_images: int, control: Sequence[str] = ()) -> list[dict[str, Any]]:
    """One user turn: the images, then the instruction with the study's indication filled in (`None` where it is blank).

    `control` are the tokenizer's special tokens; they are taken out of the study's own text, where they would act.
    """
    fields = {name: _one_line(getattr(study, name), control) for name in ("indication", "comparison")}
    content: list[dict[str, str]] = [{"type": "image"} for _ in study.images[:max_images]]
    return [{"role": "user", "content": [*content, {"type": "text", "text": template.format_map(fields)}]}]


def _one_line(text: str, control: Sequence[str]) -> str:
    for token in control:
        text = text.replace(token, " ")
    return " ".join(text.split()) or "None"


def build_prompt(study: Study, template: str, processor: Any, root: Path, max_images: int) -> Prompt:
    """Render one study's prompt with the processor's chat template, or plainly where the checkpoint has none."""
    control = [*getattr(processor, "tokenizer", processor).all_special_tokens, getattr(processor, "image_token", None)]
    turns = messages(study, template, max_images, [token for token in control if token])
    images = tuple(path for path, _ in study.images[:max_images])
    if getattr(processor, "chat_template", None):
        text = processor.apply_chat_template(turns, add_generation_prompt=True, tokenize=False)
    else:
        placeholder = getattr(processor, "image_token", "")
        text = placeholder * len(images) + turns[0]["content"][-1]["text"]
    return Prompt(text, images, root)
