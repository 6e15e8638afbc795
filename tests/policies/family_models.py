"""Tiny random checkpoints of every family, each with its own real processor: the folders a user would point a recipe at."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from transformers import (
    BartConfig,
    BartForConditionalGeneration,
    CLIPImageProcessorPil,
    CLIPVisionConfig,
    CohereConfig,
    CohereForCausalLM,
    Gemma2Config,
    Gemma2ForCausalLM,
    Gemma3Config,
    Gemma3ForConditionalGeneration,
    Gemma3ImageProcessorPil,
    Gemma3Processor,
    GPT2Config,
    GPT2LMHeadModel,
    GraniteConfig,
    GraniteForCausalLM,
    Idefics3Config,
    Idefics3ForConditionalGeneration,
    Idefics3ImageProcessorPil,
    Idefics3Processor,
    LlamaConfig,
    LlamaForCausalLM,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaNextConfig,
    LlavaNextForConditionalGeneration,
    LlavaNextImageProcessorPil,
    LlavaNextProcessor,
    LlavaProcessor,
    MambaConfig,
    MambaForCausalLM,
    MistralConfig,
    OPTConfig,
    OPTForCausalLM,
    Phi3Config,
    Phi3ForCausalLM,
    PhiConfig,
    PreTrainedTokenizerFast,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2_5_VLProcessor,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen2VLImageProcessorPil,
    Qwen3Config,
    Qwen3ForCausalLM,
    Qwen3VLConfig,
    Qwen3VLForConditionalGeneration,
    Qwen3VLProcessor,
    RecurrentGemmaConfig,
    RecurrentGemmaForCausalLM,
    SmolVLMConfig,
    SmolVLMForConditionalGeneration,
)

from chexalign.policies.checkpoints.processors import stills_only
from chexalign.policies.checkpoints.tiny import BOS, CHAT_TEMPLATE, EOS, PAD, build_tokenizer

TEXTS = ["There is a small left pleural effusion.", "The heart is normal in size.", "No pneumothorax."]
WIDTHS = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
DECODER = {**WIDTHS, "num_key_value_heads": 2, "max_position_embeddings": 512}
TOWER = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
WINDOW = 24  # of sliding-window layers: shorter than every prompt here, completion or not
IDEFICS_TOKENS = ("<fake_token_around_image>", "<image>", "<end_of_utterance>", "<global-img>")
QWEN_TOKENS = ("<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>", "<|im_end|>")


def tokenizer(special: tuple[str, ...] = (), placeholder: str = "<image>", **named: str) -> PreTrainedTokenizerFast:
    """Byte-level BPE with a family's special tokens and a chat template that writes its image placeholder."""
    built = PreTrainedTokenizerFast(
        tokenizer_object=build_tokenizer(TEXTS, 320).backend_tokenizer,
        pad_token=PAD,
        bos_token=BOS,
        eos_token=EOS,
        extra_special_tokens=named,
        clean_up_tokenization_spaces=False,
    )
    built.add_tokens(list(special), special_tokens=True)
    built.chat_template = CHAT_TEMPLATE.replace("<image>", placeholder)
    return built


def common(words: PreTrainedTokenizerFast) -> dict[str, Any]:
    return {
        "vocab_size": len(words),
        "pad_token_id": words.pad_token_id,
        "bos_token_id": words.bos_token_id,
        "eos_token_id": words.eos_token_id,
    }


def llava(text: Callable[..., Any], **changes: Any) -> tuple[Any, Any]:
    """LLaVA-1.5's shape: CLIP tower without its class token, layer −2, two-layer projector."""
    words = tokenizer(image_token="<image>")
    config = LlavaConfig(
        text_config=text(**{**DECODER, **changes}, **common(words)),
        vision_config=CLIPVisionConfig(**TOWER, image_size=32, patch_size=8),
        image_token_index=words.convert_tokens_to_ids("<image>"),
        image_seq_length=16,
    )
    processor = LlavaProcessor(
        CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}),
        words,
        patch_size=8,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=words.chat_template,
    )
    return LlavaForConditionalGeneration(config), processor


