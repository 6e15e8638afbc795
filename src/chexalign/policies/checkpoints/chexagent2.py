"""CheXagent-2 on stock transformers classes, without remote code: SigLIP tower, its own projector, Phi decoder.

Reads the published checkpoints (tensors renamed while loading, every setting from their JSON) and the folders that a
policy saves. Nothing is guessed: a setting that is absent or a tensor without a place is refused.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from torch import Tensor, nn
from transformers import (
    GPT2Tokenizer,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    PhiConfig,
    SiglipImageProcessorPil,
    SiglipVisionConfig,
)
from transformers.utils import cached_file

from chexalign.errors import RecipeError
from chexalign.policies.checkpoints.gaps import refuse_gaps

PUBLISHED = "CheXagentForCausalLM"  # architecture of the published checkpoints: 3b, -srrg-findings, -srrg-impression
NATIVE = "CheXagent2ForConditionalGeneration"  # architecture of what this file saves
IMAGE_OPEN = "<|img|>"
IMAGE = "<|imgpad|>"
IMAGE_CLOSE = "<|/img|>"
RENAMES = {  # published tensor name → name here; saved folders already have the names on the right
    r"^model\.visual\.model\.": "model.vision_tower.",
    r"^model\.visual\.pos_embed": "model.multi_modal_projector.pos_embed",
    r"^model\.visual\.attn_pool\.0\.": "model.multi_modal_projector.linear_1.",
    r"^model\.visual\.attn_pool\.2\.": "model.multi_modal_projector.linear_2.",
    r"^model\.visual\.ln_post\.": "model.multi_modal_projector.norm.",
    r"^model\.visual\.proj": "model.multi_modal_projector.proj",
    r"^model\.(embed_tokens|layers|final_layernorm)\.": r"model.language_model.\1.",
}
VISUAL_FIELDS = ("image_size", "output_dim", "vision_model_name_or_path")
TEXT_FIELDS = (
    "vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads",
    "num_key_value_heads", "hidden_act", "layer_norm_eps", "resid_pdrop", "embd_pdrop", "attention_dropout",
    "max_position_embeddings", "rope_theta", "partial_rotary_factor", "qk_layernorm", "tie_word_embeddings",
    "eos_token_id",
)  # fmt: skip
TOWER_FIELDS = (
    "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "image_size", "hidden_act",
)  # fmt: skip
# left out of a saved SigLIP config where they are the class defaults, which are the same in transformers 4.40 and 5
TOWER_DEFAULTS = {"num_channels": 3, "patch_size": 16, "layer_norm_eps": 1e-6, "attention_dropout": 0.0}
CHAT_TEMPLATE = (
    "{% set images = namespace(n=0) %}"
    "{% if messages[0]['role'] != 'system' %}"
    "{{ '<|system|>\nYou are a helpful assistant.<|endoftext|>\n' }}{% endif %}"
    "{% for message in messages %}{{ '<|' + message['role'] + '|>\n' }}"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}"
    "{% for part in message['content'] %}{% if part['type'] == 'image' %}{% set images.n = images.n + 1 %}"
    "{{ 'Picture ' ~ images.n ~ ':<|img|><|imgpad|><|/img|>\n' }}{% else %}{{ part['text'] }}{% endif %}{% endfor %}"
    "{% endif %}{{ '<|endoftext|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% endif %}"
)


# ---- the model


class CheXagent2Config(LlavaConfig):
    """LLaVA's configuration under a `model_type` of its own."""

    model_type = "chexagent2"  # not "llava": that class would open a saved folder and drop what it has no place for


