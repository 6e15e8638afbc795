"""What is measured on: a LLaVA of about 30 M parameters, random weights, random images and word lists as reports."""

from __future__ import annotations

import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    PreTrainedTokenizerFast,
    SiglipImageProcessorPil,
    SiglipVisionConfig,
)

from chexalign.policies import Policy, Prompt
from chexalign.train.preference.scoring_task import Example

SPECIAL = ["<pad>", "<unk>", "<s>", "</s>", "<image>"]
WORDS = [f"w{i}" for i in range(500)]
BATCH, PROMPT_WORDS, CHOSEN_WORDS, REJECTED_WORDS = 2, 25, 80, 72
BETA, LR = 0.1, 1e-4


@dataclass(frozen=True)
class Case:
    name: str
    what: str
    images: int = 1
    pixels: int = 384  # a side; patches of 16
    tower: tuple[int, int] = (256, 6)  # width, layers


CASES = {
    c.name: c
    for c in (
        Case("one_image", "576-token image"),
        Case("two_images", "two 576-token images", images=2),
        Case("short_prompt", "16-token image", pixels=64),
        Case("tiny_tower", "576-token image, a tower of one 64-wide layer", tower=(64, 1)),
    )
}


def processor(case: Case) -> LlavaProcessor:
    core = Tokenizer(models.WordLevel({w: i for i, w in enumerate([*SPECIAL, *WORDS])}, unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core,
        pad_token="<pad>",
        unk_token="<unk>",
        bos_token="<s>",
        eos_token="</s>",
        additional_special_tokens=["<image>"],
    )
    return LlavaProcessor(
        image_processor=SiglipImageProcessorPil(size={"height": case.pixels, "width": case.pixels}),
        tokenizer=tokenizer,
        patch_size=16,
        vision_feature_select_strategy="full",
        image_token="<image>",
        num_additional_image_tokens=0,
    )


def model(case: Case) -> LlavaForConditionalGeneration:
    width, layers = case.tower
    vision = SiglipVisionConfig(
        hidden_size=width,
        intermediate_size=4 * width,
        num_hidden_layers=layers,
        num_attention_heads=4,
        image_size=case.pixels,
        patch_size=16,
        vision_use_head=False,
    )
    text = LlamaConfig(
        vocab_size=1024,
        hidden_size=512,
        intermediate_size=1536,
        num_hidden_layers=8,
        num_attention_heads=8,
        num_key_value_heads=4,
        max_position_embeddings=4096,
        pad_token_id=0,
        bos_token_id=2,
        eos_token_id=3,
    )
    torch.manual_seed(0)
    built = LlavaForConditionalGeneration(
        LlavaConfig(
            vision_config=vision,
            text_config=text,
            image_token_index=4,
            image_seq_length=(case.pixels // 16) ** 2,
            vision_feature_layer=-1,
            vision_feature_select_strategy="full",
        )
    )
    built.generation_config.eos_token_id, built.generation_config.pad_token_id = 3, 0
    return built


def rows(case: Case, n: int, folder: Path) -> list[dict[str, Any]]:
    """n preference pairs; their images are written to `folder`."""
    draw, out = random.Random(0), []
    for i in range(n):
        names = [f"{case.name}-{i}-{j}.png" for j in range(case.images)]
        for j, name in enumerate(names):
            pixels = np.random.default_rng((i, j)).integers(0, 255, (400, 400, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / name)
        words = [" ".join(draw.choices(WORDS, k=k)) for k in (PROMPT_WORDS, CHOSEN_WORDS, REJECTED_WORDS)]
        out.append(
            {
                "names": names,
                "prompt": "<image> " * case.images + words[0],
                "chosen": f" {words[1]} </s>",
                "rejected": f" {words[2]} </s>",
            }
        )
    return out


def policy(case: Case) -> Policy:
    """The tower frozen, as in every run here and there."""
    built = Policy(model(case), processor(case), case.name)
    built.freeze(("tower",))
    return built


def examples(one: Policy, data: list[dict[str, Any]], folder: Path) -> list[Example]:
    ids = [
        tuple(one.tokenizer(r[k], add_special_tokens=False)["input_ids"]) for r in data for k in ("chosen", "rejected")
    ]
    pairs = zip(ids[::2], ids[1::2], strict=True)
    return [
        Example(Prompt(r["prompt"], tuple(r["names"]), folder), p, (None, None))
        for r, p in zip(data, pairs, strict=True)
    ]