def llava_next() -> tuple[Any, Any]:
    """Tiles of a larger image beside a small one; the number of tokens depends on the image's shape."""
    words = tokenizer(image_token="<image>")
    grid = [[32, 64], [64, 32], [64, 64]]
    config = LlavaNextConfig(
        text_config=MistralConfig(**DECODER, **common(words), sliding_window=None),
        vision_config=CLIPVisionConfig(**TOWER, image_size=32, patch_size=8),
        image_token_index=words.convert_tokens_to_ids("<image>"),
        image_grid_pinpoints=grid,
    )
    images = LlavaNextImageProcessorPil(
        size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}, image_grid_pinpoints=grid
    )
    processor = LlavaNextProcessor(
        images, words, patch_size=8, vision_feature_select_strategy="default", num_additional_image_tokens=1,
        chat_template=words.chat_template,
    )  # fmt: skip
    return LlavaNextForConditionalGeneration(config), processor


def qwen_vl(model: Callable[..., Any], config: Callable[..., Any], processor: Any, rope: dict[str, Any], **vision: Any):
    """Patches of any number, merged two by two; rotary positions in time, height and width."""
    words = tokenizer(QWEN_TOKENS, "<|vision_start|><|image_pad|><|vision_end|>")
    ids = {f"{n}_id": words.convert_tokens_to_ids(f"<|{t}|>") for n, t in (
        ("image_token", "image_pad"), ("video_token", "video_pad"), ("vision_start_token", "vision_start"),
        ("vision_end_token", "vision_end"),
    )}  # fmt: skip
    built = config(
        text_config={
            **DECODER,
            **common(words),
            "rope_parameters": {"rope_type": "default", "rope_theta": 1e4, **rope},
        },
        vision_config={"depth": 2, "hidden_size": 32, "intermediate_size": 64, "num_heads": 2, "out_hidden_size": 32}
        | vision,
        **ids,
    )
    size = vision["patch_size"] * 2
    images = Qwen2VLImageProcessorPil(
        min_pixels=4 * size * size, max_pixels=9 * size * size, patch_size=vision["patch_size"]
    )
    return model(built), stills_only(processor, {})(images, words, chat_template=words.chat_template)


def gemma3(layers: tuple[str, ...]) -> tuple[Any, Any]:
    """MedGemma's shape: image tokens see each other; some layers see only a window."""
    words = tokenizer(
        (), "<start_of_image>", image_token="<image_soft_token>", boi_token="<start_of_image>", eoi_token="<end_of_image>"
    )  # fmt: skip
    config = Gemma3Config(
        text_config={**DECODER, **common(words), "num_hidden_layers": len(layers), "head_dim": 8,
                     "sliding_window": WINDOW, "layer_types": [f"{kind}_attention" for kind in layers]},
        vision_config={**TOWER, "image_size": 32, "patch_size": 8},
        mm_tokens_per_image=4,
        image_token_id=words.convert_tokens_to_ids("<image_soft_token>"),
        boi_token_index=words.convert_tokens_to_ids("<start_of_image>"),
        eoi_token_index=words.convert_tokens_to_ids("<end_of_image>"),
    )  # fmt: skip
    images = Gemma3ImageProcessorPil(size={"height": 32, "width": 32})
    processor = Gemma3Processor(images, words, chat_template=words.chat_template, image_seq_length=4)
    return Gemma3ForConditionalGeneration(config), processor


def idefics3(model: Callable[..., Any], config: Callable[..., Any]) -> tuple[Any, Any]:
    """Images split into tiles, pixels shuffled into few tokens. SmolVLM's processor is the same for images."""
    tiles = tuple(f"<row_{i + 1}_col_{j + 1}>" for i in range(6) for j in range(6))
    words = tokenizer((*IDEFICS_TOKENS, *tiles))
    built = config(
        text_config=LlamaConfig(**DECODER, **common(words)),
        vision_config={**TOWER, "image_size": 32, "patch_size": 8},
        image_token_id=words.convert_tokens_to_ids("<image>"),
        scale_factor=2,
        pad_token_id=words.pad_token_id,
    )
    images = Idefics3ImageProcessorPil(size={"longest_edge": 64}, max_image_size={"longest_edge": 32})
    processor = Idefics3Processor(images, words, image_seq_len=4, chat_template=words.chat_template)
    return model(built), processor


def text_only(model: Callable[..., Any], config: Callable[..., Any], **changes: Any) -> tuple[Any, Any]:
    words = tokenizer(())
    return model(config(**{**DECODER, **changes}, **common(words))), words


