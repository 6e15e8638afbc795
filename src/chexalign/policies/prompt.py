"""A study → the text and images a policy sees. One place for prompt wording; the model's own chat template renders it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from jinja2 import TemplateError

from chexalign.errors import RecipeError
from chexalign.policies.presets import Preset
from chexalign.recipe.policy import PROMPT_FIELDS
from chexalign.records import Study

NOTHING = re.compile(r"(?!)")
WITHOUT_SYSTEM = "put its words into policy.prompt and leave policy.system out"


@dataclass(frozen=True)
class Prompt:
    """`text` holds one image placeholder per entry of `images` (paths relative to `root`).

    `turns` are the chat that `text` was rendered from, where it shows images: an endpoint renders it itself.
    """

    text: str
    images: tuple[str, ...] = ()
    root: Path = Path(".")
    turns: tuple[dict[str, Any], ...] = field(default=(), compare=False, repr=False)


def messages(
    study: Study, preset: str | Preset, max_images: int, control: re.Pattern[str] = NOTHING
) -> list[dict[str, Any]]:
    """The user's turn, after a system turn where there is one: images and words, with the study's fields filled in.

    A blank field reads `None`. `control` finds special tokens; they are taken out of the study's own text, where they
    would act.
    """
    preset = _preset(preset)
    fields = {name: _one_line(getattr(study, name), control) for name in PROMPT_FIELDS}
    told = preset.findings_with_indication if fields["indication"] else None
    words = (told or preset.findings or "").format_map({name: value or "None" for name, value in fields.items()})
    text, images = [{"type": "text", "text": words}], [{"type": "image"} for _ in _shown(study, preset, max_images)]
    turns = [{"role": "user", "content": text + images if preset.images_last else images + text}]
    if preset.system:
        turns.insert(0, {"role": "system", "content": [{"type": "text", "text": preset.system}]})
    return turns


def in_words(turns: Sequence[dict[str, Any]], placeholder: str = "") -> list[dict[str, Any]]:
    """The same turns with strings for contents, as the templates of text models want them; an image is its placeholder."""
    return [{**turn, "content": "".join(part.get("text", placeholder) for part in turn["content"])} for turn in turns]


def _preset(preset: str | Preset) -> Preset:
    return Preset("recipe", findings=preset) if isinstance(preset, str) else preset


def _shown(study: Study, preset: Preset, max_images: int) -> tuple[str, ...]:
    """Paths of the images that the policy sees: no more than the recipe and the model's rule allow."""
    return tuple(path for path, _ in study.images[: preset.most_images(max_images)])


def _one_line(text: str, control: re.Pattern[str]) -> str:
    return " ".join(control.sub(" ", text).split())


@lru_cache(maxsize=8)
def _special_tokens(processor: Any) -> re.Pattern[str]:
    """Finds every special token of the tokenizer and the processor's placeholders."""
    tokenizer = getattr(processor, "tokenizer", processor)
    found = {*tokenizer.all_special_tokens, *(t.content for t in tokenizer.added_tokens_decoder.values() if t.special)}
    found |= {str(getattr(processor, name, None) or "") for name in ("image_token", "boi_token", "video_token")}
    longest_first = sorted(found - {""}, key=len, reverse=True)
    return re.compile("|".join(map(re.escape, longest_first))) if longest_first else NOTHING


def rendered(processor: Any, turns: Sequence[dict[str, Any]], *, add_generation_prompt: bool) -> str:
    """The turns as the model's own chat template writes them. Raises RecipeError where it refuses them."""
    try:
        return processor.apply_chat_template(turns, add_generation_prompt=add_generation_prompt, tokenize=False)
    except (TemplateError, ValueError, TypeError, KeyError, AttributeError) as error:
        told = " ".join(str(error).split())[:200]
        if turns[0]["role"] == "system":
            raise RecipeError(
                f"policy.system: this model's chat template refuses it ({told}); {WITHOUT_SYSTEM}"
            ) from error
        raise RecipeError(f"policy.model: its chat template cannot write the prompt ({told})") from error


def build_prompt(study: Study, preset: str | Preset, processor: Any, root: Path, max_images: int) -> Prompt:
    """Render one study's prompt with the processor's chat template, or plainly where it has none or is not to be used."""
    preset = _preset(preset)
    turns = messages(study, preset, max_images, _special_tokens(processor))
    shown, chat = _shown(study, preset, max_images), bool(preset.chat and getattr(processor, "chat_template", None))
    if chat:
        seeing = hasattr(processor, "image_processor")
        text = rendered(processor, turns if seeing else in_words(turns), add_generation_prompt=True)
        if preset.system and preset.system.strip() not in text:
            raise RecipeError(f"policy.system: this model's chat template leaves the system turn out; {WITHOUT_SYSTEM}")
    else:  # of Gemma 3's tokens, boi_token is the one its processor replaces
        placeholder = getattr(processor, "boi_token", None) or getattr(processor, "image_token", None) or ""
        text = "\n".join(turn["content"] for turn in in_words(turns, placeholder))
    return Prompt(text, shown, root, tuple(turns) if chat and shown else ())
