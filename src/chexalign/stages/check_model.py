"""Preflight of the model: is its checkpoint whole, what is it asked, can its processor take the images, and what fits."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from chexalign.data.image_errors import ImageError
from chexalign.errors import RecipeError, WorkError
from chexalign.recipe.recipe import Recipe
from chexalign.records import Study
from chexalign.run.task import missing_section, reference

Finding = tuple[bool, str]
ENCODED = 25  # studies whose prompt and images are handed to the processor
MEASURED = 5_000  # images whose size is read from their header


@dataclass(frozen=True)
class Described:
    """What a checkpoint says, without its weights in memory."""

    processor: Any
    tokenizer: Any
    positions: int  # that the decoder was made for
    image_tokens: int | None = None  # per image, where it is known without encoding one


def check_model(recipe: Recipe, studies: Sequence[Study], root: Path) -> Iterator[Finding]:
    """(fine?, one line) for the prompt, the checkpoint, the images as the processor takes them, and the lengths."""
    from chexalign.policies.presets import wording_of

    asked, texts = (
        wording_of(recipe),
        [reference(recipe, s) for s in studies if not missing_section(recipe, s)] or ["-"],
    )
    copies = recipe.task == "findings" and "{findings}" in (asked.findings or "")
    note = "; it holds the findings, which are what is to be written" if copies else ""
    yield not copies, f"prompt, {asked.name} wording: {asked.findings or ''!r}{note}"
    try:
        model = _describe(recipe, texts)
        if studies:
            yield True, _asked(recipe, studies, model, asked)
    except RecipeError as error:
        yield False, str(error)
        return
    yield from _check_weights(recipe)
    per_image, problems = _encode(recipe, studies, root, model, asked)
    for problem in problems:
        yield False, problem
    yield from _check_lengths(recipe, studies, texts, model, asked, per_image)


def _asked(recipe: Recipe, studies: Sequence[Study], model: Described, asked: Any) -> str:
    from chexalign.policies.prompt import build_prompt

    usable = [s for s in studies if not missing_section(recipe, s)] or list(studies)
    first = next((s for s in usable if s.indication.strip()), usable[0])
    shown = build_prompt(first, asked, model.processor, Path(), recipe.studies.max_images)
    return f"study {first.study_id} is asked {shown.text!r} with {len(shown.images)} image(s)"


def _loading(recipe: Recipe) -> Any:
    from chexalign.policies.checkpoints.load import Loading

    settings = recipe.policy
    return Loading(settings.dtype, settings.download, settings.trust_remote_code, device="meta")


def _describe(recipe: Recipe, texts: list[str]) -> Described:
    """The processor and the limits of the recipe's model. Raises RecipeError where it cannot be opened."""
    from chexalign.policies.checkpoints.load import describe_checkpoint
    from chexalign.policies.checkpoints.smollm2 import checkpoint_of
    from chexalign.policies.checkpoints.tiny import CHAT_TEMPLATE, POSITIONS, build_tokenizer
    from chexalign.policies.model_of_recipe import limit_pixels

    policy = recipe.policy.model_copy(update={"model": checkpoint_of(recipe.policy.model)})
    if policy.model == "tiny":
        tokenizer = build_tokenizer(texts, policy.tiny.vocabulary)
        tokenizer.chat_template = CHAT_TEMPLATE
        return Described(tokenizer, tokenizer, POSITIONS, (policy.tiny.image_size // policy.tiny.patch_size) ** 2)
    config, processor = describe_checkpoint(policy.model, _loading(recipe))
    limit_pixels(processor, policy)
    positions = getattr(config.get_text_config(), "max_position_embeddings", 1 << 30)
    tokenizer = getattr(processor, "tokenizer", processor)
    return Described(processor, tokenizer, positions, 0 if processor is tokenizer else None)


def _check_weights(recipe: Recipe) -> Iterator[Finding]:
    """Every weight has its place: names and shapes are read from the files' headers, the weights are not."""
    from chexalign.policies.checkpoints.load import load_checkpoint
    from chexalign.policies.checkpoints.smollm2 import checkpoint_of

    source = checkpoint_of(recipe.policy.model)
    if source == "tiny":
        return
    if recipe.policy.download and not Path(source).exists():
        yield True, f"weights: those of {source} are not looked at; they may have to be fetched first"
        return
    try:
        model, _, name = load_checkpoint(source, _loading(recipe))
    except RecipeError as error:
        yield False, str(error)
        return
    yield True, f"weights of {name}: {sum(p.numel() for p in model.parameters()):,}, each in its place"


def _encode(
    recipe: Recipe, studies: Sequence[Study], root: Path, model: Described, asked: Any
) -> tuple[int, list[str]]:
    """(most tokens of an image, problems): prompts with their images, as sampling and training will encode them."""
    from chexalign.policies.encoder import PromptEncoder
    from chexalign.policies.prompt import build_prompt

    if model.image_tokens is not None and recipe.policy.model == "tiny":
        return model.image_tokens, []
    encoder, most, problems = PromptEncoder(model.processor), 0, dict[str, None]()
    for study in _looked_at(studies, root, asked.most_images(recipe.studies.max_images)):
        try:
            prompt = build_prompt(study, asked, model.processor, root, recipe.studies.max_images)
            tokens = encoder.process(prompt)["input_ids"].shape[1]
        except ImageError:
            continue  # counted where the images are looked at
        except (RecipeError, WorkError) as error:
            problems[str(error)] = None
            continue
        if prompt.images:
            words = len(model.tokenizer(prompt.text, add_special_tokens=False)["input_ids"])
            most = max(most, (tokens - words) // len(prompt.images) + 1)
    return most, list(problems)[:3]


def _looked_at(studies: Sequence[Study], root: Path, most: int) -> list[Study]:
    """Evenly spaced studies, and the one with the longest and thinnest image: processors refuse those first."""
    from PIL import Image

    chosen = list(studies[:: math.ceil(len(studies) / ENCODED) or 1])
    thinnest: tuple[float, Study] | None = None
    for study in studies[:: math.ceil(len(studies) / MEASURED) or 1]:
        for path, _ in study.images[:most]:
            try:
                with Image.open(root / path) as image:
                    width, height = image.size
            except (OSError, ValueError, Image.DecompressionBombError):
                continue  # DICOM, or broken: counted where the images are looked at
            ratio = max(width, height) / max(1, min(width, height))
            if thinnest is None or ratio > thinnest[0]:
                thinnest = ratio, study
    return [*chosen, thinnest[1]] if thinnest and thinnest[1] not in chosen else chosen


def _check_lengths(
    recipe: Recipe, studies: Sequence[Study], texts: list[str], model: Described, asked: Any, per_image: int
) -> Iterator[Finding]:
    """Report and image tokens, counted with the model's own tokenizer, against what is allowed."""
    tokens = sorted(len(ids) + 1 for ids in model.tokenizer(texts, add_special_tokens=False)["input_ids"])
    words, longest = [len(t.split()) for t in texts], tokens[int(0.99 * (len(tokens) - 1))]
    yield (
        longest <= recipe.sample.max_new_tokens,
        f"reports: median {statistics.median(words):.0f} words, {statistics.median(tokens):.0f} tokens, 99th percentile "
        f"{longest} tokens; sample.max_new_tokens is {recipe.sample.max_new_tokens}",
    )
    images = min(asked.most_images(recipe.studies.max_images), max((len(s.images) for s in studies), default=0))
    total = images * per_image + tokens[-1]
    yield (
        total < model.positions,
        f"at most {images} images of {per_image} tokens and the longest report: {total} of {model.positions} positions",
    )
