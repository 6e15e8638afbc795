"""Preflight: what would go wrong after hours is looked for in seconds. Writes nothing."""

from __future__ import annotations

import shutil
import statistics
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from chexalign.data import Drops, check_leakage, image_folder, load_source, may_lack_images, source_entry
from chexalign.data.images import ImageError, load_image
from chexalign.errors import RecipeError, WorkError
from chexalign.recipe.recipe import Recipe
from chexalign.records import Study
from chexalign.run.judges import judges_of
from chexalign.run.task import missing_section, reference
from chexalign.stages.studies import needed_splits

LOOKED_AT = 50  # images decoded
DRAWN_LIMIT = 50  # studies drawn, where the source draws them

Finding = tuple[bool, str]


def check_recipe(recipe: Recipe) -> Iterator[Finding]:
    """(fine?, one line) for each thing checked."""
    judges_of(recipe)
    yield True, f"recipe {recipe.name}: every key known, judges {', '.join(recipe.score.judges)}"
    with tempfile.TemporaryDirectory() as folder:
        studies, drops, root = _read(recipe, Path(folder))
        yield from _check_studies(recipe, studies, drops)
        yield from _check_images(recipe, studies, root)
    yield from _check_prompt_and_lengths(recipe, studies)
    yield _check_disk(recipe, len(studies))


def _read(recipe: Recipe, folder: Path) -> tuple[list[Study], Drops, Path]:
    settings, drops = recipe.studies, Drops()
    if source_entry(settings.source).is_drawn:
        settings = settings.model_copy(update={"n": min(settings.n or DRAWN_LIMIT, DRAWN_LIMIT)})
    studies = list(load_source(settings.source)(settings, recipe.seed, folder, drops))
    return studies, drops, image_folder(settings, folder)


def _check_studies(recipe: Recipe, studies: list[Study], drops: Drops) -> Iterator[Finding]:
    splits = Counter(s.split for s in studies)
    shown = ", ".join(f"{splits[k]} {k}" for k in ("train", "val", "test"))
    drawn = " (a draw of the phantom law)" if source_entry(recipe.studies.source).is_drawn else ""
    yield all(splits[k] for k in needed_splits(recipe)), f"{len(studies)} studies{drawn}: {shown}"
    yield (
        not drops.lines,
        f"unreadable rows: {len(drops.lines)}" + (f", first: {drops.lines[0]}" if drops.lines else ""),
    )
    twice = [i for i, n in Counter(s.study_id for s in studies).items() if n > 1]
    yield not twice, f"duplicate study ids: {len(twice)}" + (f", first: {twice[0]}" if twice else "")
    empty = [s.study_id for s in studies if missing_section(recipe, s)]
    note = f", first: {empty[0]}; these studies are dropped" if empty else ""
    yield len(empty) < max(1, len(studies)) / 2, f"empty references: {len(empty)} of {len(studies)}{note}"
    try:
        check_leakage(studies)
        yield True, "no patient is in two splits"
    except WorkError as error:
        yield False, str(error)