BART = {"d_model": 32, "encoder_layers": 1, "decoder_layers": 1, "encoder_ffn_dim": 32, "decoder_ffn_dim": 32}
GPT2 = {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 512}
QWEN25 = {"fullatt_block_indexes": [1], "window_size": 56, "patch_size": 14}
QWEN3 = {"deepstack_visual_indexes": [0, 1], "patch_size": 16, "num_position_embeddings": 64}
FAMILIES: dict[str, Callable[[], tuple[Any, Any]]] = {
    "llava-llama": lambda: llava(LlamaConfig),
    "llava-mistral": lambda: llava(MistralConfig, sliding_window=WINDOW),
    "llava-phi": lambda: llava(PhiConfig, num_key_value_heads=4, partial_rotary_factor=0.5),
    "llava-next": llava_next,
    "idefics3": lambda: idefics3(Idefics3ForConditionalGeneration, Idefics3Config),
    "smolvlm": lambda: idefics3(SmolVLMForConditionalGeneration, SmolVLMConfig),
    "qwen2.5-vl": lambda: qwen_vl(
        Qwen2_5_VLForConditionalGeneration,
        Qwen2_5_VLConfig,
        Qwen2_5_VLProcessor,
        {"mrope_section": [1, 1, 2]},
        **QWEN25,
    ),
    "qwen3-vl": lambda: qwen_vl(
        Qwen3VLForConditionalGeneration, Qwen3VLConfig, Qwen3VLProcessor, {"mrope_section": [1, 1, 2]}, **QWEN3
    ),
    "gemma3": lambda: gemma3(("sliding", "full")),
    "gemma3-sliding-last": lambda: gemma3(("full", "sliding")),
    "llama": lambda: text_only(LlamaForCausalLM, LlamaConfig),
    "qwen2": lambda: text_only(Qwen2ForCausalLM, Qwen2Config),
    "qwen3": lambda: text_only(Qwen3ForCausalLM, Qwen3Config, head_dim=8),
    "phi3": lambda: text_only(Phi3ForCausalLM, Phi3Config),
    # what these do to their logits after the output layer
    "gemma2": lambda: text_only(
        Gemma2ForCausalLM, Gemma2Config, head_dim=8, sliding_window=WINDOW, final_logit_softcapping=3.0
    ),
    "cohere": lambda: text_only(CohereForCausalLM, CohereConfig, logit_scale=0.25),
    "granite": lambda: text_only(GraniteForCausalLM, GraniteConfig, logits_scaling=4.0),
}
OUTSIDE: dict[str, Callable[[], tuple[Any, Any]]] = {
    "mamba": lambda: text_only(MambaForCausalLM, MambaConfig, state_size=4),
    "recurrent_gemma": lambda: text_only(
        RecurrentGemmaForCausalLM, RecurrentGemmaConfig, attention_window_size=WINDOW, head_dim=8, lru_width=32
    ),
    "gpt2": lambda: text_only(GPT2LMHeadModel, GPT2Config, **GPT2),
    "opt": lambda: text_only(OPTForCausalLM, OPTConfig, ffn_dim=64, word_embed_proj_dim=32),
    "bart": lambda: text_only(BartForConditionalGeneration, BartConfig, **BART),
}


def write(name: str, folder: Path) -> Path:
    """Save a family's checkpoint to `folder`."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model, processor = (FAMILIES | OUTSIDE)[name]()
        gain = 8.0 if name in FAMILIES else 2.0
        with torch.no_grad():  # initial weights are so small that every mistake would be, too
            for parameter in model.parameters():
                flat = parameter.dim() < 2 or not parameter.any()  # Gemma 3's projector starts at zero
                parameter.add_(0.1 * torch.randn_like(parameter)) if flat else parameter.mul_(gain)
    words = getattr(processor, "tokenizer", processor)
    model.generation_config.eos_token_id, model.generation_config.pad_token_id = words.eos_token_id, words.pad_token_id
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    if name == "smolvlm":  # its own processor's class wants packages that are not here
        settings = folder / "processor_config.json"
        settings.write_text(settings.read_text().replace("Idefics3Processor", "SmolVLMProcessor"))
    return folder