class CheXagent2Projector(nn.Module):
    """norm(W₂ gelu(W₁ (x + pos) + b₁) + b₂) @ proj for every patch, (…, patches, tower) → (…, patches, decoder)."""

    pos_embed: Tensor

    def __init__(self, config: Any):
        super().__init__()
        tower, width = config.vision_config, config.text_config.hidden_size
        patches = (tower.image_size // tower.patch_size) ** 2
        self.register_buffer("pos_embed", torch.zeros(patches, tower.hidden_size))  # stored, never trained
        self.linear_1 = nn.Linear(tower.hidden_size, 4 * width)
        self.act = nn.GELU()
        self.linear_2 = nn.Linear(4 * width, width)
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.proj = nn.Parameter(torch.zeros(width, width))

    def forward(self, features: Tensor) -> Tensor:
        """Raises RuntimeError where the number of patches is not that of `pos_embed`."""
        hidden = self.linear_2(self.act(self.linear_1(features + self.pos_embed)))
        return self.norm(hidden) @ self.proj


class CheXagent2ForConditionalGeneration(LlavaForConditionalGeneration):
    """LLaVA with another projector and a biased head."""

    config_class = CheXagent2Config

    def __init__(self, config: Any):
        super().__init__(config)
        self.model.multi_modal_projector = CheXagent2Projector(config)
        self.lm_head = nn.Linear(config.text_config.hidden_size, config.text_config.vocab_size, bias=True)
        self.post_init()


# ---- loading


def recognises(source: str | Path, *, download: bool = False) -> bool:
    """True for a published or saved CheXagent-2, by the architectures in its config.json. Raises OSError without it."""
    return bool({PUBLISHED, NATIVE} & set(_json(source, "config.json", download).get("architectures") or ()))


def load(
    source: str | Path,
    *,
    dtype: str = "float32",
    download: bool = False,
    tower: str | Path | None = None,
    device_map: str | None = None,
) -> tuple[Any, Any]:
    """The model and processor of a checkpoint folder or hub id; safetensors only.

    `device_map="meta"` reads the names and shapes of the weights alone. `tower` overrides where the
    XraySigLIP settings are read. Raises RecipeError unless every tensor finds its place.
    """
    if dtype == "float16":
        raise RecipeError("policy.dtype: float16 overflows in this decoder's attention; take bfloat16 or float32")
    config, processor = describe(source, download=download, tower=tower)
    opened: Any = CheXagent2ForConditionalGeneration.from_pretrained(
        source,
        config=config,
        dtype=dtype,
        key_mapping=RENAMES,
        use_safetensors=True,
        local_files_only=not download,
        ignore_mismatched_sizes=True,  # reported below, with the rest
        output_loading_info=True,
        device_map=device_map,
    )
    model, report = opened
    refuse_gaps(source, report, whole=True)
    model._weight_conversions = []  # or save_pretrained writes the published names back
    model.generation_config.pad_token_id = processor.tokenizer.pad_token_id
    return model, processor


def describe(source: str | Path, *, download: bool = False, tower: str | Path | None = None) -> tuple[Any, Any]:
    """The config and processor of a checkpoint, without its weights. Raises RecipeError when a setting is absent."""
    settings = _json(source, "config.json", download)
    architectures = settings.get("architectures") or ()
    if not {PUBLISHED, NATIVE} & set(architectures):
        raise RecipeError(f"{source} is not a CheXagent-2: its architectures are {list(architectures)}")
    if NATIVE in architectures:
        config = CheXagent2Config.from_pretrained(source, local_files_only=not download)
        return config, LlavaProcessor.from_pretrained(source, local_files_only=not download)
    place = tower or _tower_place(source, _visual(settings)["vision_model_name_or_path"])
    tower_json, image_json = _tower_settings(place, download)
    tokenizer = _tokenizer(source, download)
    config = build_config(settings, tower_json, tokenizer.convert_tokens_to_ids(IMAGE))
    image = _fields(image_json, ("image_mean", "image_std"), f"{place}/preprocessor_config.json")
    return config, _processor(tokenizer, config, image)


def build_config(settings: Mapping[str, Any], tower: Mapping[str, Any], image_token_id: int) -> CheXagent2Config:
    """The native config from the checkpoint's config.json and its tower's. Raises RecipeError on an absent field."""
    text = _fields(settings, TEXT_FIELDS, "config.json")
    visual = _visual(settings)
    tower = tower.get("vision_config", tower)
    vision = TOWER_DEFAULTS | {k: tower[k] for k in TOWER_DEFAULTS if k in tower}
    vision |= _fields(tower, TOWER_FIELDS, f"{visual['vision_model_name_or_path']}'s vision_config")
    for name, ours, theirs in (
        ("visual.image_size", visual["image_size"], vision["image_size"]),
        ("visual.output_dim", visual["output_dim"], text["hidden_size"]),
        ("rope_scaling", settings.get("rope_scaling"), None),
    ):
        if ours != theirs:
            raise RecipeError(f"config.json: {name} is {ours}, which CheXagent-2 allows only as {theirs} here")
    try:
        return CheXagent2Config(
            text_config=PhiConfig(**text, bos_token_id=settings.get("bos_token_id")),
            vision_config=SiglipVisionConfig(**vision),
            image_token_index=image_token_id,
            image_seq_length=(vision["image_size"] // vision["patch_size"]) ** 2,
            projector_hidden_act="gelu",
            vision_feature_layer=-1,
            vision_feature_select_strategy="full",
            tie_word_embeddings=text["tie_word_embeddings"],
        )
    except StrictDataclassError as error:
        raise RecipeError(f"config.json: {' '.join(str(error).split())[:300]}") from error


def _tokenizer(source: str | Path, download: bool) -> Any:
    tokenizer: Any = GPT2Tokenizer.from_pretrained(source, local_files_only=not download)
    absent = {IMAGE_OPEN, IMAGE, IMAGE_CLOSE, "<|endoftext|>"} - tokenizer.get_vocab().keys()
    if absent:
        raise RecipeError(f"policy.model {str(source)!r}: its tokenizer has no {', '.join(sorted(absent))}")
    tokenizer.pad_token, tokenizer.padding_side = "<|endoftext|>", "left"
    tokenizer.chat_template = CHAT_TEMPLATE  # the published one reads another message format
    tokenizer.clean_up_tokenization_spaces = False  # as transformers 5 decodes BPE whatever the checkpoint says
    return tokenizer


def _processor(tokenizer: Any, config: Any, image: Mapping[str, Any]) -> LlavaProcessor:
    """Whole image to a square (bicubic, no crop), one placeholder per patch, CheXagent-2's chat format."""
    side = config.vision_config.image_size
    return LlavaProcessor(
        image_processor=SiglipImageProcessorPil(size={"height": side, "width": side}, resample=3, **image),
        tokenizer=tokenizer,
        patch_size=config.vision_config.patch_size,
        vision_feature_select_strategy="full",
        image_token=IMAGE,
        num_additional_image_tokens=0,
        chat_template=CHAT_TEMPLATE,
    )


# ---- their JSON


def _json(source: str | Path, name: str, download: bool) -> dict[str, Any]:
    """A JSON file of a folder or hub repository. Raises OSError when it is not there."""
    return json.loads(Path(str(cached_file(source, name, local_files_only=not download))).read_text())


def _tower_place(source: str | Path, named: str) -> str | Path:
    """A folder: as named, or of that name beside the checkpoint folder. Otherwise the name is a hub id."""
    beside = Path(source).absolute().parent / Path(named).name
    folders = (Path(named), beside) if Path(source).is_dir() else ()
    return next((folder for folder in folders if (folder / "config.json").is_file()), named)


def _tower_settings(place: str | Path, download: bool) -> tuple[dict[str, Any], dict[str, Any]]:
    try:
        return _json(place, "config.json", download), _json(place, "preprocessor_config.json", download)
    except (OSError, ValueError) as error:
        name = Path(place).name
        raise RecipeError(
            f"the tower's settings {str(place)!r} cannot be read: put config.json and preprocessor_config.json of that "
            f"repository in a folder {name} beside the checkpoint, or set policy.download=true"
        ) from error


def _visual(settings: Mapping[str, Any]) -> dict[str, Any]:
    return _fields(_fields(settings, ("visual",), "config.json")["visual"], VISUAL_FIELDS, "config.json's visual")


def _fields(table: Mapping[str, Any], names: Sequence[str], where: str) -> dict[str, Any]:
    absent = [n for n in names if n not in table]
    if absent:
        raise RecipeError(f"{where} has no {', '.join(absent)}; CheXagent-2 takes every setting from its JSON")
    return {n: table[n] for n in names}
