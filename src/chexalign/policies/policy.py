"""A policy: a checkpoint that turns prompts into reports and gives log-probs of reports. Any Hugging Face VLM or LLM."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from chexalign.cleaning import clean
from chexalign.data.tags import body_of, wrapped
from chexalign.errors import RecipeError
from chexalign.policies import adapters
from chexalign.policies.checkpoints import adapter
from chexalign.policies.checkpoints.load import Loading, load_checkpoint
from chexalign.policies.encoder import PromptEncoder
from chexalign.policies.engine import Engine
from chexalign.policies.forward import generate as sampling
from chexalign.policies.forward.logps import Prefix, Scorer
from chexalign.policies.forward.padding import right_padded
from chexalign.policies.forward.unwrap import core_model
from chexalign.policies.parts import PARTS, belongs
from chexalign.policies.prompt import Prompt
from chexalign.policies.turn import AssistantTurn, assistant_turn, turn_ids


class Policy:
    """Load with `Policy.load`. `model` and `processor` are the plain Hugging Face objects."""

    def __init__(self, model: Any, processor: Any, name: str):
        self.model = model
        self.processor = processor
        self.name = name
        self.encoder = PromptEncoder(processor)
        self.tokenizer = self.encoder.tokenizer
        self.scorer = Scorer(model)
        self.engine: Engine | None = None  # where samples come from; None: from here (engines.attach)
        self.chat = True  # whether its prompts are written by its chat template, where it has one
        self.wrap: str | None = None  # `report`: what it writes stands between tags (data/tags.py)
        self.clean: tuple[str, ...] = ()  # the rules of chexalign.cleaning that its texts need

    @classmethod
    def load(
        cls,
        source: str | Path,
        *,
        dtype: str = "float32",
        download: bool = False,
        trust_remote_code: bool = False,
        device: str | torch.device | None = None,
    ) -> Policy:
        """Load a checkpoint folder or a hub id: safetensors only, no network unless `download`, no remote code unless asked.

        `dtype` is the type of the weights; `device` is the GPU where there is one. Raises RecipeError when it is not
        there or cannot be loaded that way.

        >>> import tempfile
        >>> from pathlib import Path
        >>> from chexalign.policies.checkpoints.tiny import build_tiny
        >>> from chexalign.recipe.policy import TinyPolicy
        >>> folder = Path(tempfile.mkdtemp())
        >>> build_tiny(TinyPolicy(), ["The heart is normal."], folder, seed=0)
        >>> policy = Policy.load(folder)
        >>> report = policy.completion_ids("The heart is normal.")
        >>> [[logps]] = policy.token_logps([Prompt("Findings:")], [[report]])
        >>> logps.shape == (len(report),)
        True
        """
        return cls(*load_checkpoint(source, Loading(dtype, download, trust_remote_code, device)))

    @property
    def device(self) -> torch.device:
        """Where its weights are."""
        return next(self.model.parameters()).device

    @property
    def stop_ids(self) -> frozenset[int]:
        """The ids that end a report: the generation config's, the tokenizer's and the chat template's."""
        ends = self.model.generation_config.eos_token_id
        ends = ends if isinstance(ends, list) else [ends]
        return frozenset(i for i in (*ends, self.tokenizer.eos_token_id, self.end_id) if i is not None)

    @cached_property
    def turn(self) -> AssistantTurn:
        """What surrounds a report: the chat template's turn, or nothing where the prompt is no chat."""
        return assistant_turn(self.processor) if self.chat else AssistantTurn()

    @property
    def end_id(self) -> int:
        """The id that ends a report it learns from: the one that ends the template's turn, or else the tokenizer's."""
        return self.tokenizer.eos_token_id if self.turn.end_id is None else self.turn.end_id

    def completion_ids(self, text: str) -> tuple[int, ...]:
        """Token ids of a report as a training target: as the model's chat template would write it after its prompt.

        The text stands in tags where the policy writes them, and ends with the token that ends the turn.
        """
        ids = turn_ids(self.processor, self.turn, wrapped(text) if self.wrap else text)
        return tuple(ids) if self.turn.end_id is not None else (*ids, self.end_id)

    def text(self, tokens: Sequence[int]) -> str:
        """The report that the tokens hold, without markup; where the policy writes tags, what they enclose, closed or not."""
        return self._report(self._decoded(tokens))

    def written(self, tokens: Sequence[int]) -> str | None:
        """The same as it was written, for the format reward and the reader; None where that is the report itself."""
        raw = self._decoded(tokens)
        return raw if self.wrap or self._report(raw) != raw else None

    def _decoded(self, tokens: Sequence[int]) -> str:
        return self.tokenizer.decode(list(tokens), skip_special_tokens=True).strip()

    def _report(self, raw: str) -> str:
        text = body_of(raw)[0] if self.wrap else raw
        return clean(text, self.clean) if self.clean else text

    def save(self, folder: Path, weights: dict[str, Tensor] | None = None) -> None:
        """Write an ordinary safetensors checkpoint with its processor, or the adapter alone (checkpoints/adapter.py).

        `weights` are the model's by name, where its own parameters are only pieces of them (FSDP, DeepSpeed).
        """
        if adapters.has_adapter(self.model):
            return adapter.save(self.model, folder, weights)
        self.model.save_pretrained(folder, state_dict=weights)
        self.processor.save_pretrained(folder)

    # ---- prompts → tensors

    @property
    def reuse_features(self) -> bool:
        """Whether each image goes through the tower once: right while nothing changes the tower."""
        return self.encoder.reuse_features

    @reuse_features.setter
    def reuse_features(self, reuse: bool) -> None:
        """Off while the tower learns: stored features would be those of older weights."""
        self.encoder.reuse_features = reuse

    def encode(self, prompts: Sequence[Prompt]) -> Prefix:
        """A left-padded batch (B, P) on the policy's device. Raises ImageError where an image cannot be read."""
        return self.encoder(core_model(self.model), prompts).to(self.device)

    def keep_features(self, folder: Path, gib: float, dtype: str | None = None) -> None:
        """Reuse the frozen tower's features, and keep up to `gib` GiB of them in `folder` (0: in memory alone).

        They are stored in `dtype`, the type of the weights when absent.
        """
        self.encoder.keep_features(core_model(self.model), folder, gib, getattr(torch, dtype) if dtype else None)

    def pad_completions(self, completions: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
        """Right-padded ids and mask, both (N, T)."""
        ids, mask = right_padded(completions)
        return ids.to(self.device), mask.to(self.device)

    # ---- the two things a policy does

    def token_logps(
        self, prompts: Sequence[Prompt], completions: Sequence[Sequence[Sequence[int]]]
    ) -> list[list[Tensor]]:
        """Log-probs of completion tokens: for each prompt, for each of its completions, a tensor of shape (T,), in nats.

        `completions` holds, per prompt, lists of token ids (none empty). Each prompt is encoded once. Prompts that bring
        different numbers of completions are allowed. Gradients flow unless the caller turns them off.
        They are the model's own, at temperature 1, whatever the scorer is set to.
        Raises ValueError for an empty completion, or where the two lists differ in length.
        """
        if len(prompts) != len(completions):
            raise ValueError(f"{len(completions)} groups of completions for {len(prompts)} prompts")
        if any(not tokens for group in completions for tokens in group) or not all(completions):
            raise ValueError("an empty completion has no log-probs; give at least the end-of-text token")
        widest = max(map(len, completions))
        filled = [[*group, *[group[0]] * (widest - len(group))] for group in completions]
        ids, mask = self.pad_completions([tokens for group in filled for tokens in group])
        with self.scorer.at(temperature=1.0):
            logps = self.scorer(self.encode(prompts), ids, mask)
        return [
            [logps[i * widest + j, : len(tokens)] for j, tokens in enumerate(group)]
            for i, group in enumerate(completions)
        ]

    def generate(
        self,
        prompts: Sequence[Prompt],
        n: int = 1,
        temperature: float = 1.0,
        max_new_tokens: int = 512,
        seed: int | Sequence[int] = 0,
        top_p: float = 1.0,
    ) -> list[list[sampling.Sampled]]:
        """n completions per prompt. `seed` is one number, or one per prompt (then batch order cannot matter).

        Temperature 0 takes the most likely token. Log-probs are in nats at temperature 1, whatever was sampled at.
        """
        seeds = [sampling.stream_seed(seed, i) for i in range(len(prompts))] if isinstance(seed, int) else list(seed)
        if self.engine is not None:
            return self.engine.generate(
                prompts, n=n, temperature=temperature, top_p=top_p, max_new_tokens=max_new_tokens, seeds=seeds
            )
        settings = sampling.SamplingSettings(
            n, temperature, top_p, max_new_tokens, self.stop_ids, allowed=len(self.tokenizer)
        )
        prefix = self.encode(prompts)  # the tower's features have a type of their own
        with self.scorer.computing():
            return sampling.sample(self.model, prefix, seeds, settings)

    # ---- how it learns

    def use(self, model: Any) -> None:
        """Take another model for the same prompts, for example the same one with adapters."""
        self.model = self.scorer.model = model

    def reference(self) -> AbstractContextManager[None]:
        """Inside, the policy is what it was before training: its adapters off, or those it continues (policies/adapters.py)."""
        return adapters.reference(self.model)

    def compute_in(self, dtype: str) -> None:
        """Score and sample in a 16-bit type while the weights stay as they are (automatic mixed precision)."""
        self.scorer.compute_dtype = None if dtype == "float32" else getattr(torch, dtype)

    def freeze(self, parts: Sequence[str]) -> None:
        """Everything learns except the named parts (tower, projector, decoder)."""
        self.model.requires_grad_(True)
        for name, parameter in core_model(self.model).named_parameters():
            if any(belongs(name, part) for part in parts):
                parameter.requires_grad_(False)
        if "decoder" in parts:
            self.model.get_output_embeddings().requires_grad_(False)
        self.reuse_features = "tower" in parts

    def part(self, name: str) -> nn.Module:
        """The first module of a named part, for example the tower. Raises RecipeError where the model has none."""
        core = core_model(self.model)
        for attribute in PARTS[name]:
            if hasattr(core, attribute):
                return getattr(core, attribute)
        raise RecipeError(f"{type(core).__name__} has no part called {name}")
