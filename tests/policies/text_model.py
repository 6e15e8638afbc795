"""A random Llama with a chat template of its own: the text-only policy of the impression tests."""

from pathlib import Path

import torch
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from chexalign.policies.checkpoints.tiny import BOS, EOS, PAD, build_tokenizer

CHAT = (
    "{% for m in messages %}{{ '<|' + m['role'] + '|>' + m['content'] }}"  # strings alone, as SmolLM2's
    "{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
TEXTS = [
    "Findings: Indication: Write the impression of this chest X-ray. <|user|> <|assistant|>",
    "There is a small left pleural effusion. The heart is normal in size. No pneumothorax.",
    "No acute cardiopulmonary disease.",
]


def build_llama(folder: Path, seed: int = 0) -> Path:
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=build_tokenizer(TEXTS, 360).backend_tokenizer,
        pad_token=PAD,
        bos_token=BOS,
        eos_token=EOS,
        chat_template=CHAT,
    )
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
        tie_word_embeddings=True,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
