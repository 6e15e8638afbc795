"""A policy: a checkpoint that turns prompts into reports and gives log-probs of reports. Any Hugging Face VLM or LLM."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForImageTextToText
from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES

from chexalign.data.images import load_image
from chexalign.data.tags import body_of, wrapped
from chexalign.errors import RecipeError
from chexalign.policies import adapters
from chexalign.policies.checkpoints import chexagent2
from chexalign.policies.checkpoints.load import downloaded_before
from chexalign.policies.checkpoints.processors import load_processor
from chexalign.policies.engine import Engine
from chexalign.policies.forward import generate as sampling
from chexalign.policies.forward.head import check_head
from chexalign.policies.forward.logps import Prefix, Scorer, inner_model
from chexalign.policies.forward.padding import left_padded, right_padded
from chexalign.policies.forward.vision_cache import FeatureStore, as_inputs, can_store, tower_features, without_pixels
from chexalign.policies.parts import PARTS
from chexalign.policies.prompt import Prompt


class Policy:
    """Load with `Policy.load`. `model` and `processor` are the plain Hugging Face objects."""

    def __init__(self, model: Any, processor: Any, name: str):
        self.model, self.processor, self.name = model, processor, name
        self.tokenizer = getattr(processor, "tokenizer", processor)
        self.scorer = Scorer(model)
        # prompts whose features are stored, and the name of those on the disk (None: they are in the entry)
        self._encoded: dict[tuple[Path, str], tuple[dict[str, Tensor], str | None]] = {}
        self.reuse_features = False
        self.engine: Engine | None = None  # where samples come from; None: from here (engines.attach)
        self.wrap: str | None = None  # `report`: what it writes stands between tags (data/tags.py)
        self._store: FeatureStore | None = None  # where they lie on the disk

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

        Raises RecipeError when it is not there or cannot be loaded that way.
        """
        if adapters.is_adapter(source):
            base = adapters.base_of(Path(source))
            policy = cls.load(base, dtype=dtype, download=download, trust_remote_code=trust_remote_code, device=device)
            policy.use(adapters.load_adapter(policy.model, Path(source)))
            policy.name = Path(source).name
            return policy
        common, asked = {"local_files_only": not download, "trust_remote_code": trust_remote_code}, str(source)
        name = Path(source).name if Path(source).exists() else str(source)
        try:
            if not download and not Path(source).exists():  # the Auto classes ask the network all the same
                source = downloaded_before(str(source))
            if chexagent2.recognises(source, download=download):
                model, processor = chexagent2.load(source, dtype=dtype, download=download)
            else:
                config = AutoConfig.from_pretrained(source, **common)
                if config.is_encoder_decoder:
                    raise RecipeError(
                        f"policy.model {str(source)!r} is an encoder-decoder ({config.model_type}); chexalign aligns "
                        "decoder-only models"
                    )
                seeing = config.model_type in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES
                kind = AutoModelForImageTextToText if seeing else AutoModelForCausalLM
                model = kind.from_pretrained(source, config=config, dtype=dtype, use_safetensors=True, **common)
                processor = load_processor(source, config, seeing, **common)
        except (OSError, ValueError) as error:
            hint = "" if download else "; it is not on this machine, or set policy.download=true to fetch a hub id"
            raise RecipeError(f"policy.model {name!r}: {' '.join(str(error).split())[:300]}{hint}") from error
        tokenizer = getattr(processor, "tokenizer", processor)
        tokenizer.padding_side = "left"
        if tokenizer.pad_token_id is None:
            tokenizer.pad_token = tokenizer.eos_token
        model.name_or_path = asked  # an adapter names its base so: by its hub id, not by where this machine keeps it
        model.eval()
        model.to(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        check_head(model)
        return cls(model, processor, name)

    @property
    def device(self) -> torch.device:
        return next(self.model.parameters()).device

    @property
    def stop_ids(self) -> frozenset[int]:
        """The ids that end a report: the generation config's and the tokenizer's."""
        ends = self.model.generation_config.eos_token_id
        ends = ends if isinstance(ends, list) else [ends]
        return frozenset(i for i in (*ends, self.tokenizer.eos_token_id) if i is not None)

    def completion_ids(self, text: str) -> tuple[int, ...]:
        """Token ids of a report as a training target: its text, in tags where the policy writes them, then end-of-text."""
        text = wrapped(text) if self.wrap else text
        return (*self.tokenizer(text, add_special_tokens=False)["input_ids"], self.tokenizer.eos_token_id)

    def text(self, tokens: Sequence[int]) -> str:
        """The report that the tokens hold; where the policy writes tags, what they enclose, closed or not."""
        text = self.tokenizer.decode(list(tokens), skip_special_tokens=True).strip()
        return body_of(text)[0] if self.wrap else text

    def written(self, tokens: Sequence[int]) -> str | None:
        """The same with its tags, for the format reward; None where the policy writes none."""
        return self.tokenizer.decode(list(tokens), skip_special_tokens=True).strip() if self.wrap else None

    def save(self, folder: Path, weights: dict[str, Tensor] | None = None) -> None:
        """Write an ordinary safetensors checkpoint with its processor, or the adapter alone (policies/adapters.py).

        `weights` are the model's by name, where its own parameters are only pieces of them (FSDP, DeepSpeed).
        """
        if adapters.has_adapter(self.model):
            return adapters.save(self.model, folder, weights)
        self.model.save_pretrained(folder, state_dict=weights)
        self.processor.save_pretrained(folder)

    # ---- prompts → tensors

    def encode(self, prompts: Sequence[Prompt]) -> Prefix:
        """A left-padded batch. With `reuse_features` (frozen tower), each image goes through the tower once."""
        core, _ = inner_model(self.model)
        cached = self.reuse_features and can_store(core)
        items = [self._encode_one(p, cached) for p in prompts]
        return left_padded(items, self.tokenizer.pad_token_id).to(self.device)

    def _encode_one(self, prompt: Prompt, cached: bool) -> dict[str, Tensor]:
        key = (prompt.root, "\x1f".join((prompt.text, *prompt.images)))
        if cached and (known := self._encoded.get(key)) is not None:
            item, name = known
            if name is None:
                return item
            if self._store and (features := self._store.get(name)) is not None:  # else the file was taken away
                return item | as_inputs(features)
        arguments: dict[str, Any] = {"text": [prompt.text], "return_tensors": "pt"}
        if prompt.images:
            arguments["images"] = [[load_image(prompt.root, path) for path in prompt.images]]
        bos = self.tokenizer.bos_token
        if bos and prompt.text.startswith(bos):  # the chat template has written it already
            arguments["add_special_tokens"] = False
        item = {k: v for k, v in self.processor(**arguments).items() if isinstance(v, Tensor)}
        return self._with_features(item, key) if cached and "pixel_values" in item else item

    def _with_features(self, item: dict[str, Tensor], key: tuple[Path, str]) -> dict[str, Tensor]:
        """The same prompt with the tower's features in place of the pixels, remembered unless the disk's share is used up."""
        core, _ = inner_model(self.model)
        rest = {k: v for k, v in item.items() if k != "pixel_attention_mask"}
        rest["pixel_values"] = without_pixels(core, item["pixel_values"])
        if self._store is None:
            whole = rest | as_inputs(tower_features(core, item))
            self._encoded[key] = whole, None
            return whole
        name = self._store.name(item)
        features = self._store.get(name)
        kept = features is not None
        if features is None:
            features = tower_features(core, item)
            kept = self._store.put(name, features)
        if kept:
            self._encoded[key] = rest, name
        return rest | as_inputs(features)

    def keep_features(self, folder: Path, gib: float) -> None:
        """Reuse the frozen tower's features, and keep up to `gib` GiB of them in `folder` (0: in memory alone)."""
        self.reuse_features = True
        self._store = FeatureStore(folder, inner_model(self.model)[0], int(gib * 2**30)) if gib else None

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
        """n completions per prompt. `seed` is one number, or one per prompt (then batch order cannot matter)."""
        seeds = [sampling.stream_seed(seed, i) for i in range(len(prompts))] if isinstance(seed, int) else list(seed)
        if self.engine is not None:
            asked: dict[str, Any] = {
                "n": n,
                "temperature": temperature,
                "top_p": top_p,
                "max_new_tokens": max_new_tokens,
            }
            return self.engine.generate(prompts, seeds=seeds, **asked)
        return sampling.sample(
            self.model,
            self.encode(prompts),
            n=n,
            temperature=temperature,
            top_p=top_p,
            max_new_tokens=max_new_tokens,
            seeds=seeds,
            stop_ids=self.stop_ids,
            allowed=len(self.tokenizer),
        )

    # ---- how it learns

    def use(self, model: Any) -> None:
        """Take another model for the same prompts, for example the same one with adapters."""
        self.model = self.scorer.model = model

    def reference(self) -> AbstractContextManager[None]:
        """Inside, the policy is what it was before training: its adapters off, or those it continues (policies/adapters.py)."""
        return adapters.reference(self.model)

    def compute_in(self, dtype: str) -> None:
        """Score in a 16-bit type while the weights stay as they are (automatic mixed precision)."""
        self.scorer.compute_dtype = None if dtype == "float32" else getattr(torch, dtype)

    def freeze(self, parts: Sequence[str]) -> None:
        """Everything learns except the named parts (tower, projector, decoder)."""
        core, _ = inner_model(self.model)
        self.model.requires_grad_(True)
        for part in parts:
            for name, parameter in core.named_parameters():
                if name.startswith(PARTS[part]) and not (part == "tower" and name.startswith(PARTS["projector"])):
                    parameter.requires_grad_(False)
        if "decoder" in parts:
            self.model.get_output_embeddings().requires_grad_(False)
        self.reuse_features = "tower" in parts

    def part(self, name: str) -> nn.Module:
        """The first module of a named part, for example the tower."""
        core, _ = inner_model(self.model)
        for attribute in PARTS[name]:
            if hasattr(core, attribute):
                return getattr(core, attribute)
        raise RecipeError(f"{type(core).__name__} has no part called {name}")