def _check_images(recipe: Recipe, studies: list[Study], root: Path) -> Iterator[Finding]:
    from chexalign.policies.presets import most_images

    broken, looked, sizes = [], 0, set()
    most = most_images(recipe)
    without = sum(not s.images for s in studies if not may_lack_images(s))
    if without and recipe.studies.max_images:
        note = "these are dropped; studies.max_images=0 for text alone"
        yield (
            without < len(studies) / 2,
            f"studies without an image of a wanted view: {without} of {len(studies)}; {note}",
        )
    step = max(1, len(studies) // LOOKED_AT)
    for study in studies[::step][:LOOKED_AT]:
        for path, _view in study.images[:most]:
            looked += 1
            try:
                sizes.add(load_image(root, path).size)
            except ImageError as error:
                broken.append(str(error))
    extent = f", {min(sizes)} to {max(sizes)} pixels" if sizes else ""
    yield (
        not broken,
        f"images: {len(broken)} of {looked} decoded are broken{extent}" + (f"; {broken[0]}" if broken else ""),
    )


def _check_prompt_and_lengths(recipe: Recipe, studies: list[Study]) -> Iterator[Finding]:
    """The prompt, then report and image tokens, counted with the model's own tokenizer, against what is allowed."""
    from chexalign.policies.presets import wording_of
    from chexalign.policies.prompt import build_prompt

    texts = [reference(recipe, s) for s in studies if not missing_section(recipe, s)] or ["-"]
    limits, asked = _limits(recipe, texts), wording_of(recipe)
    told = asked.findings or ""
    copies = recipe.task == "findings" and "{findings}" in told
    yield (
        not copies,
        f"prompt, {asked.name} wording: {told!r}"
        + ("; it holds the findings, which are what is to be written" if copies else ""),
    )
    if limits is not None and studies:
        usable = [s for s in studies if not missing_section(recipe, s)] or studies
        first = next((s for s in usable if s.indication.strip()), usable[0])
        shown = build_prompt(first, asked, limits.processor, Path(), recipe.studies.max_images)
        yield True, f"study {first.study_id} is asked {shown.text!r} with {len(shown.images)} image(s)"
    if limits is None:
        yield (
            False,
            f"model {recipe.policy.model} is not on this machine: tokens cannot be counted (see policy.download)",
        )
        return
    tokens = sorted(len(ids) + 1 for ids in limits.tokenizer(texts, add_special_tokens=False)["input_ids"])
    words, longest = [len(t.split()) for t in texts], tokens[int(0.99 * (len(tokens) - 1))]
    yield (
        longest <= recipe.sample.max_new_tokens,
        f"reports: median {statistics.median(words):.0f} words, {statistics.median(tokens):.0f} tokens, 99th percentile "
        f"{longest} tokens; sample.max_new_tokens is {recipe.sample.max_new_tokens}",
    )
    images = min(asked.most_images(recipe.studies.max_images), max((len(s.images) for s in studies), default=0))
    total = images * limits.image_tokens + tokens[-1]
    yield (
        total < limits.positions,
        f"at most {images} images of {limits.image_tokens} tokens and the longest report: "
        f"{total} of {limits.positions} positions",
    )


@dataclass(frozen=True)
class _Limits:
    processor: Any
    tokenizer: Any
    image_tokens: int  # per image
    positions: int  # that the decoder was made for


def _limits(recipe: Recipe, texts: list[str]) -> _Limits | None:
    """What the policy's checkpoint says, without loading its weights; None when it is not on this machine."""
    from transformers import AutoConfig
    from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES

    from chexalign.policies.checkpoints import chexagent2
    from chexalign.policies.checkpoints.processors import load_processor
    from chexalign.policies.checkpoints.smollm2 import checkpoint_of
    from chexalign.policies.checkpoints.tiny import CHAT_TEMPLATE, POSITIONS, build_tokenizer
    from chexalign.policies.model_of_recipe import limit_pixels

    policy = recipe.policy.model_copy(update={"model": checkpoint_of(recipe.policy.model)})
    if policy.model == "tiny":
        per_image = (policy.tiny.image_size // policy.tiny.patch_size) ** 2
        tokenizer = build_tokenizer(texts, policy.tiny.vocabulary)
        tokenizer.chat_template = CHAT_TEMPLATE
        return _Limits(tokenizer, tokenizer, per_image, POSITIONS)
    common = {"local_files_only": not policy.download, "trust_remote_code": policy.trust_remote_code}
    try:
        if chexagent2.recognises(policy.model, download=policy.download):
            config, processor = chexagent2.describe(policy.model, download=policy.download)
        else:
            config = AutoConfig.from_pretrained(policy.model, **common)
            seeing = config.model_type in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES
            processor = load_processor(policy.model, config, seeing, **common)
    except (OSError, ValueError):
        return None
    limit_pixels(processor, policy)
    positions = getattr(config.get_text_config(), "max_position_embeddings", 1 << 30)
    tokenizer = getattr(processor, "tokenizer", processor)
    return _Limits(processor, tokenizer, _image_tokens(recipe, processor), positions)


def _image_tokens(recipe: Recipe, processor: Any) -> int:
    """Tokens that one 1024-pixel image becomes, from encoding a blank one; 0 for a text-only model."""
    from PIL import Image

    token = getattr(processor, "image_token", None)
    if token is None:
        return 0
    try:
        return processor(text=[token], images=[[Image.new("RGB", (1024, 1024))]], return_tensors="pt")[
            "input_ids"
        ].shape[1]
    except (ValueError, TypeError) as error:
        raise RecipeError(
            f"policy.model {recipe.policy.model}: its processor cannot encode an image ({error})"
        ) from error


def _check_disk(recipe: Recipe, n_studies: int) -> Finding:
    """Rows of text, images drawn, and three copies of the policy (baseline, aligned, checkpoint with AdamW's state)."""
    n = recipe.studies.n or n_studies
    rows = n * recipe.sample.n * 4_000
    images = n * 12_000 if source_entry(recipe.studies.source).is_drawn else 0
    local = Path(recipe.policy.model)
    weights = sum(p.stat().st_size for p in local.glob("*.safetensors")) if local.is_dir() else 20_000_000
    need = rows + images + 6 * weights
    folder = recipe.run_dir or Path("runs")
    while not folder.exists():
        folder = folder.absolute().parent
    free = shutil.disk_usage(folder).free
    return need < free, f"disk: about {need / 1e9:.2f} GB needed, {free / 1e9:.0f} GB free at {folder}"
