"""A language model in this process: transformers, greedy, prompts batched by length. Weights are loaded when first asked."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

from chexalign.errors import Abstain, WorkError
from chexalign.llm.reply import Answer, Prompt, Reply, Usage, as_dicts


@dataclass
class Local:
    """A Backend. `model` is a checkpoint folder, or a hub id that is on the disk or that `download` may fetch."""

    model: str
    usage: Usage
    batch_size: int = 8
    max_tokens: int | Literal["auto"] = 1024  # auto: what the prompt leaves of `context_tokens`
    download: bool = False
    context_tokens: int = 2048

    @cached_property
    def _parts(self) -> tuple[Any, Any]:
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer

        offline = {"local_files_only": not self.download or os.path.isdir(self.model), "trust_remote_code": False}
        try:
            tokenizer = AutoTokenizer.from_pretrained(self.model, padding_side="left", **offline)
            model = AutoModelForCausalLM.from_pretrained(self.model, dtype="auto", use_safetensors=True, **offline)
        except (OSError, ValueError) as error:
            remedy = (
                "" if self.download else "; give a checkpoint folder, or add download: true to fetch it from the hub"
            )
            raise WorkError(f"language model {self.model}: {str(error).splitlines()[0]}{remedy}") from error
        if tokenizer.pad_token is None:
            tokenizer.pad_token = tokenizer.eos_token
        device = "cuda" if torch.cuda.is_available() else "cpu"
        loaded: Any = model
        return loaded.to(device).eval(), tokenizer

    def __call__(self, prompts: Sequence[Prompt]) -> list[Answer]:
        ids = [self._tokens(p) for p in prompts]
        limit = getattr(self._parts[0].config, "max_position_embeddings", None) or 1 << 30
        limit = min(limit, self.context_tokens) if self.max_tokens == "auto" else limit
        answers: dict[int, Answer] = {}
        for i, row in enumerate(ids):
            if len(row) + 1 > limit:
                answers[i] = Abstain(f"a prompt of {len(row)} tokens, and the model takes {limit}")
        order = sorted((i for i in range(len(ids)) if i not in answers), key=lambda i: len(ids[i]))
        for start in range(0, len(order), self.batch_size):
            chosen = order[start : start + self.batch_size]
            room = limit - len(ids[chosen[-1]])
            answers |= dict(
                zip(
                    chosen,
                    self._generate(
                        [ids[i] for i in chosen], room if self.max_tokens == "auto" else min(self.max_tokens, room)
                    ),
                    strict=True,
                )
            )
        return [answers[i] for i in range(len(prompts))]

    def _tokens(self, prompt: Prompt) -> list[int]:
        tokenizer = self._parts[1]
        if isinstance(prompt, str):
            return list(tokenizer(_whole(prompt))["input_ids"])
        prompt = tuple((role, _whole(text)) for role, text in prompt)
        if tokenizer.chat_template is None:
            return list(tokenizer("\n\n".join(text for _, text in prompt) + "\n\n")["input_ids"])
        rendered = tokenizer.apply_chat_template(as_dicts(prompt), add_generation_prompt=True, tokenize=False)
        return list(tokenizer(rendered, add_special_tokens=False)["input_ids"])

    def _generate(self, rows: Sequence[list[int]], max_new_tokens: int) -> list[Answer]:
        import torch

        model, tokenizer = self._parts
        batch = tokenizer.pad({"input_ids": list(rows)}, return_tensors="pt").to(model.device)
        greedy = {"do_sample": False, "temperature": None, "top_p": None, "top_k": None}
        with torch.inference_mode():
            out = model.generate(**batch, max_new_tokens=max_new_tokens, pad_token_id=tokenizer.pad_token_id, **greedy)
        ends = model.generation_config.eos_token_id
        ends = set(ends if isinstance(ends, list) else [ends])
        self.usage.add(requests=len(rows))
        return [
            self._reply(row, new, ends)
            for row, new in zip(rows, out[:, batch["input_ids"].shape[1] :].tolist(), strict=True)
        ]

    def _reply(self, prompt: Sequence[int], new: list[int], ends: set[int | None]) -> Reply:
        stop = next((i for i, token in enumerate(new) if token in ends), None)
        kept = new if stop is None else new[:stop]
        count = len(kept) + (stop is not None)
        self.usage.add(prompt_tokens=len(prompt), completion_tokens=count)
        text = self._parts[1].decode(kept, skip_special_tokens=True)
        return Reply(text, len(prompt), count, finished=stop is not None)


def _whole(text: str) -> str:
    """Half characters (lone surrogates) become question marks: tokenizers refuse them."""
    return text.encode("utf-8", "replace").decode()
